//! The sending side's machine: from the first hello until the guest runs elsewhere, or here again.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use limosa_pages::PageCount;
use limosa_wire::{
    Abort, EncodingSet, Hello, KeepAlive, Message, MigrationId, Offer, StateSection, StreamIndex,
    StreamSecret, VersionRange,
};

use crate::config::SessionConfig;
use crate::convergence::Convergence;
use crate::custody::{Custody, SourceHold};
use crate::error::{ApiMisuse, LocalFault, Misdeed, Outcome, SessionError, Stage};
use crate::event::Event;
use crate::round::{RoundPlan, RoundReport};
use crate::source_steps::State;
use crate::timers::{Fired, Timers, Timestamp};

/// What can happen to a source.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// The target said something.
    Message(Message),
    /// The target's bytes are no message.
    Garbage(limosa_wire::DecodeError),
    /// The control link ended.
    ControlLost(String),
    /// A page stream ended.
    StreamLost(StreamIndex, String),
    /// [`Action::OpenStreams`] is done on this side.
    StreamsOpened,
    /// [`Action::StartTracking`] is done.
    TrackingStarted,
    /// [`Action::Harvest`] is done; so many pages wait for the next round.
    Harvested(PageCount),
    /// [`Action::StartRound`] is done: the streams have taken the last byte.
    RoundDone(RoundReport),
    /// [`Action::PauseGuest`] is done.
    GuestPaused,
    /// [`Action::ExportState`] is done.
    StateExported(Vec<StateSection>),
    /// Work of this side failed.
    LocalFailure(LocalFault),
    /// An operator wants the migration to end.
    Cancelled,
    /// [`Source::poll_timeout`] has come.
    Timeout,
}

/// What a source wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Send a message.
    Send(Message),
    /// Open and bind the page streams; answered by [`Input::StreamsOpened`].
    OpenStreams {
        /// How many.
        stream_count: u16,
        /// The encodings that both sides know.
        encodings: EncodingSet,
        /// What each stream shows.
        secret: StreamSecret,
    },
    /// Begin to record the guest's writes; answered by [`Input::TrackingStarted`].
    StartTracking,
    /// Take what was written since the last time; answered by [`Input::Harvested`].
    Harvest,
    /// Send a round; answered by [`Input::RoundDone`]. The driver need not wait for it.
    StartRound(RoundPlan),
    /// Stop the guest; answered by [`Input::GuestPaused`].
    PauseGuest,
    /// Take the guest's state; answered by [`Input::StateExported`].
    ExportState,
    /// The migration failed: let the guest run on here.
    ResumeGuest,
    /// The target runs the guest: it must never run here again.
    ReleaseGuest,
    /// End the record of writes.
    StopTracking,
    /// Close all links.
    CloseLink,
    /// For an observer.
    Observe(Event),
    /// The end; nothing follows.
    Finished(Outcome),
}

/// The source's machine.
///
/// Methods come in four families. `new` makes it; [`handle`](Self::handle) gives it one input and the
/// time; [`poll_action`](Self::poll_action) is called until it returns `None`, and each action is
/// carried out in that order; [`poll_timeout`](Self::poll_timeout) says until when the driver may
/// wait for the next input at the longest. Time is an argument and never runs backwards. The order is
/// always the same: handle one input, drain all actions, wait.
#[derive(Clone, PartialEq, Debug)]
pub struct Source {
    pub(crate) config: SessionConfig,
    pub(crate) migration_id: MigrationId,
    pub(crate) offer: Offer,
    pub(crate) hold: SourceHold,
    pub(crate) state: State,
    pub(crate) convergence: Convergence,
    pub(crate) timers: Timers,
    pub(crate) paused: bool,
    tracking: bool,
    keep_alives: u64,
    actions: VecDeque<Action>,
}

impl Source {
    /// A machine that has said hello. Of `offer` the stream count and the encodings are taken from
    /// `config`.
    #[must_use]
    pub fn new(
        config: SessionConfig,
        migration_id: MigrationId,
        offer: Offer,
        agent: String,
        now: Timestamp,
    ) -> Self {
        let config = config.bounded();
        let offer = Offer {
            stream_count: config.stream_count,
            encodings: config.encodings,
            ..offer
        };
        let mut source = Self {
            convergence: Convergence::new(&config),
            timers: Timers::new(config.keep_alive_every, config.peer_silence_max, now),
            config,
            migration_id,
            offer,
            hold: SourceHold::new(),
            state: State::AwaitHello,
            paused: false,
            tracking: false,
            keep_alives: 0,
            actions: VecDeque::new(),
        };
        let versions = VersionRange::SUPPORTED;
        let hello = Hello {
            versions,
            migration_id,
            agent,
        };
        source.send(Message::Hello(hello), now);
        source
            .timers
            .wait_for("the target's hello", source.config.handshake_max, now);
        source
    }

    /// Takes one input.
    ///
    /// # Errors
    /// An input that nobody asked for; nothing has changed then.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Result<(), ApiMisuse> {
        if matches!(self.state, State::Finished) {
            return Ok(());
        }
        match input {
            Input::Message(message) => {
                self.timers.heard(now);
                match message {
                    Message::KeepAlive(_) => {}
                    Message::Abort(Abort { reason, text }) => {
                        self.fail(SessionError::PeerFailed { reason, text }, now);
                    }
                    message => self.on_message(message, now),
                }
            }
            Input::Garbage(error) => self.blame(Misdeed::Garbage(error), now),
            Input::ControlLost(text) => self.fail(SessionError::LinkLost(text), now),
            Input::StreamLost(_, text) => self.on_stream_lost(text, now),
            Input::LocalFailure(fault) => self.fail(SessionError::Local(fault), now),
            // What was handed over can't be called back: the end is what the target makes of it.
            Input::Cancelled if !self.hold.may_run() => {}
            Input::Cancelled => self.fail(SessionError::Cancelled, now),
            Input::Timeout => self.on_timeout(now),
            done => return self.on_done(done, now),
        }
        Ok(())
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to give [`Input::Timeout`] at the latest; `None` once finished.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        (!matches!(self.state, State::Finished)).then(|| self.timers.next())
    }

    /// Who may run the guest, as far as this side knows.
    #[must_use]
    pub fn custody(&self) -> Custody {
        self.hold.custody()
    }

    /// How far the session is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.state.stage()
    }

    pub(crate) fn act(&mut self, action: Action) {
        self.tracking |= action == Action::StartTracking;
        self.actions.push_back(action);
    }

    pub(crate) fn send(&mut self, message: Message, now: Timestamp) {
        self.timers.said(now);
        self.act(Action::Send(message));
    }

    /// Goes on to `state`, and says so where that is a new stage.
    pub(crate) fn enter(&mut self, state: State) {
        let before = self.state.stage();
        self.state = state;
        let stage = self.state.stage();
        if stage != before {
            self.act(Action::Observe(Event::Stage(stage)));
        }
    }

    pub(crate) fn blame(&mut self, misdeed: Misdeed, now: Timestamp) {
        self.fail(SessionError::PeerMisbehaved(misdeed), now);
    }

    /// Ends the session. Before the hand-over the guest stays here; after it nobody knows.
    pub(crate) fn fail(&mut self, error: SessionError, now: Timestamp) {
        // The guest goes on before anything else: a word to a peer that hangs may take its time.
        if self.hold.may_run() && self.paused {
            self.act(Action::ResumeGuest);
        }
        if let Some(reason) = error.abort_reason() {
            let text = alloc::string::ToString::to_string(&error);
            self.send(Message::Abort(Abort { reason, text }), now);
        }
        if self.hold.may_run() {
            self.finish(Outcome::Failed(error));
        } else {
            self.finish(Outcome::InTransit(error));
        }
    }

    pub(crate) fn finish(&mut self, outcome: Outcome) {
        if self.tracking {
            self.act(Action::StopTracking);
        }
        self.act(Action::CloseLink);
        self.enter(State::Finished);
        self.act(Action::Finished(outcome));
    }

    fn on_stream_lost(&mut self, text: String, now: Timestamp) {
        // Once everything has landed the streams have no more use, and the target may close them.
        if !self.state.needs_streams() {
            return;
        }
        self.fail(SessionError::LinkLost(text), now);
    }

    fn on_timeout(&mut self, now: Timestamp) {
        match self.timers.fired(now) {
            None => {}
            Some(Fired::KeepAlive) => {
                self.keep_alives += 1;
                let sequence = self.keep_alives;
                self.send(Message::KeepAlive(KeepAlive { sequence }), now);
            }
            Some(Fired::PeerSilent) => {
                let longest = self.timers.peer_silence_max();
                self.fail(SessionError::PeerSilent { longest }, now);
            }
            Some(Fired::Deadline(deadline)) => {
                let (what, longest) = (deadline.what, deadline.longest);
                self.fail(SessionError::TimedOut { what, longest }, now);
            }
        }
    }
}
