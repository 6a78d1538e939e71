//! The sending side's machine: from the first hello until the guest runs elsewhere, or here again.

use alloc::string::String;

use limosa_compat::CpuDecodeError;
use limosa_wire::{Abort, Hello, Message, MigrationId, Offer, VersionRange};

use crate::config::{SessionConfig, Terms};
use crate::convergence::Convergence;
use crate::cpu::OfferedCpu;
use crate::custody::{Custody, SourceHold};
use crate::error::{ApiMisuse, Misdeed, SessionError, Stage};
use crate::event::Event;
pub use crate::io::{SourceAction as Action, SourceInput as Input};
use crate::outbox::Outbox;
use crate::outcome::Outcome;
use crate::slowdown::Slowdown;
use crate::state::Step;
use crate::state::source::State;
use crate::timers::{Fired, Timestamp};

/// The source's machine.
///
/// Methods come in four families. `new` makes it; [`handle`](Self::handle) gives it one input and
/// the time; [`poll_action`](Self::poll_action) is called until it returns `None`, and each action
/// is carried out in that order; [`poll_timeout`](Self::poll_timeout) says until when the driver
/// may wait for the next input at the longest. Time is an argument; should it run backwards, it
/// stands still here. The order is always the same: handle one input, drain all actions, wait.
#[derive(Clone, PartialEq, Debug)]
pub struct Source {
    context: Context,
    state: State,
}

/// What is true in every state of a source.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Context {
    pub(crate) config: SessionConfig,
    pub(crate) migration_id: MigrationId,
    pub(crate) offer: Offer,
    /// The processor in the offer. Another kind of guest than targets know may describe its own in
    /// another way: it is the target that refuses it.
    pub(crate) cpu: Result<OfferedCpu, CpuDecodeError>,
    pub(crate) hold: SourceHold,
    pub(crate) convergence: Convergence,
    pub(crate) tracking: bool,
    pub(crate) slowdown: Slowdown,
    pub(crate) outbox: Outbox<Action>,
}

impl Source {
    /// A machine that has said hello. Of `offer` the stream count and the encodings are taken from
    /// `config`, of which each knob is brought into its range.
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
        let mut outbox = Outbox::new(&config, now);
        outbox.send(Message::Hello(Hello {
            versions: VersionRange::SUPPORTED,
            migration_id,
            agent,
        }));
        outbox.wait_for("the target's hello", config.handshake_max);
        let context = Context {
            convergence: Convergence::new(&config),
            config,
            migration_id,
            cpu: OfferedCpu::decode(&offer.cpu),
            offer,
            hold: SourceHold::Running,
            tracking: false,
            slowdown: Slowdown::None,
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
            Input::Message(message) => self.on_message(message),
            Input::Garbage(error) => self.fail(SessionError::of_garbage(error, self.stage())),
            Input::ControlLost(text) => {
                self.context.outbox.link_lost();
                self.fail(SessionError::LinkLost(text));
            }
            // Streams that have brought everything have no more use, and the target may close them.
            Input::StreamLost(_, text) if self.state.needs_streams() => {
                self.fail(SessionError::LinkLost(text));
            }
            Input::StreamLost(..) => {}
            // What was handed over can't be called back, and nothing that may fail here from then
            // on says anything about it: the end is what the target makes of it.
            Input::Cancelled | Input::LocalFailure(_) if self.custody() != Custody::Source => {}
            Input::LocalFailure(fault) => self.fail(SessionError::Local(fault)),
            Input::Cancelled => self.fail(SessionError::Cancelled),
            Input::Renegotiated(terms) => self.context.renegotiate(terms),
            Input::Timeout => self.on_timeout(),
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
                outbox.act(hold.take_back());
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

    /// Ends the session. Before the hand-over the guest stays here; after it nobody knows.
    fn fail(&mut self, error: SessionError) {
        let Context { hold, outbox, .. } = &mut self.context;
        // The guest goes on before anything else: a word to a peer that hangs may take its time.
        outbox.act(hold.take_back());
        outbox.abort(&error);
        self.finish(match self.custody() {
            Custody::Source => Outcome::Failed(error),
            Custody::InTransit | Custody::Target => Outcome::InTransit(error),
        });
    }

    fn finish(&mut self, outcome: Outcome) {
        self.context.slow(Slowdown::None);
        let Context {
            tracking, outbox, ..
        } = &mut self.context;
        outbox.act(tracking.then_some(Action::StopTracking));
        outbox.act([Action::CloseLink]);
        self.enter(State::Finished);
        self.context.outbox.act([Action::Finished(outcome)]);
    }
}

impl Context {
    /// The digest of the guest's processor. One that can't be read is never agreed on, so that no
    /// message speaks of it.
    pub(crate) fn cpu_digest(&self) -> u64 {
        self.cpu.as_ref().map_or(0, OfferedCpu::digest)
    }

    /// Is the processor that the target speaks of the guest's?
    pub(crate) fn check_cpu(&self, found: u64) -> Result<(), Misdeed> {
        self.cpu.as_ref().map_or(Ok(()), |cpu| cpu.check(found))
    }

    /// Another budget and policy hold from now on.
    fn renegotiate(&mut self, terms: Terms) {
        self.config.downtime_max = terms.downtime_max;
        self.config.on_stall = terms.on_stall;
        let terms = self.config.terms();
        self.config.downtime_max = terms.downtime_max;
        self.convergence.renegotiate(terms);
    }

    /// Holds the guest back by so much.
    pub(crate) fn slow(&mut self, slowdown: Slowdown) {
        if slowdown != self.slowdown {
            self.slowdown = slowdown;
            self.outbox.act([Action::Slow(slowdown)]);
            self.outbox.observe(Event::Slowed(slowdown));
        }
    }

    /// The guest stands still: nothing holds it back any more.
    pub(crate) fn paused(&mut self) {
        if self.slowdown != Slowdown::None {
            self.slowdown = Slowdown::None;
            self.outbox.observe(Event::Slowed(Slowdown::None));
        }
    }

    /// Tells observers who may run the guest now.
    pub(crate) fn observe_custody(&mut self) {
        self.outbox.observe(Event::Custody(self.hold.custody()));
    }
}
