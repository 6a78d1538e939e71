//! How a pair goes on: one event after the other, in an order that a seed gives, and the time when
//! nothing else happens.

use std::time::Duration;

use limosa_session::source::Input as SourceInput;
use limosa_session::target::Input as TargetInput;
use limosa_session::{Custody, Outcome, Stage};
use limosa_wire::Message;

use super::{Pair, Wire, landed};

/// What may happen next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Event {
    SourceWork,
    TargetWork,
    Streams,
    ToTarget,
    ToSource,
}

impl Pair {
    fn events(&self) -> Vec<Event> {
        let target_waits = self.target.stage() != Stage::Finished;
        let bound = self.target.stage() != Stage::Prepare || !target_waits;
        [
            (Event::SourceWork, !self.source_work.is_empty()),
            (Event::TargetWork, !self.target_work.is_empty()),
            (Event::Streams, !self.streams.is_empty() && bound),
            (Event::ToTarget, !self.to_target.is_empty()),
            (Event::ToSource, !self.to_source.is_empty()),
        ]
        .into_iter()
        .filter_map(|(event, may_be)| may_be.then_some(event))
        .collect()
    }

    fn choose(&mut self, events: &[Event]) -> Option<Event> {
        if self.seed == 0 {
            return events.first().copied();
        }
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        let index = self.seed as usize % events.len().max(1);
        events.get(index).copied()
    }

    /// Lets one thing happen; false when nothing can.
    pub(crate) fn step(&mut self) -> bool {
        let events = self.events();
        let Some(event) = self.choose(&events) else {
            return false;
        };
        match event {
            Event::SourceWork => {
                if let Some(input) = self.source_work.pop_front() {
                    if let SourceInput::RoundDone(report) = &input {
                        let landing = self.cut.is_none().then(|| landed(report));
                        self.streams.extend(landing);
                    }
                    self.give_source(input);
                }
            }
            Event::TargetWork => {
                if let Some(input) = self.target_work.pop_front() {
                    self.give_target(input);
                }
            }
            Event::Streams => {
                if let Some(input) = self.streams.pop_front() {
                    self.give_target(input);
                }
            }
            Event::ToTarget => match self.to_target.pop_front() {
                Some(Wire::Said(message)) => self.tell_target(message),
                Some(Wire::Closed) => self.give_target(TargetInput::ControlLost("closed".into())),
                None => {}
            },
            Event::ToSource => match self.to_source.pop_front() {
                Some(Wire::Said(message)) => self.tell_source(message),
                Some(Wire::Closed) => self.give_source(SourceInput::ControlLost("closed".into())),
                None => {}
            },
        }
        true
    }

    /// Goes on until nothing can happen without time passing.
    pub(crate) fn run(&mut self) {
        while self.step() {}
    }

    /// Goes on until `here`, which must come.
    pub(crate) fn run_until(&mut self, here: impl Fn(&Self) -> bool) {
        while !here(self) {
            assert!(self.step(), "it never came there");
        }
    }

    /// Goes on until the source is about to hear such a message.
    pub(crate) fn run_until_source_hears(&mut self, such: fn(&Message) -> bool) {
        self.run_until(
            |pair| matches!(pair.to_source.front(), Some(Wire::Said(said)) if such(said)),
        );
    }

    /// Goes on until the target is about to hear such a message.
    pub(crate) fn run_until_target_hears(&mut self, such: fn(&Message) -> bool) {
        self.run_until(
            |pair| matches!(pair.to_target.front(), Some(Wire::Said(said)) if such(said)),
        );
    }

    /// Lets the work be done that was held.
    pub(crate) fn release(&mut self) {
        self.hold_source = |_| false;
        self.hold_target = |_| false;
        self.source_work.append(&mut self.held_source);
        self.target_work.append(&mut self.held_target);
    }

    /// Lets time pass until the next timer, and gives it to whoever it is for.
    pub(crate) fn tick(&mut self) {
        let timeouts = [self.source.poll_timeout(), self.target.poll_timeout()];
        let Some(next) = timeouts.iter().flatten().min() else {
            return;
        };
        self.now = self.now.max(next.since_start());
        let now = self.clock();
        let due = timeouts.map(|timeout| timeout.is_some_and(|timeout| timeout <= now));
        if due[0] {
            self.give_source(SourceInput::Timeout);
        }
        if due[1] {
            self.give_target(TargetInput::Timeout);
        }
    }

    /// Goes on, and lets time pass where nothing else happens, until both sides are through.
    pub(crate) fn settle(&mut self) {
        self.settle_within(Duration::from_secs(600));
        assert!(self.is_over(), "it never ends");
    }

    /// The same, for so long at most.
    pub(crate) fn settle_within(&mut self, longest: Duration) {
        let end = self.now + longest;
        self.run();
        while !self.is_over() && self.now < end {
            self.tick();
            self.run();
        }
    }

    /// What must be true at the end of every migration, whatever happened in it.
    pub(crate) fn check_end(&self) {
        let source = self.source_outcome().expect("the source is through");
        let target = self.target_outcome().expect("the target is through");
        assert_eq!(source.custody(), self.source.custody());
        assert_eq!(target.custody(), self.target.custody());
        if self.given_away {
            assert!(!self.source_runs);
            assert!(
                matches!(source, Outcome::Completed | Outcome::InTransit(_)),
                "{source:?}"
            );
        } else {
            assert!(self.source_runs, "the guest stands still: {source:?}");
            assert!(!self.target_runs);
            assert_eq!(self.source.custody(), Custody::Source, "{source:?}");
            assert_eq!(self.target.custody(), Custody::Source, "{target:?}");
        }
        if *source == Outcome::Completed {
            assert!(self.target_runs && *target == Outcome::Completed);
        }
        assert_eq!(self.target_runs, *target == Outcome::Completed);
    }
}
