//! The target once it is willing: it makes the guest, accepts, hears that the source agrees, and
//! lets the page streams in.

use alloc::vec;

use limosa_wire::{Agreed, Message, Reason, ReasonKind, Round, StreamsBound, Verdict};

use super::{AwaitRound, State, Step, Terms};
use crate::error::{LocalFault, SessionError};
use crate::event::Event;
use crate::io::TargetAction as Action;
use crate::outcome::Outcome;
use crate::target::Context;

/// Machine and memory are being made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Preparing {
    pub(super) terms: Terms,
}

impl Preparing {
    pub(super) fn on_prepared(self, cx: &mut Context) -> Step<State> {
        let Self { terms } = self;
        let (stream_count, encodings, secret) = (terms.stream_count, terms.encodings, cx.secret);
        cx.outbox.send(Message::Verdict(Verdict::Accepted {
            stream_count,
            encodings,
            secret,
            host: cx.policy.host.encode(),
            cpu_digest: terms.cpu.digest(),
        }));
        cx.outbox
            .wait_for("the source's judgement", cx.config.handshake_max);
        Step::To(State::AwaitAgreed(AwaitAgreed { terms }))
    }

    /// Refuses for want of something that only the attempt to make the guest has shown.
    pub(crate) fn on_failure(self, fault: LocalFault, cx: &mut Context) -> Outcome {
        let reason = Reason {
            kind: ReasonKind::Capacity,
            what: fault.text.clone(),
            remedy: "choose another target".into(),
        };
        cx.outbox.act(cx.hold.let_go());
        cx.outbox.send(Message::Verdict(Verdict::Refused {
            reasons: vec![reason],
        }));
        Outcome::Failed(SessionError::Local(fault))
    }
}

/// The guest was accepted, and the source has not said yet what it makes of this host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AwaitAgreed {
    terms: Terms,
}

impl AwaitAgreed {
    pub(super) fn on_agreed(self, agreed: Agreed, cx: &mut Context) -> Step<State> {
        let Self { terms } = self;
        if let Err(misdeed) = terms.cpu.check(agreed.cpu_digest) {
            return Step::blame(misdeed);
        }
        let (stream_count, secret) = (terms.stream_count, cx.secret);
        cx.outbox.observe(Event::Accepted { stream_count });
        cx.outbox.act([Action::AcceptStreams {
            migration_id: terms.migration_id,
            secret,
            stream_count,
            encodings: terms.encodings,
        }]);
        cx.outbox
            .wait_for("the page streams", cx.config.handshake_max);
        Step::To(State::Accepting(Accepting { terms }))
    }
}

/// Both agree, and the page streams are awaited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Accepting {
    terms: Terms,
}

impl Accepting {
    pub(super) fn on_accepted(self, cx: &mut Context) -> Step<State> {
        let Self { terms } = self;
        let stream_count = terms.stream_count;
        cx.outbox
            .send(Message::StreamsBound(StreamsBound { stream_count }));
        cx.outbox.timers.wait_no_more();
        Step::To(State::AwaitRound(AwaitRound::new(Round::FIRST, terms)))
    }
}
