//! The target's states, and what each message and each finished piece of work makes of them.

use alloc::vec;
use alloc::vec::Vec;

use limosa_wire::{
    EncodingSet, Hello, Message, Offer, Prepared, Reason, ReasonKind, Round, RoundEnd, RoundKind,
    RoundLanded, RoundStart, Running, State as StateMessage, StreamsBound, Verdict, VersionRange,
};

use crate::error::{ApiMisuse, LocalFault, Misdeed, Outcome, SessionError, Stage};
use crate::event::Event;
use crate::judge::judge_offer;
use crate::round::RoundPlan;
use crate::target::{Action, Input, Target};
use crate::timers::Timestamp;

/// Where a target is: each state has only what is true in it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum State {
    AwaitHello,
    AwaitOffer,
    Preparing {
        stream_count: u16,
        encodings: EncodingSet,
    },
    Accepting {
        stream_count: u16,
    },
    /// Between two rounds. The streams run beside the control link, so that the next one may have
    /// landed before its start is heard.
    AwaitRound {
        next: Round,
        landed: Option<Totals>,
    },
    /// A round is under way: what landed here, and what the source says of it.
    Landing {
        plan: RoundPlan,
        landed: Option<Totals>,
        said: Option<Totals>,
        last: Last,
    },
    /// The last round has landed.
    Completing {
        ledger: bool,
        last: Last,
    },
    AwaitHandOver,
    Resuming,
    Finished,
}

/// Frames of each stream and pages of all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Totals {
    frames: Vec<u64>,
    pages: u64,
}

/// How far the guest's state is, which comes with the last round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Last {
    Awaited,
    Restoring,
    Restored,
}

impl State {
    pub(crate) const fn stage(&self) -> Stage {
        match self {
            Self::AwaitHello | Self::AwaitOffer => Stage::Handshake,
            Self::Preparing { .. } | Self::Accepting { .. } => Stage::Prepare,
            Self::AwaitRound { .. } => Stage::Rounds,
            Self::Landing { plan, .. } => match plan.kind {
                RoundKind::Final => Stage::Switchover,
                RoundKind::Full | RoundKind::Live => Stage::Rounds,
            },
            Self::Completing { .. } | Self::AwaitHandOver => Stage::Switchover,
            Self::Resuming => Stage::HandOver,
            Self::Finished => Stage::Finished,
        }
    }

    /// Would the loss of a page stream lose pages?
    pub(crate) const fn needs_streams(&self) -> bool {
        matches!(
            self,
            Self::Accepting { .. } | Self::AwaitRound { .. } | Self::Landing { .. }
        )
    }
}

impl Target {
    pub(crate) fn on_message(&mut self, message: Message, now: Timestamp) {
        match (self.state.clone(), message) {
            (State::AwaitHello, Message::Hello(hello)) => self.on_hello(&hello, now),
            (State::AwaitOffer, Message::Offer(offer)) => self.on_offer(offer, now),
            (State::AwaitRound { next, landed }, Message::RoundStart(start)) => {
                self.on_round_start(next, landed, start, now);
            }
            (
                State::Landing {
                    plan,
                    landed,
                    said: None,
                    last,
                },
                Message::RoundEnd(end),
            ) => {
                let RoundEnd {
                    round,
                    frames,
                    pages,
                } = end;
                if round != plan.round {
                    let (expected, found) = (plan.round, round);
                    return self.blame(Misdeed::WrongRound { expected, found }, now);
                }
                self.land_on(plan, landed, Some(Totals { frames, pages }), last, now);
            }
            (
                State::Landing {
                    plan,
                    landed,
                    said,
                    last: Last::Awaited,
                },
                Message::State(state),
            ) if plan.kind == RoundKind::Final => {
                self.restore(state);
                let last = Last::Restoring;
                self.enter(State::Landing {
                    plan,
                    landed,
                    said,
                    last,
                });
            }
            (
                State::Completing {
                    ledger,
                    last: Last::Awaited,
                },
                Message::State(state),
            ) => {
                self.restore(state);
                self.enter(State::Completing {
                    ledger,
                    last: Last::Restoring,
                });
            }
            (State::AwaitHandOver, Message::HandOver(_)) => {
                self.hold.take();
                self.timers.wait_no_more();
                self.act(Action::Observe(Event::Custody(self.custody())));
                self.act(Action::ResumeGuest);
                self.enter(State::Resuming);
            }
            // The guest is this side's now, whatever the source still says.
            (State::Resuming, _) => {}
            (State::Landing { .. } | State::AwaitRound { .. }, Message::State(_)) => {
                self.blame(Misdeed::StateOutOfTurn, now);
            }
            (State::Completing { .. } | State::AwaitHandOver, Message::RoundStart(_)) => {
                self.blame(Misdeed::AfterLastRound, now);
            }
            (_, message) => {
                let (message, stage) = (message.kind(), self.stage());
                self.blame(Misdeed::OutOfPlace { message, stage }, now);
            }
        }
    }

    fn on_hello(&mut self, hello: &Hello, now: Timestamp) {
        let versions = VersionRange::SUPPORTED;
        self.migration_id = Some(hello.migration_id);
        if versions.newest_common(hello.versions).is_none() {
            let reason = Reason {
                kind: ReasonKind::Protocol,
                what: alloc::format!(
                    "the source speaks protocol versions {} to {}, this target {} to {}",
                    hello.versions.oldest.get(),
                    hello.versions.newest.get(),
                    versions.oldest.get(),
                    versions.newest.get()
                ),
                remedy: "bring both hosts to the same version".into(),
            };
            return self.refuse(vec![reason], now);
        }
        let agent = self.agent.clone();
        let migration_id = hello.migration_id;
        self.send(
            Message::Hello(Hello {
                versions,
                migration_id,
                agent,
            }),
            now,
        );
        self.timers
            .wait_for("the source's offer", self.config.handshake_max, now);
        self.enter(State::AwaitOffer);
    }

    fn on_offer(&mut self, offer: Offer, now: Timestamp) {
        let reasons = match judge_offer(&offer, &self.policy) {
            Ok(reasons) => reasons,
            Err(misdeed) => return self.blame(misdeed, now),
        };
        if !reasons.is_empty() {
            return self.refuse(reasons, now);
        }
        let stream_count = offer.stream_count.min(self.policy.stream_count_max.max(1));
        let encodings = offer.encodings.intersect(self.config.encodings);
        self.timers.wait_no_more();
        self.prepared = true;
        self.act(Action::PrepareGuest(offer));
        self.enter(State::Preparing {
            stream_count,
            encodings,
        });
    }

    fn refuse(&mut self, reasons: Vec<Reason>, now: Timestamp) {
        self.send(
            Message::Verdict(Verdict::Refused {
                reasons: reasons.clone(),
            }),
            now,
        );
        self.finish(Outcome::Refused(reasons));
    }

    fn on_round_start(
        &mut self,
        next: Round,
        landed: Option<Totals>,
        start: RoundStart,
        now: Timestamp,
    ) {
        let RoundStart { round, kind } = start;
        let first = round == Round::FIRST;
        if round != next || first != (kind == RoundKind::Full) {
            let (expected, found) = (next, round);
            return self.blame(Misdeed::WrongRound { expected, found }, now);
        }
        self.saw_round(kind);
        self.timers.wait_no_more();
        let plan = RoundPlan { round, kind };
        self.enter(State::Landing {
            plan,
            landed,
            said: None,
            last: Last::Awaited,
        });
    }

    fn restore(&mut self, state: StateMessage) {
        self.act(Action::RestoreState(state.sections));
    }

    /// A round is over once its barriers have passed here and the source's totals agree.
    fn land_on(
        &mut self,
        plan: RoundPlan,
        landed: Option<Totals>,
        said: Option<Totals>,
        last: Last,
        now: Timestamp,
    ) {
        let round = plan.round;
        let (Some(counted), Some(claimed)) = (&landed, &said) else {
            return self.enter(State::Landing {
                plan,
                landed,
                said,
                last,
            });
        };
        if counted != claimed {
            let what = if counted.pages == claimed.pages {
                "frames"
            } else {
                "pages"
            };
            return self.blame(Misdeed::TotalsDiffer { round, what }, now);
        }
        let (frames, pages) = (claimed.frames.clone(), claimed.pages);
        self.act(Action::ConfirmRound {
            round,
            frames,
            pages,
        });
        self.send(Message::RoundLanded(RoundLanded { round, pages }), now);
        if plan.kind == RoundKind::Final {
            self.act(Action::CheckLedger);
            self.enter(State::Completing {
                ledger: false,
                last,
            });
        } else {
            self.enter(State::AwaitRound {
                next: round.next(),
                landed: None,
            });
        }
    }

    fn complete_on(&mut self, ledger: bool, last: Last, now: Timestamp) {
        if ledger && last == Last::Restored {
            self.send(Message::Prepared(Prepared {}), now);
            self.timers
                .wait_for("the hand-over", self.config.hand_over_max, now);
            self.enter(State::AwaitHandOver);
        } else {
            self.enter(State::Completing { ledger, last });
        }
    }

    /// A piece of work is done.
    pub(crate) fn on_done(&mut self, done: Input, now: Timestamp) -> Result<(), ApiMisuse> {
        match (self.state.clone(), done) {
            (
                State::Preparing {
                    stream_count,
                    encodings,
                },
                Input::GuestPrepared,
            ) => {
                let Some(migration_id) = self.migration_id else {
                    let (input, stage) = ("a prepared guest", self.stage());
                    return Err(ApiMisuse { input, stage });
                };
                let secret = self.secret;
                let verdict = Verdict::Accepted {
                    stream_count,
                    encodings,
                    secret,
                };
                self.send(Message::Verdict(verdict), now);
                self.act(Action::Observe(Event::Accepted { stream_count }));
                self.act(Action::AcceptStreams {
                    migration_id,
                    secret,
                    stream_count,
                    encodings,
                });
                self.timers
                    .wait_for("the page streams", self.config.handshake_max, now);
                self.enter(State::Accepting { stream_count });
            }
            (State::Accepting { stream_count }, Input::StreamsAccepted) => {
                self.send(Message::StreamsBound(StreamsBound { stream_count }), now);
                self.timers.wait_no_more();
                self.enter(State::AwaitRound {
                    next: Round::FIRST,
                    landed: None,
                });
            }
            (
                State::AwaitRound { next, landed: None },
                Input::RoundLanded {
                    round,
                    frames,
                    pages,
                },
            ) if round == next => {
                let landed = Some(Totals { frames, pages });
                self.enter(State::AwaitRound { next, landed });
            }
            (
                State::Landing {
                    plan,
                    landed: None,
                    said,
                    last,
                },
                Input::RoundLanded {
                    round,
                    frames,
                    pages,
                },
            ) if round == plan.round => {
                self.land_on(plan, Some(Totals { frames, pages }), said, last, now);
            }
            (
                State::Landing {
                    plan,
                    landed,
                    said,
                    last: Last::Restoring,
                },
                Input::StateRestored,
            ) => {
                let last = Last::Restored;
                self.enter(State::Landing {
                    plan,
                    landed,
                    said,
                    last,
                });
            }
            (
                State::Completing {
                    ledger,
                    last: Last::Restoring,
                },
                Input::StateRestored,
            ) => {
                self.complete_on(ledger, Last::Restored, now);
            }
            (
                State::Completing {
                    ledger: false,
                    last,
                },
                Input::LedgerComplete,
            ) => {
                self.complete_on(true, last, now);
            }
            (State::Completing { .. }, Input::LedgerGap(text)) => {
                self.blame(Misdeed::BadPages { text }, now);
            }
            (State::Resuming, Input::GuestResumed) => {
                self.send(Message::Running(Running {}), now);
                self.finish(Outcome::Completed);
            }
            (_, done) => {
                let (input, stage) = (name_of(&done), self.stage());
                return Err(ApiMisuse { input, stage });
            }
        }
        Ok(())
    }

    /// Refuses for want of something that only the attempt to make the guest has shown.
    pub(crate) fn refuse_for(&mut self, fault: LocalFault, now: Timestamp) {
        let reason = Reason {
            kind: ReasonKind::Capacity,
            what: fault.text.clone(),
            remedy: "choose another target".into(),
        };
        self.act(Action::DropGuest);
        self.send(
            Message::Verdict(Verdict::Refused {
                reasons: vec![reason],
            }),
            now,
        );
        self.finish(Outcome::Failed(SessionError::Local(fault)));
    }
}

const fn name_of(done: &Input) -> &'static str {
    match done {
        Input::GuestPrepared => "a prepared guest",
        Input::StreamsAccepted => "accepted streams",
        Input::RoundLanded { .. } => "a landed round",
        Input::LedgerComplete | Input::LedgerGap(_) => "a checked ledger",
        Input::StateRestored => "restored state",
        Input::GuestResumed => "a resumed guest",
        _ => "an event",
    }
}
