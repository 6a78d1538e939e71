//! The source before anything moves: it awaits the target's hello, and then its verdict.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

use limosa_compat::HostCpu;
use limosa_wire::{
    Agreed, EncodingSet, Hello, Message, PageEncoding, Refuse, Verdict, VersionRange,
};

use super::{Binding, State, Step};
use crate::error::{FaultKind, LocalFault, Misdeed, SessionError};
use crate::event::{Event, Warning};
use crate::io::SourceAction as Action;
use crate::judge::no_common_version;
use crate::source::Context;

/// The target has not said hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AwaitHello;

impl AwaitHello {
    pub(super) fn on_hello(self, hello: &Hello, cx: &mut Context) -> Step<State> {
        if hello.migration_id != cx.migration_id {
            return Step::blame(Misdeed::OtherMigration);
        }
        let own = VersionRange::SUPPORTED;
        if own.newest_common(hello.versions).is_none() {
            let reason = no_common_version(own, hello.versions);
            return Step::Fail(SessionError::PeerIncompatible(vec![reason]));
        }
        cx.outbox.send(Message::Offer(cx.offer.clone()));
        // The target makes machine and memory before it answers.
        cx.outbox
            .wait_for("the target's verdict", cx.config.prepare_max);
        Step::To(State::AwaitVerdict(AwaitVerdict))
    }
}

/// The guest was offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AwaitVerdict;

impl AwaitVerdict {
    pub(super) fn on_verdict(self, verdict: Verdict, cx: &mut Context) -> Step<State> {
        let (stream_count, encodings, secret, host, digest) = match verdict {
            Verdict::Refused { reasons } => return Step::Incompatible(reasons),
            Verdict::Accepted {
                stream_count,
                encodings,
                secret,
                host,
                cpu_digest,
            } => (stream_count, encodings, secret, host, cpu_digest),
        };
        if stream_count == 0 || stream_count > cx.offer.stream_count {
            return accepted_unoffered("page streams");
        }
        let needed = EncodingSet::of(&[PageEncoding::Raw, PageEncoding::Zero]);
        if !cx.offer.encodings.is_superset(encodings) || !encodings.is_superset(needed) {
            return accepted_unoffered("page encodings");
        }
        let warnings = match judge_host(&host, digest, cx) {
            Ok(warnings) => warnings,
            Err(step) => return *step,
        };
        let warnings = warnings.into_iter().map(Event::Warning);
        warnings.for_each(|warning| cx.outbox.observe(warning));
        cx.outbox.observe(Event::Accepted { stream_count });
        cx.outbox
            .send(Message::Agreed(Agreed { cpu_digest: digest }));
        cx.outbox.act([Action::OpenStreams {
            stream_count,
            encodings,
            secret,
        }]);
        cx.outbox
            .wait_for("the binding of the page streams", cx.config.handshake_max);
        cx.convergence.binding_began(cx.outbox.now());
        Step::To(State::Binding(Binding::new(stream_count)))
    }
}

/// The source's own judgement, by what the target says of its host: a target that has not judged,
/// or judges otherwise, gets no page.
fn judge_host(
    host: &[u8],
    digest: u64,
    cx: &mut Context,
) -> Result<Vec<Warning>, Box<Step<State>>> {
    let own = cx.cpu.as_ref().map_err(|error| {
        let (kind, text) = (FaultKind::Guest, format!("the offer's {error}"));
        Box::new(Step::Fail(SessionError::Local(LocalFault { kind, text })))
    })?;
    let host = HostCpu::decode(host).map_err(|error| {
        let text = error.to_string();
        Box::new(Step::blame(Misdeed::UnreadableHost { text }))
    })?;
    own.check(digest)
        .map_err(|misdeed| Box::new(Step::blame(misdeed)))?;
    own.judge(&host).map_err(|reasons| {
        let refuse = Refuse {
            reasons: reasons.clone(),
        };
        cx.outbox.send(Message::Refuse(refuse));
        Box::new(Step::Incompatible(reasons))
    })
}

const fn accepted_unoffered(what: &'static str) -> Step<State> {
    Step::blame(Misdeed::AcceptedUnoffered { what })
}
