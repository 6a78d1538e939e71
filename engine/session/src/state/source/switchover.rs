//! The source while its guest is stopped and is still its own: the last pages and the state leave,
//! until the target could run the guest.

use alloc::vec::Vec;

use limosa_wire::{
    Message, Prepared, Round, RoundKind, RoundLanded, State as StateMessage, StateSection,
};

use super::{HandedOver, State, Step, announce_round, check_landed, say_sent, start_round};
use crate::error::{FaultKind, LocalFault, SessionError};
use crate::io::SourceAction as Action;
use crate::round::{HoldBack, RoundPlan, RoundReport};
use crate::source::Context;

/// The guest is asked once more which processor it sees, as long as it runs: what both sides agreed
/// on must still be true.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Describing {
    next: Round,
}

impl Describing {
    pub(super) fn start(next: Round, cx: &mut Context) -> Step<State> {
        cx.outbox.act([Action::DescribeGuest]);
        Step::To(State::Describing(Self { next }))
    }

    pub(super) fn on_described(self, cpu: &[u8], cx: &mut Context) -> Step<State> {
        if cpu == cx.offer.cpu {
            let round = self.next;
            // Told ahead of the pause: the target looks at its host while the guest is stopped.
            announce_round(final_plan(round), cx);
            return Pausing::start(round, cx);
        }
        Step::Fail(SessionError::Local(LocalFault {
            kind: FaultKind::Guest,
            text: "the guest's processor is not the one that was offered to the target: it must \
                   not change while the guest is on"
                .into(),
        }))
    }
}

const fn final_plan(round: Round) -> RoundPlan {
    RoundPlan {
        round,
        kind: RoundKind::Final,
        hold: HoldBack::NONE,
    }
}

/// The guest is being stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pausing {
    next: Round,
}

impl Pausing {
    fn start(next: Round, cx: &mut Context) -> Step<State> {
        cx.outbox.act(cx.hold.pause());
        // A guest that is stopped though it is too busy is given the time that this takes.
        let expected = cx.convergence.expected();
        let longest = cx.config.switchover_max.saturating_add(expected);
        cx.outbox.wait_for("the end of the switchover", longest);
        Step::To(State::Pausing(Self { next }))
    }

    pub(super) fn on_paused(self, cx: &mut Context) -> Step<State> {
        let next = self.next;
        cx.paused();
        cx.outbox.act([Action::Harvest]);
        Step::To(State::LastHarvest(LastHarvest { next }))
    }
}

/// The guest stands still; what it wrote last is being counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LastHarvest {
    next: Round,
}

impl LastHarvest {
    pub(super) fn on_harvested(self, cx: &mut Context) -> Step<State> {
        let round = self.next;
        start_round(final_plan(round), cx);
        cx.outbox.act([Action::ExportState]);
        Step::To(State::LastRound(LastRound {
            pages: Pages::Sending(round),
            state: Said::NotYet,
        }))
    }
}

/// The last pages are on their way, and the state is being taken beside them. Each is told to the
/// target as soon as it can be, so that the one is put in place while the other still arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LastRound {
    pages: Pages,
    state: Said,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pages {
    Sending(Round),
    /// So many pages were sent.
    Sent(Round, u64),
    Landed,
}

/// Whether the state has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    NotYet,
    Yes,
}

impl LastRound {
    pub(super) const fn has_landed(self) -> bool {
        matches!(self.pages, Pages::Landed)
    }

    pub(super) fn on_sent(self, report: &RoundReport, cx: &mut Context) -> Step<State> {
        match self.pages {
            Pages::Sending(round) if report.round == round => {
                say_sent(report, cx);
                let pages = Pages::Sent(round, report.pages.total());
                Self { pages, ..self }.on()
            }
            _ => Step::Refused(State::LastRound(self)),
        }
    }

    pub(super) fn on_exported(self, sections: Vec<StateSection>, cx: &mut Context) -> Step<State> {
        if self.state == Said::Yes {
            return Step::Refused(State::LastRound(self));
        }
        let cpu_digest = cx.cpu_digest();
        cx.outbox.send(Message::State(StateMessage {
            cpu_digest,
            sections,
        }));
        let state = Said::Yes;
        Self { state, ..self }.on()
    }

    pub(super) fn on_landed(self, landed: RoundLanded) -> Step<State> {
        let Pages::Sent(round, sent) = self.pages else {
            return Step::Refused(State::LastRound(self));
        };
        if let Err(misdeed) = check_landed(round, sent, landed) {
            return Step::blame(misdeed);
        }
        let pages = Pages::Landed;
        Self { pages, ..self }.on()
    }

    const fn on(self) -> Step<State> {
        Step::To(match self {
            Self {
                pages: Pages::Landed,
                state: Said::Yes,
            } => State::AwaitPrepared(AwaitPrepared),
            unfinished => State::LastRound(unfinished),
        })
    }
}

/// All pages have landed, and the state has left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AwaitPrepared;

impl AwaitPrepared {
    pub(super) fn on_prepared(self, said: Prepared, cx: &mut Context) -> Step<State> {
        match cx.check_cpu(said.cpu_digest) {
            Ok(()) => HandedOver::start(cx),
            Err(misdeed) => Step::blame(misdeed),
        }
    }
}
