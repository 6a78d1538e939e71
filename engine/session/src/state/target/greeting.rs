//! The target before anything moves: it awaits the source's hello, then its offer, and judges it.

use alloc::vec;
use alloc::vec::Vec;

use limosa_wire::{Hello, Message, MigrationId, Offer, Reason, Verdict, VersionRange};

use super::{Preparing, State, Step, Terms};
use crate::event::Event;
use crate::judge::{Judged, judge_offer, no_common_version};
use crate::target::Context;

/// The source has not said hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AwaitHello;

impl AwaitHello {
    pub(super) fn on_hello(self, hello: &Hello, cx: &mut Context) -> Step<State> {
        let versions = VersionRange::SUPPORTED;
        let migration_id = hello.migration_id;
        // Of all that is said here a source of any version reads this one.
        cx.outbox.send(Message::Hello(Hello {
            versions,
            migration_id,
            agent: cx.agent.clone(),
        }));
        if versions.newest_common(hello.versions).is_none() {
            return refuse(vec![no_common_version(hello.versions, versions)], cx);
        }
        cx.outbox
            .wait_for("the source's offer", cx.config.handshake_max);
        Step::To(State::AwaitOffer(AwaitOffer { migration_id }))
    }
}

/// Both have said hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AwaitOffer {
    migration_id: MigrationId,
}

impl AwaitOffer {
    pub(super) fn on_offer(self, offer: Offer, cx: &mut Context) -> Step<State> {
        let (cpu, warnings) = match judge_offer(&offer, &cx.policy) {
            Ok(Judged::Fits { cpu, warnings }) => (cpu, warnings),
            Ok(Judged::Refused(reasons)) => return refuse(reasons, cx),
            Err(misdeed) => return Step::blame(misdeed),
        };
        let told = warnings.iter().cloned().map(Event::Warning);
        told.for_each(|warning| cx.outbox.observe(warning));
        let terms = Terms {
            migration_id: self.migration_id,
            stream_count: offer.stream_count.min(cx.policy.stream_count_max.max(1)),
            encodings: offer.encodings.intersect(cx.config.encodings),
            sections: offer.sections.clone(),
            cpu,
            warnings,
        };
        cx.outbox.timers.wait_no_more();
        cx.outbox.act(cx.hold.prepare(offer));
        Step::To(State::Preparing(Preparing { terms }))
    }
}

fn refuse(reasons: Vec<Reason>, cx: &mut Context) -> Step<State> {
    let verdict = Verdict::Refused {
        reasons: reasons.clone(),
    };
    cx.outbox.send(Message::Verdict(verdict));
    Step::Incompatible(reasons)
}
