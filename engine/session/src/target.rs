//! The receiving side's machine: from the first hello until the guest runs here, or never does.

use alloc::string::String;

use limosa_wire::{Abort, Message, StreamSecret};

use crate::config::{SessionConfig, TargetPolicy};
use crate::custody::{Custody, TargetHold};
use crate::error::{ApiMisuse, LocalFault, Misdeed, SessionError, Stage};
use crate::event::Event;
pub use crate::io::{TargetAction as Action, TargetInput as Input};
use crate::outbox::Outbox;
use crate::outcome::Outcome;
use crate::state::Step;
use crate::state::target::State;
use crate::timers::{Fired, Timestamp};

/// The target's machine; it is driven as [`Source`](crate::Source) is.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    context: Context,
    state: State,
}

/// What is true in every state of a target.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Context {
    pub(crate) config: SessionConfig,
    pub(crate) policy: TargetPolicy,
    pub(crate) agent: String,
    pub(crate) secret: StreamSecret,
    pub(crate) hold: TargetHold,
    pub(crate) outbox: Outbox<Action>,
}

impl Target {
    /// A machine that waits for a source's hello. `secret` must be fresh and random for each; each
    /// knob of `config` is brought into its range.
    #[must_use]
    pub fn new(
        config: SessionConfig,
        policy: TargetPolicy,
        secret: StreamSecret,
        agent: String,
        now: Timestamp,
    ) -> Self {
        let config = config.bounded();
        let mut outbox = Outbox::new(&config, now);
        outbox.wait_for("the source's hello", config.handshake_max);
        let context = Context {
            config,
            policy,
            agent,
            secret,
            hold: TargetHold::Nothing,
            outbox,
        };
        Self {
            context,
            state: State::begin(),
        }
    }

    /// Takes one input.
    ///
    /// # Errors
    /// An input that nobody asked for; nothing has changed then. A session that has finished takes
    /// every input and does nothing.
    pub fn handle(&mut self, input: Input, now: Timestamp) -> Result<(), ApiMisuse> {
        if self.state == State::Finished {
            return Ok(());
        }
        self.context.outbox.at(now);
        match input {
            Input::Timeout => self.on_timeout(),
            Input::LocalFailure(fault) => self.on_local_failure(fault),
            // With custody here the guest runs, whatever becomes of the source and the links.
            Input::Message(_)
            | Input::Garbage(_)
            | Input::ControlLost(_)
            | Input::StreamLost(..)
            | Input::BadPages(_)
            | Input::Cancelled
                if self.context.hold.has_guest() => {}
            Input::Message(message) => self.on_message(message),
            Input::Garbage(error) => self.fail(SessionError::of_garbage(error, self.stage())),
            Input::ControlLost(text) => {
                self.context.outbox.link_lost();
                self.fail(SessionError::LinkLost(text));
            }
            Input::StreamLost(_, text) if self.state.needs_streams() => {
                self.fail(SessionError::LinkLost(text));
            }
            // Streams that have brought everything have no more use, and the source may close them.
            Input::StreamLost(..) => {}
            Input::BadPages(text) => self.blame(Misdeed::BadPages { text }),
            Input::Cancelled => self.fail(SessionError::Cancelled),
            done => {
                let (input, stage) = (done.name(), self.stage());
                let step = self.take_state().on_done(done, &mut self.context);
                return self.go(step, ApiMisuse { input, stage });
            }
        }
        Ok(())
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.context.outbox.pop()
    }

    /// When to give [`Input::Timeout`] at the latest; `None` once finished.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        (self.state != State::Finished).then(|| self.context.outbox.timers.next())
    }

    /// Who may run the guest, as far as this side knows.
    #[must_use]
    pub fn custody(&self) -> Custody {
        self.context.hold.custody()
    }

    /// How far the session is.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.state.stage()
    }

    fn on_message(&mut self, message: Message) {
        let outbox = &mut self.context.outbox;
        outbox.timers.heard(outbox.now());
        match message {
            Message::KeepAlive(_) => {}
            Message::Abort(Abort { reason, text }) => {
                self.fail(SessionError::PeerFailed { reason, text });
            }
            message => {
                let (kind, stage) = (message.kind(), self.stage());
                let step = self.take_state().on_message(message, &mut self.context);
                let misdeed = Misdeed::OutOfPlace {
                    message: kind,
                    stage,
                };
                if let Err(misdeed) = self.go(step, misdeed) {
                    self.blame(misdeed);
                }
            }
        }
    }

    fn on_local_failure(&mut self, fault: LocalFault) {
        match self.take_state() {
            // That this host can't make the guest is an answer to the offer.
            State::Preparing(state) => {
                let outcome = state.on_failure(fault, &mut self.context);
                self.finish(outcome);
            }
            state => {
                self.state = state;
                self.fail(SessionError::Local(fault));
            }
        }
    }

    fn on_timeout(&mut self) {
        let outbox = &mut self.context.outbox;
        match outbox.timers.fired(outbox.now()) {
            None => {}
            Some(Fired::KeepAlive) => outbox.keep_alive(),
            Some(Fired::PeerSilent { longest }) => self.fail(SessionError::PeerSilent { longest }),
            Some(Fired::Deadline { what, longest }) => {
                self.fail(SessionError::TimedOut { what, longest });
            }
        }
    }

    /// The state moves out, into the step that follows from it; what is left is replaced by
    /// [`go`](Self::go).
    const fn take_state(&mut self) -> State {
        core::mem::replace(&mut self.state, State::Finished)
    }

    /// Carries a step out. `refused` is the error where the state had no use for its input.
    fn go<E>(&mut self, step: Step<State>, refused: E) -> Result<(), E> {
        match step {
            Step::To(state) => self.enter(state),
            Step::Refused(state) => {
                self.state = state;
                return Err(refused);
            }
            Step::Fail(error) => self.fail(error),
            Step::Incompatible(reasons) => {
                let Context { hold, outbox, .. } = &mut self.context;
                outbox.act(hold.let_go());
                self.finish(Outcome::Refused(reasons));
            }
            Step::End(outcome) => self.finish(outcome),
        }
        Ok(())
    }

    fn enter(&mut self, state: State) {
        let outbox = &mut self.context.outbox;
        outbox.observe_stage(state.stage());
        self.state = state;
    }

    fn blame(&mut self, misdeed: Misdeed) {
        self.fail(SessionError::PeerMisbehaved(misdeed));
    }

    /// Ends the session without a running guest.
    fn fail(&mut self, error: SessionError) {
        let Context { hold, outbox, .. } = &mut self.context;
        outbox.abort(&error);
        outbox.act(hold.let_go());
        self.finish(match self.custody() {
            Custody::Source => Outcome::Failed(error),
            Custody::InTransit | Custody::Target => Outcome::InTransit(error),
        });
    }

    fn finish(&mut self, outcome: Outcome) {
        self.context.outbox.act([Action::CloseLink]);
        self.enter(State::Finished);
        self.context.outbox.act([Action::Finished(outcome)]);
    }
}

impl Context {
    /// Tells observers who may run the guest now.
    pub(crate) fn observe_custody(&mut self) {
        self.outbox.observe(Event::Custody(self.hold.custody()));
    }
}
