//! What each of the target's messages makes of the source's state. Work that is done on this side
//! is not told here.

use limosa_wire::{
    EncodingSet, HandOver, Hello, Message, PageEncoding, RoundLanded, StreamSecret, StreamsBound,
    Verdict,
};

use super::state::{Binding, LastRound, State};
use super::{Action, Source};
use crate::error::{Misdeed, Outcome};
use crate::event::Event;
use crate::round::RoundReport;
use crate::timers::Timestamp;

impl Source {
    pub(super) fn on_message(&mut self, message: Message, now: Timestamp) {
        match (self.state.clone(), message) {
            (State::AwaitHello, Message::Hello(hello)) => self.on_hello(&hello, now),
            // A target that speaks no common version refuses without a hello of its own.
            (
                State::AwaitHello | State::AwaitVerdict,
                Message::Verdict(Verdict::Refused { reasons }),
            ) => self.finish(Outcome::Refused(reasons)),
            (
                State::AwaitVerdict,
                Message::Verdict(Verdict::Accepted {
                    stream_count,
                    encodings,
                    secret,
                }),
            ) => self.on_accepted(stream_count, encodings, secret, now),
            (State::Binding(binding), Message::StreamsBound(bound)) if !binding.bound => {
                self.on_streams_bound(binding, bound, now);
            }
            (State::AwaitLanded { report }, Message::RoundLanded(landed)) => {
                self.on_round_landed(&report, landed, now);
            }
            // The target may have the pages before the state has been taken.
            (State::LastRound(last), Message::RoundLanded(landed)) if !last.landed => {
                self.on_last_round_landed(last, landed, now);
            }
            (
                State::AwaitPrepared {
                    report,
                    landed: false,
                },
                Message::RoundLanded(landed),
            ) => self.on_all_landed(report, landed, now),
            (State::AwaitPrepared { landed: true, .. }, Message::Prepared(_)) => {
                self.hand_over(now);
            }
            (State::HandedOver, Message::Running(_)) => self.on_running(),
            (_, message) => self.out_of_place(&message, now),
        }
    }

    fn on_hello(&mut self, hello: &Hello, now: Timestamp) {
        if hello.migration_id != self.migration_id {
            return self.blame(Misdeed::OtherMigration, now);
        }
        self.send(Message::Offer(self.offer.clone()), now);
        // The target makes machine and memory before it answers.
        self.timers
            .wait_for("the target's verdict", self.config.prepare_max, now);
        self.enter(State::AwaitVerdict);
    }

    fn on_accepted(
        &mut self,
        stream_count: u16,
        encodings: EncodingSet,
        secret: StreamSecret,
        now: Timestamp,
    ) {
        if let Err(misdeed) = self.check_accepted(stream_count, encodings) {
            return self.blame(misdeed, now);
        }
        self.act(Action::Observe(Event::Accepted { stream_count }));
        self.act(Action::OpenStreams {
            stream_count,
            encodings,
            secret,
        });
        let what = "the binding of the page streams";
        self.timers.wait_for(what, self.config.handshake_max, now);
        self.enter(State::Binding(Binding {
            stream_count,
            opened: false,
            bound: false,
        }));
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

    fn on_streams_bound(&mut self, binding: Binding, bound: StreamsBound, now: Timestamp) {
        if bound.stream_count != binding.stream_count {
            let what = "page streams";
            return self.blame(Misdeed::AcceptedUnoffered { what }, now);
        }
        self.bind_on(Binding {
            bound: true,
            ..binding
        });
    }

    fn on_round_landed(&mut self, report: &RoundReport, landed: RoundLanded, now: Timestamp) {
        if let Err(misdeed) = check_landed(report, landed) {
            return self.blame(misdeed, now);
        }
        self.act(Action::Harvest);
        let next = report.round.next();
        self.enter(State::Harvesting { next });
    }

    fn on_last_round_landed(&mut self, last: LastRound, landed: RoundLanded, now: Timestamp) {
        let Some(report) = &last.sent else {
            return self.out_of_place(&Message::RoundLanded(landed), now);
        };
        if let Err(misdeed) = check_landed(report, landed) {
            return self.blame(misdeed, now);
        }
        self.enter(State::LastRound(LastRound {
            landed: true,
            ..last
        }));
    }

    fn on_all_landed(&mut self, report: RoundReport, landed: RoundLanded, now: Timestamp) {
        if let Err(misdeed) = check_landed(&report, landed) {
            return self.blame(misdeed, now);
        }
        let landed = true;
        self.enter(State::AwaitPrepared { report, landed });
    }

    /// Gives the guest away: from here on only the target may let it run.
    fn hand_over(&mut self, now: Timestamp) {
        self.hold.give_away();
        self.act(Action::Observe(Event::Custody(self.custody())));
        let what = "the word that the guest runs at the target";
        self.timers.wait_for(what, self.config.hand_over_max, now);
        self.enter(State::HandedOver);
        self.send(Message::HandOver(HandOver {}), now);
    }

    fn on_running(&mut self) {
        self.hold.know_arrived();
        self.act(Action::Observe(Event::Custody(self.custody())));
        self.act(Action::ReleaseGuest);
        self.finish(Outcome::Completed);
    }

    fn out_of_place(&mut self, message: &Message, now: Timestamp) {
        let (message, stage) = (message.kind(), self.stage());
        self.blame(Misdeed::OutOfPlace { message, stage }, now);
    }
}

fn check_landed(report: &RoundReport, landed: RoundLanded) -> Result<(), Misdeed> {
    let round = report.round;
    if landed.round != round {
        let (expected, found) = (round, landed.round);
        return Err(Misdeed::WrongRound { expected, found });
    }
    if landed.pages != report.pages.total() {
        let what = "pages";
        return Err(Misdeed::TotalsDiffer { round, what });
    }
    Ok(())
}
