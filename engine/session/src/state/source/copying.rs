//! The source while the guest runs and its memory is copied, round after round: it counts what is
//! left, sends it, and hears that it landed.

use limosa_wire::{Round, RoundKind, RoundLanded};

use super::{Describing, State, Step, announce_round, check_landed, say_sent, start_round};
use crate::convergence::Decision;
use crate::error::SessionError;
use crate::event::Event;
use crate::io::SourceAction as Action;
use crate::round::{Harvest, HoldBack, Rehearsal, RoundPlan, RoundReport};
use crate::source::Context;

/// What the next round is to send is being counted; the first one sends everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Harvesting {
    pub(super) next: Round,
}

impl Harvesting {
    pub(super) fn on_harvested(self, harvest: &Harvest, cx: &mut Context) -> Step<State> {
        let round = self.next;
        let now = cx.outbox.now();
        if round == Round::FIRST {
            cx.convergence.tracking_began(now);
            return Sending::start(round, RoundKind::Full, HoldBack::NONE, cx);
        }
        let decision = cx.convergence.decide(harvest, now);
        tell_estimate(harvest, cx);
        match decision {
            Decision::AnotherRound(hold) => Sending::start(round, RoundKind::Live, hold, cx),
            Decision::SlowDown(slowdown) => {
                tell_stall(cx);
                cx.slow(slowdown);
                Sending::start(round, RoundKind::Live, HoldBack::NONE, cx)
            }
            Decision::SwitchOver => {
                if cx.convergence.expected() > cx.config.downtime_max {
                    tell_stall(cx);
                }
                Describing::start(round, cx)
            }
            Decision::GiveUp(why) => {
                tell_stall(cx);
                Step::Fail(SessionError::NotConverging(why))
            }
        }
    }
}

fn tell_estimate(harvest: &Harvest, cx: &mut Context) {
    let rates = cx.convergence.rates();
    let estimate = Event::Estimate {
        expected: cx.convergence.expected(),
        dirty_bytes: harvest.left.bytes(),
        dirty_bytes_per_second: rates.dirty_bytes_per_second(),
        send_bytes_per_second: rates.send_bytes_per_second(),
        forecast: cx.convergence.forecast(),
    };
    cx.outbox.observe(estimate);
}

fn tell_stall(cx: &mut Context) {
    let why = cx.convergence.verdict();
    let policy = cx.config.on_stall;
    cx.outbox.observe(Event::Stalled { why, policy });
}

/// A round is on its way to the streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sending {
    plan: RoundPlan,
}

impl Sending {
    fn start(round: Round, kind: RoundKind, hold: HoldBack, cx: &mut Context) -> Step<State> {
        let plan = RoundPlan { round, kind, hold };
        announce_round(plan, cx);
        start_round(plan, cx);
        Step::To(State::Sending(Self { plan }))
    }

    pub(super) fn on_sent(self, report: RoundReport, cx: &mut Context) -> Step<State> {
        if report.round != self.plan.round {
            return Step::Refused(State::Sending(self));
        }
        say_sent(&report, cx);
        cx.outbox
            .wait_for("the word that a round landed", cx.config.landing_max);
        Step::To(State::AwaitLanded(AwaitLanded { report }))
    }
}

/// The round was sent; the target has not said yet that it landed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AwaitLanded {
    report: RoundReport,
}

impl AwaitLanded {
    pub(super) fn on_landed(self, landed: RoundLanded, cx: &mut Context) -> Step<State> {
        let Self { report } = self;
        if let Err(misdeed) = check_landed(report.round, report.pages.total(), landed) {
            return Step::blame(misdeed);
        }
        let now = cx.outbox.now();
        cx.convergence.learn(&report, now);
        cx.outbox.timers.wait_no_more();
        let next = report.round.next();
        if report.round == Round::FIRST {
            cx.outbox.act([Action::Rehearse]);
            return Step::To(State::Rehearsing(Rehearsing { next }));
        }
        cx.outbox.act([Action::Harvest]);
        Step::To(State::Harvesting(Harvesting { next }))
    }
}

/// A pause is being tried out, once: what it takes decides when the guest can be stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rehearsing {
    next: Round,
}

impl Rehearsing {
    pub(super) fn on_rehearsed(self, took: Option<Rehearsal>, cx: &mut Context) -> Step<State> {
        let next = self.next;
        cx.convergence.rehearsed(took);
        cx.outbox.act([Action::Harvest]);
        Step::To(State::Harvesting(Harvesting { next }))
    }
}
