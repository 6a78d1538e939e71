//! What each finished piece of the source's own work makes of its state. What the target says is
//! not told here.

use limosa_pages::PageCount;
use limosa_wire::{
    Message, Round, RoundEnd, RoundKind, RoundStart, State as StateMessage, StateSection,
};

use super::state::{Binding, LastRound, State};
use super::{Action, Input, Source};
use crate::convergence::Decision;
use crate::error::{ApiMisuse, SessionError};
use crate::event::Event;
use crate::round::{RoundPlan, RoundReport};
use crate::timers::Timestamp;

impl Source {
    pub(super) fn on_done(&mut self, done: Input, now: Timestamp) -> Result<(), ApiMisuse> {
        match (self.state.clone(), done) {
            (State::Binding(binding), Input::StreamsOpened) if !binding.opened => {
                self.bind_on(Binding {
                    opened: true,
                    ..binding
                });
            }
            (State::StartingTracking, Input::TrackingStarted) => self.on_tracking_started(now),
            (State::Harvesting { next }, Input::Harvested(left)) => {
                self.on_harvested(next, left, now);
            }
            (State::Sending { plan }, Input::RoundDone(report)) if report.round == plan.round => {
                self.on_round_sent(report, now);
            }
            (State::Pausing { next }, Input::GuestPaused) => {
                self.act(Action::Harvest);
                self.enter(State::LastHarvest { next });
            }
            (State::LastHarvest { next }, Input::Harvested(_)) => self.start_last_round(next, now),
            (State::LastRound(last), Input::RoundDone(report))
                if last.sent.is_none() && report.round == last.plan.round =>
            {
                self.on_last_round_sent(last, report, now);
            }
            (State::LastRound(last), Input::StateExported(sections)) if last.state.is_none() => {
                self.on_state_exported(last, sections, now);
            }
            (_, done) => {
                let (input, stage) = (name_of(&done), self.stage());
                return Err(ApiMisuse { input, stage });
            }
        }
        Ok(())
    }

    pub(super) fn bind_on(&mut self, binding: Binding) {
        if binding.opened && binding.bound {
            self.timers.wait_no_more();
            self.act(Action::StartTracking);
            self.enter(State::StartingTracking);
        } else {
            self.enter(State::Binding(binding));
        }
    }

    fn on_tracking_started(&mut self, now: Timestamp) {
        self.convergence.harvest_began(now);
        self.act(Action::Harvest);
        self.enter(State::Harvesting { next: Round::FIRST });
    }

    fn on_harvested(&mut self, next: Round, left: PageCount, now: Timestamp) {
        if next == Round::FIRST {
            // The first round sends everything, whatever was written meanwhile.
            return self.start_round(next, RoundKind::Full, now);
        }
        let decision = self.convergence.decide(left, now);
        self.act(Action::Observe(Event::Estimate {
            expected: self.convergence.expected(),
            dirty_bytes: left.bytes(),
        }));
        match decision {
            Decision::AnotherRound => self.start_round(next, RoundKind::Live, now),
            Decision::SwitchOver => {
                self.paused = true;
                self.act(Action::PauseGuest);
                self.enter(State::Pausing { next });
            }
            Decision::GiveUp(why) => self.fail(SessionError::NotConverging(why), now),
        }
    }

    fn start_round(&mut self, round: Round, kind: RoundKind, now: Timestamp) {
        let plan = RoundPlan { round, kind };
        self.say_round(plan, now);
        self.act(Action::StartRound(plan));
        self.enter(State::Sending { plan });
    }

    fn say_round(&mut self, plan: RoundPlan, now: Timestamp) {
        let RoundPlan { round, kind } = plan;
        self.send(Message::RoundStart(RoundStart { round, kind }), now);
        self.act(Action::Observe(Event::RoundStarted(plan)));
    }

    fn on_round_sent(&mut self, report: RoundReport, now: Timestamp) {
        self.say_round_sent(&report, now);
        self.convergence.learn(&report);
        self.enter(State::AwaitLanded { report });
    }

    fn say_round_sent(&mut self, report: &RoundReport, now: Timestamp) {
        self.act(Action::Observe(Event::RoundSent(report.clone())));
        let end = RoundEnd {
            round: report.round,
            frames: report.frames.clone(),
            pages: report.pages.total(),
        };
        self.send(Message::RoundEnd(end), now);
    }

    fn start_last_round(&mut self, round: Round, now: Timestamp) {
        let what = "the end of the switchover";
        self.timers.wait_for(what, self.config.switchover_max, now);
        let plan = RoundPlan {
            round,
            kind: RoundKind::Final,
        };
        self.say_round(plan, now);
        self.act(Action::StartRound(plan));
        self.act(Action::ExportState);
        self.enter(State::LastRound(LastRound {
            plan,
            sent: None,
            landed: false,
            state: None,
        }));
    }

    fn on_last_round_sent(&mut self, last: LastRound, report: RoundReport, now: Timestamp) {
        self.say_round_sent(&report, now);
        let sent = Some(report);
        self.last_round_on(LastRound { sent, ..last }, now);
    }

    fn on_state_exported(
        &mut self,
        last: LastRound,
        sections: alloc::vec::Vec<StateSection>,
        now: Timestamp,
    ) {
        let state = Some(sections);
        self.last_round_on(LastRound { state, ..last }, now);
    }

    fn last_round_on(&mut self, last: LastRound, now: Timestamp) {
        match last {
            LastRound {
                sent: Some(report),
                state: Some(sections),
                landed,
                ..
            } => {
                self.send(Message::State(StateMessage { sections }), now);
                self.enter(State::AwaitPrepared { report, landed });
            }
            last => self.enter(State::LastRound(last)),
        }
    }
}

const fn name_of(done: &Input) -> &'static str {
    match done {
        Input::StreamsOpened => "opened streams",
        Input::TrackingStarted => "started tracking",
        Input::Harvested(_) => "a harvest",
        Input::RoundDone(_) => "a sent round",
        Input::GuestPaused => "a paused guest",
        Input::StateExported(_) => "exported state",
        _ => "an event",
    }
}
