//! The source's states, and what each message and each finished piece of work makes of them.

use alloc::vec::Vec;

use limosa_wire::{
    EncodingSet, HandOver, Message, PageEncoding, Round, RoundEnd, RoundKind, RoundLanded,
    RoundStart, State as StateMessage, StateSection, Verdict,
};

use crate::convergence::Decision;
use crate::error::{ApiMisuse, Misdeed, Outcome, SessionError, Stage};
use crate::event::Event;
use crate::round::{RoundPlan, RoundReport};
use crate::source::{Action, Input, Source};
use crate::timers::Timestamp;

/// Where a source is: each state has only what is true in it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum State {
    AwaitHello,
    AwaitVerdict,
    /// The streams are being opened here, and bound there.
    Binding {
        opened: bool,
        bound: Option<u16>,
        stream_count: u16,
    },
    StartingTracking,
    /// Counting what the next round is to send; the first round sends everything.
    Harvesting {
        next: Round,
    },
    Sending {
        plan: RoundPlan,
    },
    /// The round was sent; the target has not said yet that it landed.
    AwaitLanded {
        report: RoundReport,
    },
    Pausing {
        next: Round,
    },
    LastHarvest {
        next: Round,
    },
    /// The last round is being sent, and the state taken beside it.
    LastRound(LastRound),
    AwaitPrepared {
        report: RoundReport,
        landed: bool,
    },
    /// The guest was handed over.
    HandedOver,
    Finished,
}

/// What is still missing of the last round.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct LastRound {
    plan: RoundPlan,
    sent: Option<RoundReport>,
    landed: bool,
    state: Option<Vec<StateSection>>,
}

impl State {
    pub(crate) const fn stage(&self) -> Stage {
        match self {
            Self::AwaitHello | Self::AwaitVerdict => Stage::Handshake,
            Self::Binding { .. } | Self::StartingTracking => Stage::Prepare,
            Self::Harvesting { .. } | Self::Sending { .. } | Self::AwaitLanded { .. } => {
                Stage::Rounds
            }
            Self::Pausing { .. }
            | Self::LastHarvest { .. }
            | Self::LastRound(_)
            | Self::AwaitPrepared { .. } => Stage::Switchover,
            Self::HandedOver => Stage::HandOver,
            Self::Finished => Stage::Finished,
        }
    }

    /// Would the loss of a page stream lose pages?
    pub(crate) const fn needs_streams(&self) -> bool {
        !matches!(
            self,
            Self::AwaitPrepared { landed: true, .. } | Self::HandedOver | Self::Finished
        )
    }
}

impl Source {
    pub(crate) fn on_message(&mut self, message: Message, now: Timestamp) {
        match (self.state.clone(), message) {
            (State::AwaitHello, Message::Hello(hello)) => {
                if hello.migration_id != self.migration_id {
                    return self.blame(Misdeed::OtherMigration, now);
                }
                self.send(Message::Offer(self.offer.clone()), now);
                // The target makes machine and memory before it answers.
                self.timers
                    .wait_for("the target's verdict", self.config.prepare_max, now);
                self.enter(State::AwaitVerdict);
            }
            // A target that speaks no common version refuses without a hello of its own.
            (
                State::AwaitHello | State::AwaitVerdict,
                Message::Verdict(Verdict::Refused { reasons }),
            ) => {
                self.finish(Outcome::Refused(reasons));
            }
            (
                State::AwaitVerdict,
                Message::Verdict(Verdict::Accepted {
                    stream_count,
                    encodings,
                    secret,
                }),
            ) => {
                if let Err(misdeed) = self.check_accepted(stream_count, encodings) {
                    return self.blame(misdeed, now);
                }
                self.act(Action::Observe(Event::Accepted { stream_count }));
                self.act(Action::OpenStreams {
                    stream_count,
                    encodings,
                    secret,
                });
                self.timers.wait_for(
                    "the binding of the page streams",
                    self.config.handshake_max,
                    now,
                );
                self.enter(State::Binding {
                    opened: false,
                    bound: None,
                    stream_count,
                });
            }
            (
                State::Binding {
                    opened,
                    stream_count,
                    bound: None,
                },
                Message::StreamsBound(bound),
            ) => {
                if bound.stream_count != stream_count {
                    let what = "page streams";
                    return self.blame(Misdeed::AcceptedUnoffered { what }, now);
                }
                self.bind_on(opened, Some(bound.stream_count), stream_count);
            }
            (State::AwaitLanded { report }, Message::RoundLanded(landed)) => {
                if let Err(misdeed) = check_landed(&report, landed) {
                    return self.blame(misdeed, now);
                }
                self.act(Action::Harvest);
                self.enter(State::Harvesting {
                    next: report.round.next(),
                });
            }
            // The target may have the pages before the state has been taken.
            (
                State::LastRound(LastRound {
                    plan,
                    sent: Some(report),
                    landed: false,
                    state,
                }),
                Message::RoundLanded(landed),
            ) => {
                if let Err(misdeed) = check_landed(&report, landed) {
                    return self.blame(misdeed, now);
                }
                let sent = Some(report);
                self.enter(State::LastRound(LastRound {
                    plan,
                    sent,
                    landed: true,
                    state,
                }));
            }
            (
                State::AwaitPrepared {
                    report,
                    landed: false,
                },
                Message::RoundLanded(landed),
            ) => {
                if let Err(misdeed) = check_landed(&report, landed) {
                    return self.blame(misdeed, now);
                }
                self.enter(State::AwaitPrepared {
                    report,
                    landed: true,
                });
            }
            (State::AwaitPrepared { landed: true, .. }, Message::Prepared(_)) => {
                self.hold.give_away();
                self.act(Action::Observe(Event::Custody(self.custody())));
                self.timers.wait_for(
                    "the word that the guest runs at the target",
                    self.config.hand_over_max,
                    now,
                );
                self.enter(State::HandedOver);
                self.send(Message::HandOver(HandOver {}), now);
            }
            (State::HandedOver, Message::Running(_)) => {
                self.hold.know_arrived();
                self.act(Action::Observe(Event::Custody(self.custody())));
                self.act(Action::ReleaseGuest);
                self.finish(Outcome::Completed);
            }
            (_, message) => {
                let (message, stage) = (message.kind(), self.stage());
                self.blame(Misdeed::OutOfPlace { message, stage }, now);
            }
        }
    }

    fn check_accepted(&self, stream_count: u16, encodings: EncodingSet) -> Result<(), Misdeed> {
        if stream_count == 0 || stream_count > self.offer.stream_count {
            return Err(Misdeed::AcceptedUnoffered {
                what: "page streams",
            });
        }
        let needed = EncodingSet::of(&[PageEncoding::Raw, PageEncoding::Zero]);
        if !self.offer.encodings.is_superset(encodings) || !encodings.is_superset(needed) {
            return Err(Misdeed::AcceptedUnoffered {
                what: "page encodings",
            });
        }
        Ok(())
    }

    fn bind_on(&mut self, opened: bool, bound: Option<u16>, stream_count: u16) {
        if opened && bound.is_some() {
            self.timers.wait_no_more();
            self.act(Action::StartTracking);
            self.enter(State::StartingTracking);
        } else {
            self.enter(State::Binding {
                opened,
                bound,
                stream_count,
            });
        }
    }

    /// A piece of work is done.
    pub(crate) fn on_done(&mut self, done: Input, now: Timestamp) -> Result<(), ApiMisuse> {
        match (self.state.clone(), done) {
            (
                State::Binding {
                    opened: false,
                    bound,
                    stream_count,
                },
                Input::StreamsOpened,
            ) => {
                self.bind_on(true, bound, stream_count);
            }
            (State::StartingTracking, Input::TrackingStarted) => {
                self.convergence.harvest_began(now);
                self.act(Action::Harvest);
                self.enter(State::Harvesting { next: Round::FIRST });
            }
            (State::Harvesting { next }, Input::Harvested(left)) if next == Round::FIRST => {
                let _ = left;
                self.start_round(
                    RoundPlan {
                        round: next,
                        kind: RoundKind::Full,
                    },
                    now,
                );
            }
            (State::Harvesting { next }, Input::Harvested(left)) => {
                let decision = self.convergence.decide(left, now);
                let (expected, dirty_bytes) = (self.convergence.expected(), left.bytes());
                self.act(Action::Observe(Event::Estimate {
                    expected,
                    dirty_bytes,
                }));
                match decision {
                    Decision::AnotherRound => {
                        self.start_round(
                            RoundPlan {
                                round: next,
                                kind: RoundKind::Live,
                            },
                            now,
                        );
                    }
                    Decision::SwitchOver => {
                        self.paused = true;
                        self.act(Action::PauseGuest);
                        self.enter(State::Pausing { next });
                    }
                    Decision::GiveUp(why) => self.fail(SessionError::NotConverging(why), now),
                }
            }
            (State::Sending { plan }, Input::RoundDone(report)) if report.round == plan.round => {
                self.round_sent(&report, now);
                self.convergence.learn(&report);
                self.enter(State::AwaitLanded { report });
            }
            (State::Pausing { next }, Input::GuestPaused) => {
                self.act(Action::Harvest);
                self.enter(State::LastHarvest { next });
            }
            (State::LastHarvest { next }, Input::Harvested(_)) => {
                self.timers
                    .wait_for("the end of the switchover", self.config.switchover_max, now);
                let plan = RoundPlan {
                    round: next,
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
            (State::LastRound(last), Input::RoundDone(report))
                if last.sent.is_none() && report.round == last.plan.round =>
            {
                self.round_sent(&report, now);
                self.last_round_on(
                    LastRound {
                        sent: Some(report),
                        ..last
                    },
                    now,
                );
            }
            (State::LastRound(last), Input::StateExported(sections)) if last.state.is_none() => {
                self.last_round_on(
                    LastRound {
                        state: Some(sections),
                        ..last
                    },
                    now,
                );
            }
            (_, done) => {
                let (input, stage) = (name_of(&done), self.stage());
                return Err(ApiMisuse { input, stage });
            }
        }
        Ok(())
    }

    fn start_round(&mut self, plan: RoundPlan, now: Timestamp) {
        self.say_round(plan, now);
        self.act(Action::StartRound(plan));
        self.enter(State::Sending { plan });
    }

    fn say_round(&mut self, plan: RoundPlan, now: Timestamp) {
        let RoundPlan { round, kind } = plan;
        self.send(Message::RoundStart(RoundStart { round, kind }), now);
        self.act(Action::Observe(Event::RoundStarted(plan)));
    }

    fn round_sent(&mut self, report: &RoundReport, now: Timestamp) {
        self.act(Action::Observe(Event::RoundSent(report.clone())));
        let end = RoundEnd {
            round: report.round,
            frames: report.frames.clone(),
            pages: report.pages.total(),
        };
        self.send(Message::RoundEnd(end), now);
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

fn check_landed(report: &RoundReport, landed: RoundLanded) -> Result<(), Misdeed> {
    let round = report.round;
    if landed.round != round {
        let (expected, found) = (round, landed.round);
        return Err(Misdeed::WrongRound { expected, found });
    }
    if landed.pages != report.pages.total() {
        return Err(Misdeed::TotalsDiffer {
            round,
            what: "pages",
        });
    }
    Ok(())
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
