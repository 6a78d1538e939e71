//! The target before anything moves: it awaits the source's hello, then its offer, and judges it.

use alloc::vec;
use alloc::vec::Vec;

use limosa_wire::{Hello, Message, MigrationId, Offer, Reason, Verdict, VersionRange};

use super::{Preparing, State, Step, Terms};
use crate::judge::{judge_offer, no_common_version};
use crate::outcome::Outcome;
use crate::target::Context;

/// The source has not said hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AwaitHello;

impl AwaitHello {
    pub(super) fn on_hello(self, hello: &Hello, cx: &mut Context) -> Step<State> {
        let versions = VersionRange::SUPPORTED;
        if versions.newest_common(hello.versions).is_none() {
            return refuse(vec![no_common_version(hello.versions, versions)], cx);
        }
        let migration_id = hello.migration_id;
        cx.outbox.send(Message::Hello(Hello {
            versions,
            migration_id,
            agent: cx.agent.clone(),
        }));
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
        let reasons = match judge_offer(&offer, &cx.policy) {
            Ok(reasons) => reasons,
            Err(misdeed) => return Step::blame(misdeed),
        };
        if !reasons.is_empty() {
            return refuse(reasons, cx);
        }
        let terms = Terms {
            migration_id: self.migration_id,
            stream_count: offer.stream_count.min(cx.policy.stream_count_max.max(1)),
            encodings: offer.encodings.intersect(cx.config.encodings),
            sections: offer.sections.clone(),
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
    Step::End(Outcome::Refused(reasons))
}
