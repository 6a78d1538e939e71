//! The source before anything moves: it awaits the target's hello, and then its verdict.

use alloc::vec;
use alloc::vec::Vec;

use limosa_wire::{EncodingSet, Hello, Message, PageEncoding, Reason, Verdict, VersionRange};

use super::{Binding, State, Step};
use crate::error::{Misdeed, SessionError};
use crate::event::Event;
use crate::io::SourceAction as Action;
use crate::judge::no_common_version;
use crate::outcome::Outcome;
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
        let (stream_count, encodings, secret) = match verdict {
            Verdict::Refused { reasons } => return on_refused(reasons),
            Verdict::Accepted {
                stream_count,
                encodings,
                secret,
            } => (stream_count, encodings, secret),
        };
        if stream_count == 0 || stream_count > cx.offer.stream_count {
            return accepted_unoffered("page streams");
        }
        let needed = EncodingSet::of(&[PageEncoding::Raw, PageEncoding::Zero]);
        if !cx.offer.encodings.is_superset(encodings) || !encodings.is_superset(needed) {
            return accepted_unoffered("page encodings");
        }
        cx.outbox.observe(Event::Accepted { stream_count });
        cx.outbox.act([Action::OpenStreams {
            stream_count,
            encodings,
            secret,
        }]);
        cx.outbox
            .wait_for("the binding of the page streams", cx.config.handshake_max);
        Step::To(State::Binding(Binding::new(stream_count)))
    }
}

pub(super) fn on_refused(reasons: Vec<Reason>) -> Step<State> {
    Step::End(Outcome::Refused(reasons))
}

const fn accepted_unoffered(what: &'static str) -> Step<State> {
    Step::blame(Misdeed::AcceptedUnoffered { what })
}
