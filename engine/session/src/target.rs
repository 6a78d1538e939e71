//! The receiving side's machine: from the first hello until the guest runs here, or never does.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;

use limosa_wire::{
    Abort, EncodingSet, KeepAlive, Message, MigrationId, Offer, Round, RoundKind, StateSection,
    StreamIndex, StreamSecret,
};

use crate::config::{SessionConfig, TargetPolicy};
use crate::custody::{Custody, TargetHold};
use crate::error::{ApiMisuse, LocalFault, Misdeed, Outcome, SessionError, Stage};
use crate::event::Event;
use crate::target_steps::State;
use crate::timers::{Fired, Timers, Timestamp};

/// What can happen to a target.
#[derive(Clone, PartialEq, Debug)]
pub enum Input {
    /// The source said something.
    Message(Message),
    /// The source's bytes are no message.
    Garbage(limosa_wire::DecodeError),
    /// The control link ended.
    ControlLost(String),
    /// A page stream ended.
    StreamLost(StreamIndex, String),
    /// A page stream brought what can't be placed.
    BadPages(String),
    /// [`Action::PrepareGuest`] is done.
    GuestPrepared,
    /// [`Action::AcceptStreams`] is done: all are bound.
    StreamsAccepted,
    /// Every stream has passed the barrier of a round; what was counted here.
    RoundLanded {
        /// The round.
        round: Round,
        /// Frames of each stream, without barriers.
        frames: Vec<u64>,
        /// Pages of all streams.
        pages: u64,
    },
    /// [`Action::CheckLedger`] found nothing missing.
    LedgerComplete,
    /// [`Action::CheckLedger`] found a gap: the guest must not run here.
    LedgerGap(String),
    /// [`Action::RestoreState`] is done.
    StateRestored,
    /// [`Action::ResumeGuest`] is done: the guest runs.
    GuestResumed,
    /// Work of this side failed.
    LocalFailure(LocalFault),
    /// An operator wants the migration to end.
    Cancelled,
    /// [`Target::poll_timeout`] has come.
    Timeout,
}

/// What a target wants done.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Send a message.
    Send(Message),
    /// Make machine, vCPUs and unpopulated memory; answered by [`Input::GuestPrepared`].
    PrepareGuest(Offer),
    /// Let the page streams in; answered by [`Input::StreamsAccepted`].
    AcceptStreams {
        /// The migration that they must name.
        migration_id: MigrationId,
        /// What each must show.
        secret: StreamSecret,
        /// How many there are.
        stream_count: u16,
        /// Page encodings that may come.
        encodings: EncodingSet,
    },
    /// The source's totals of a round that has landed, which equal the own count: for the ledger.
    ConfirmRound {
        /// The round.
        round: Round,
        /// Frames of each stream.
        frames: Vec<u64>,
        /// Pages of all streams.
        pages: u64,
    },
    /// Put the state in place; answered by [`Input::StateRestored`].
    RestoreState(Vec<StateSection>),
    /// Ask the ledger whether the guest may run; answered by [`Input::LedgerComplete`] or
    /// [`Input::LedgerGap`].
    CheckLedger,
    /// Let the guest run; answered by [`Input::GuestResumed`].
    ResumeGuest,
    /// The guest must not run here: give everything back.
    DropGuest,
    /// Close all links.
    CloseLink,
    /// For an observer.
    Observe(Event),
    /// The end; nothing follows.
    Finished(Outcome),
}

/// The target's machine; it is driven as [`Source`](crate::Source) is.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    pub(crate) config: SessionConfig,
    pub(crate) policy: TargetPolicy,
    pub(crate) agent: String,
    pub(crate) secret: StreamSecret,
    pub(crate) hold: TargetHold,
    pub(crate) state: State,
    pub(crate) migration_id: Option<MigrationId>,
    pub(crate) timers: Timers,
    pub(crate) prepared: bool,
    keep_alives: u64,
    actions: VecDeque<Action>,
}

impl Target {
    /// A machine that waits for a source's hello. `secret` must be fresh and random for each.
    #[must_use]
    pub fn new(
        config: SessionConfig,
        policy: TargetPolicy,
        secret: StreamSecret,
        agent: String,
        now: Timestamp,
    ) -> Self {
        let config = config.bounded();
        let mut timers = Timers::new(config.keep_alive_every, config.peer_silence_max, now);
        timers.wait_for("the source's hello", config.handshake_max, now);
        Self {
            config,
            policy,
            agent,
            secret,
            hold: TargetHold::new(),
            state: State::AwaitHello,
            migration_id: None,
            timers,
            prepared: false,
            keep_alives: 0,
            actions: VecDeque::new(),
        }
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
                    // What the source gave away it can't call back.
                    Message::Abort(_) if self.hold.may_run() => {}
                    Message::Abort(Abort { reason, text }) => {
                        self.fail(SessionError::PeerFailed { reason, text }, now);
                    }
                    message => self.on_message(message, now),
                }
            }
            // With custody here the guest runs, whatever becomes of the links.
            Input::Garbage(_)
            | Input::ControlLost(_)
            | Input::StreamLost(..)
            | Input::Cancelled
                if self.hold.may_run() => {}
            Input::Garbage(error) => self.blame(Misdeed::Garbage(error), now),
            Input::ControlLost(text) => self.fail(SessionError::LinkLost(text), now),
            Input::StreamLost(_, text) if self.state.needs_streams() => {
                self.fail(SessionError::LinkLost(text), now);
            }
            Input::StreamLost(..) => {}
            Input::BadPages(text) => self.blame(Misdeed::BadPages { text }, now),
            Input::LocalFailure(fault) if matches!(self.state, State::Preparing { .. }) => {
                self.refuse_for(fault, now);
            }
            Input::LocalFailure(fault) => self.fail(SessionError::Local(fault), now),
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
        self.actions.push_back(action);
    }

    pub(crate) fn send(&mut self, message: Message, now: Timestamp) {
        self.timers.said(now);
        self.act(Action::Send(message));
    }

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

    /// Ends the session without a running guest.
    pub(crate) fn fail(&mut self, error: SessionError, now: Timestamp) {
        if let Some(reason) = error.abort_reason() {
            let text = alloc::string::ToString::to_string(&error);
            self.send(Message::Abort(Abort { reason, text }), now);
        }
        let had_taken = self.hold.may_run();
        if had_taken {
            self.hold.could_not_run();
        }
        if self.prepared {
            self.act(Action::DropGuest);
        }
        self.finish(if had_taken {
            Outcome::InTransit(error)
        } else {
            Outcome::Failed(error)
        });
    }

    pub(crate) fn finish(&mut self, outcome: Outcome) {
        self.act(Action::CloseLink);
        self.enter(State::Finished);
        self.act(Action::Finished(outcome));
    }

    pub(crate) fn saw_round(&mut self, kind: RoundKind) {
        self.act(Action::Observe(Event::RoundSeen(kind)));
    }

    fn on_timeout(&mut self, now: Timestamp) {
        match self.timers.fired(now) {
            // A guest that is being resumed here depends on nobody any more.
            None => {}
            Some(Fired::PeerSilent | Fired::Deadline(_)) if self.hold.may_run() => {
                self.timers.heard(now);
                self.timers.wait_no_more();
            }
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
