//! What one side still wants done and says, with the timers that go with saying and hearing. It
//! does not decide what.

use alloc::collections::VecDeque;
use alloc::string::ToString;

use limosa_wire::{Abort, KeepAlive, Message};

use crate::config::SessionConfig;
use crate::error::{SessionError, Stage};
use crate::event::Event;
use crate::timers::{Timers, Timestamp};

/// Whether there is anybody to talk to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Link {
    Up,
    Lost,
}

/// The actions of one side that wait to be drained.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Outbox<A> {
    actions: VecDeque<A>,
    pub(crate) timers: Timers,
    /// The time of the input that is being handled.
    now: Timestamp,
    stage: Stage,
    keep_alives: u64,
    link: Link,
}

impl<A: From<Message> + From<Event>> Outbox<A> {
    pub(crate) fn new(config: &SessionConfig, now: Timestamp) -> Self {
        Self {
            actions: VecDeque::new(),
            timers: Timers::new(config.keep_alive_every, config.peer_silence_max, now),
            now,
            stage: Stage::Handshake,
            keep_alives: 0,
            link: Link::Up,
        }
    }

    /// An input has come at `now`; a time that runs backwards stands still.
    pub(crate) fn at(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    pub(crate) const fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn act(&mut self, actions: impl IntoIterator<Item = A>) {
        self.actions.extend(actions);
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.timers.said(self.now);
        self.actions.push_back(message.into());
    }

    pub(crate) fn observe(&mut self, event: Event) {
        self.actions.push_back(event.into());
    }

    /// Tells observers of a new stage.
    pub(crate) fn observe_stage(&mut self, stage: Stage) {
        if stage != self.stage {
            self.stage = stage;
            self.observe(Event::Stage(stage));
        }
    }

    /// Waits for `what` from now on, and for nothing else.
    pub(crate) fn wait_for(&mut self, what: &'static str, longest: core::time::Duration) {
        self.timers.wait_for(what, longest, self.now);
    }

    pub(crate) fn keep_alive(&mut self) {
        self.keep_alives += 1;
        let sequence = self.keep_alives;
        self.send(Message::KeepAlive(KeepAlive { sequence }));
    }

    /// The control link is gone: nothing more can be said.
    pub(crate) const fn link_lost(&mut self) {
        self.link = Link::Lost;
    }

    /// Tells the peer why this ends, where there is a peer that does not know.
    pub(crate) fn abort(&mut self, error: &SessionError) {
        if let (Link::Up, Some(reason)) = (self.link, error.abort_reason()) {
            let text = error.to_string();
            self.send(Message::Abort(Abort { reason, text }));
        }
    }

    pub(crate) fn pop(&mut self) -> Option<A> {
        self.actions.pop_front()
    }
}
