//! The source's states in the order of the protocol, and which input each has a use for. What they
//! make of it is in their own files.

mod copying;
mod greeting;
mod handed_over;
mod opening;
mod switchover;

use limosa_wire::{Message, Refuse, Round, RoundLanded, RoundStart, Verdict};

use self::copying::{AwaitLanded, Harvesting, Rehearsing, Sending};
use self::greeting::{AwaitHello, AwaitVerdict};
use self::handed_over::HandedOver;
use self::opening::{Binding, StartingTracking};
use self::switchover::{AwaitPrepared, Describing, LastHarvest, LastRound, Pausing};
use super::Step;
use crate::error::{Misdeed, Stage};
use crate::event::Event;
use crate::io::{SourceAction as Action, SourceInput as Input};
use crate::round::{RoundPlan, RoundReport};
use crate::source::Context;

/// Where a source is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum State {
    AwaitHello(AwaitHello),
    AwaitVerdict(AwaitVerdict),
    Binding(Binding),
    StartingTracking(StartingTracking),
    Harvesting(Harvesting),
    Sending(Sending),
    AwaitLanded(AwaitLanded),
    Rehearsing(Rehearsing),
    Describing(Describing),
    Pausing(Pausing),
    LastHarvest(LastHarvest),
    LastRound(LastRound),
    AwaitPrepared(AwaitPrepared),
    HandedOver(HandedOver),
    Finished,
}

impl State {
    pub(crate) const fn begin() -> Self {
        Self::AwaitHello(AwaitHello)
    }

    pub(crate) const fn stage(&self) -> Stage {
        match self {
            Self::AwaitHello(_) | Self::AwaitVerdict(_) => Stage::Handshake,
            Self::Binding(_) | Self::StartingTracking(_) => Stage::Prepare,
            Self::Harvesting(_)
            | Self::Sending(_)
            | Self::AwaitLanded(_)
            | Self::Rehearsing(_)
            | Self::Describing(_) => Stage::Rounds,
            Self::Pausing(_)
            | Self::LastHarvest(_)
            | Self::LastRound(_)
            | Self::AwaitPrepared(_) => Stage::Switchover,
            Self::HandedOver(_) => Stage::HandOver,
            Self::Finished => Stage::Finished,
        }
    }

    /// Would the loss of a page stream lose pages?
    pub(crate) const fn needs_streams(&self) -> bool {
        match self {
            Self::LastRound(last) => !last.has_landed(),
            Self::AwaitPrepared(_) | Self::HandedOver(_) | Self::Finished => false,
            _ => true,
        }
    }

    /// The target said something.
    pub(crate) fn on_message(self, message: Message, cx: &mut Context) -> Step<Self> {
        use Message as M;
        match (self, message) {
            (Self::AwaitHello(state), M::Hello(hello)) => state.on_hello(&hello, cx),
            // A target that speaks no common version refuses without a hello of its own.
            (
                Self::AwaitHello(_) | Self::AwaitVerdict(_),
                M::Verdict(Verdict::Refused { reasons }),
            ) => Step::Incompatible(reasons),
            (Self::AwaitVerdict(state), M::Verdict(verdict)) => state.on_verdict(verdict, cx),
            (Self::Binding(state), M::StreamsBound(bound)) => state.on_bound(bound, cx),
            (Self::AwaitLanded(state), M::RoundLanded(landed)) => state.on_landed(landed, cx),
            (Self::LastRound(state), M::RoundLanded(landed)) => state.on_landed(landed),
            (Self::AwaitPrepared(state), M::Prepared(said)) => state.on_prepared(said, cx),
            // The target's host has changed since it accepted.
            (
                Self::Pausing(_)
                | Self::LastHarvest(_)
                | Self::LastRound(_)
                | Self::AwaitPrepared(_),
                M::Refuse(Refuse { reasons }),
            ) => Step::Incompatible(reasons),
            (Self::HandedOver(state), M::Running(_)) => state.on_running(cx),
            (state, _) => Step::Refused(state),
        }
    }

    /// A piece of work is done.
    pub(crate) fn on_done(self, done: Input, cx: &mut Context) -> Step<Self> {
        match (self, done) {
            (Self::Binding(state), Input::StreamsOpened) => state.on_opened(cx),
            (Self::StartingTracking(state), Input::TrackingStarted) => state.on_started(cx),
            (Self::Harvesting(state), Input::Harvested(found)) => state.on_harvested(&found, cx),
            (Self::Sending(state), Input::RoundDone(report)) => state.on_sent(report, cx),
            (Self::Rehearsing(state), Input::Rehearsed(took)) => state.on_rehearsed(took, cx),
            (Self::Describing(state), Input::GuestDescribed(cpu)) => state.on_described(&cpu, cx),
            (Self::Pausing(state), Input::GuestPaused) => state.on_paused(cx),
            (Self::LastHarvest(state), Input::Harvested(_)) => state.on_harvested(cx),
            (Self::LastRound(state), Input::RoundDone(report)) => state.on_sent(&report, cx),
            (Self::LastRound(state), Input::StateExported(sections)) => {
                state.on_exported(sections, cx)
            }
            (state, _) => Step::Refused(state),
        }
    }
}

/// Tells the target of a round that will follow.
fn announce_round(plan: RoundPlan, cx: &mut Context) {
    let RoundPlan { round, kind, .. } = plan;
    cx.outbox
        .send(Message::RoundStart(RoundStart { round, kind }));
}

/// Orders a round that was announced.
fn start_round(plan: RoundPlan, cx: &mut Context) {
    let now = cx.outbox.now();
    cx.convergence.round_began(now);
    cx.outbox.observe(Event::RoundStarted(plan));
    cx.outbox.act([Action::StartRound(plan)]);
}

/// Tells the target what was sent.
fn say_sent(report: &RoundReport, cx: &mut Context) {
    cx.outbox.observe(Event::RoundSent(report.clone()));
    cx.outbox.send(Message::RoundEnd(report.end()));
}

/// Is the target's word that a round landed true?
fn check_landed(round: Round, pages: u64, landed: RoundLanded) -> Result<(), Misdeed> {
    if landed.round != round {
        let (expected, found) = (round, landed.round);
        return Err(Misdeed::WrongRound { expected, found });
    }
    if landed.pages != pages {
        let what = "pages";
        return Err(Misdeed::TotalsDiffer { round, what });
    }
    Ok(())
}
