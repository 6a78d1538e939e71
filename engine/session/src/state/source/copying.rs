//! The source while the guest runs and its memory is copied, round after round: it counts what is
//! left, sends it, and hears that it landed.

use limosa_pages::PageCount;
use limosa_wire::{Round, RoundKind, RoundLanded};

use super::{Describing, State, Step, announce_round, check_landed, say_sent, start_round};
use crate::convergence::Decision;
use crate::error::SessionError;
use crate::event::Event;
use crate::io::SourceAction as Action;
use crate::round::{RoundPlan, RoundReport};
use crate::source::Context;

/// What the next round is to send is being counted; the first one sends everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Harvesting {
    pub(super) next: Round,
}

impl Harvesting {
    pub(super) fn on_harvested(self, left: PageCount, cx: &mut Context) -> Step<State> {
        let round = self.next;
        if round == Round::FIRST {
            let now = cx.outbox.now();
            cx.convergence.tracking_began(now);
            return Sending::start(round, RoundKind::Full, cx);
        }
        let now = cx.outbox.now();
        let decision = cx.convergence.decide(left, now);
        let estimate = cx.convergence.estimate();
        cx.outbox.observe(Event::Estimate {
            expected: estimate.expected,
            dirty_bytes: left.bytes(),
            dirty_bytes_per_second: estimate.dirty_bytes_per_second,
            send_bytes_per_second: estimate.send_bytes_per_second,
        });
        match decision {
            Decision::AnotherRound => Sending::start(round, RoundKind::Live, cx),
            Decision::SwitchOver => Describing::start(round, cx),
            Decision::GiveUp(why) => Step::Fail(SessionError::NotConverging(why)),
        }
    }
}

/// A round is on its way to the streams.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sending {
    plan: RoundPlan,
}

impl Sending {
    fn start(round: Round, kind: RoundKind, cx: &mut Context) -> Step<State> {
        let plan = RoundPlan { round, kind };
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
        cx.outbox.act([Action::Harvest]);
        let next = report.round.next();
        Step::To(State::Harvesting(Harvesting { next }))
    }
}
