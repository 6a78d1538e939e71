//! The target's loop: the only place of the target that waits. It selects one event, gives it to the
//! session, and carries out what the session wants.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Select, unbounded};
use limosa_session::target::{Action, Input};
use limosa_session::{Custody, Outcome, Stage, Target, Timestamp};
use limosa_transport::{Listener, PageLink, StreamsExpected, TransportError, Wait, probe_io};
use limosa_wire::StreamSecret;

use crate::cancel::CancelToken;
use crate::config::{AGENT, CANCEL_CHECK, MigrationConfig};
use crate::control::{Control, ControlNews};
use crate::error::{Cause, MigrationError};
use crate::guest::TargetHost;
use crate::landing::LandingNews;
use crate::observe::{Moment, Observer};
use crate::report::TargetReport;
use crate::target::TargetRooms;

/// A guest that has moved here and runs.
#[derive(Debug)]
pub struct Landed<G> {
    /// The guest.
    pub guest: G,
    /// What its move took.
    pub report: TargetReport,
}

/// Waits for one source at `listener`, takes its guest in, and lets it run.
///
/// The call blocks the thread that makes it; `observer` is called on that thread.
///
/// # Errors
/// A [`MigrationError`]. The guest does not run here then, and nothing of it is left, unless custody
/// is [`Custody::InTransit`]: it was handed over and could not be made to run.
pub fn migrate_in<H: TargetHost>(
    host: &mut H,
    listener: &mut Listener,
    config: &MigrationConfig,
    cancel: &CancelToken,
    observer: &mut dyn Observer,
) -> Result<Landed<H::Guest>, MigrationError> {
    let at_connect = |cause| MigrationError {
        stage: Stage::Connect,
        custody: Custody::Source,
        cause,
    };
    let (landing_news, from_streams) = unbounded();
    let (control_news, from_control) = unbounded();
    let policy = host.policy().map_err(|error| at_connect(error.into()))?;
    let io = probe_io(config.link.io)
        .map_err(|reason| at_connect(Cause::Host(format!("io_uring can't be had: {reason}"))))?;
    let mut rooms = TargetRooms::new(host, landing_news);
    rooms.report.io = format!("{} ({})", io.io, io.reason);
    let wait = Wait::forever().unless(cancel.flag());
    let link = listener
        .accept_control(&wait)
        .map_err(|error| at_connect(error.into()))?;
    let begun = Instant::now();
    rooms.control = Some(Control::start(link, control_news).map_err(at_connect)?);
    let secret = StreamSecret::new(crate::random::bytes().map_err(at_connect)?);
    let session = Target::new(
        config.session.clone(),
        policy,
        secret,
        AGENT.into(),
        Timestamp::default(),
    );
    let driver = Driver {
        rooms,
        session,
        listener,
        config,
        cancel,
        begun,
        inputs: VecDeque::new(),
        failure: None,
        outcome: None,
    };
    driver.run(&from_control, &from_streams, observer)
}

struct Driver<'a, H: TargetHost> {
    rooms: TargetRooms<'a, H>,
    session: Target,
    listener: &'a mut Listener,
    config: &'a MigrationConfig,
    cancel: &'a CancelToken,
    begun: Instant,
    /// Answers to actions that are done already.
    inputs: VecDeque<Input>,
    /// The first failure of this side, with more in it than the session is told.
    failure: Option<Cause>,
    outcome: Option<Outcome>,
}

impl<H: TargetHost> Driver<'_, H> {
    fn run(
        mut self,
        control: &Receiver<ControlNews>,
        streams: &Receiver<LandingNews>,
        observer: &mut dyn Observer,
    ) -> Result<Landed<H::Guest>, MigrationError> {
        let mut last_stage = Stage::Handshake;
        loop {
            while let Some(action) = self.session.poll_action() {
                if self.session.stage() != Stage::Finished {
                    last_stage = self.session.stage();
                }
                if let Some(input) = self.apply(action, observer) {
                    self.inputs.push_back(input);
                }
            }
            if let Some(outcome) = self.outcome.take() {
                return self.end(outcome, last_stage);
            }
            let input = match self.inputs.pop_front() {
                Some(input) => Some(input),
                None => self.select(control, streams),
            };
            if let Some(input) = input
                && let Err(misuse) = self.session.handle(input, self.now())
            {
                debug_assert!(false, "{misuse}");
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::new(self.begun.elapsed())
    }

    /// Waits for the next event; none when there is nothing for the session.
    fn select(
        &mut self,
        control: &Receiver<ControlNews>,
        streams: &Receiver<LandingNews>,
    ) -> Option<Input> {
        if self.cancel.is_cancelled() && self.session.custody() == Custody::Source {
            return Some(Input::Cancelled);
        }
        let timeout = self.session.poll_timeout()?.since_start();
        let nap = timeout
            .saturating_sub(self.begun.elapsed())
            .min(CANCEL_CHECK);
        let mut select = Select::new();
        let (from_control, from_streams) = (select.recv(control), select.recv(streams));
        let Ok(ready) = select.select_timeout(nap) else {
            return (self.begun.elapsed() >= timeout).then_some(Input::Timeout);
        };
        match ready.index() {
            index if index == from_control => ready.recv(control).ok().map(|news| match news {
                ControlNews::Message(message) => Input::Message(message),
                ControlNews::Garbage(error) => Input::Garbage(error),
                ControlNews::Lost(error) => Input::ControlLost(error.to_string()),
            }),
            index if index == from_streams => {
                let news = ready.recv(streams).ok()?;
                self.on_stream(news)
            }
            _ => None,
        }
    }

    fn on_stream(&mut self, news: LandingNews) -> Option<Input> {
        Some(match news {
            LandingNews::RoundLanded(round) => {
                let (frames, pages) = self.rooms.counted(round)?;
                Input::RoundLanded {
                    round,
                    frames,
                    pages,
                }
            }
            LandingNews::Failed {
                stream,
                cause: Cause::Transport(error),
            } => Input::StreamLost(stream, error.to_string()),
            LandingNews::Failed {
                cause: cause @ Cause::Landing(_),
                ..
            } => {
                let text = cause.to_string();
                self.failure.get_or_insert(cause);
                Input::BadPages(text)
            }
            LandingNews::Failed { cause, .. } => self.failed(cause),
        })
    }

    /// Does one action; what it answers at once is returned.
    fn apply(&mut self, action: Action, observer: &mut dyn Observer) -> Option<Input> {
        let rooms = &mut self.rooms;
        let done = match action {
            Action::Send(message) => {
                let control = rooms.control.as_mut()?;
                match control.send(&message) {
                    Ok(()) => Ok(None),
                    Err(Cause::Transport(error)) => Ok(Some(Input::ControlLost(error.to_string()))),
                    Err(cause) => Err(cause),
                }
            }
            Action::PrepareGuest(offer) => {
                rooms.prepare(&offer).map(|()| Some(Input::GuestPrepared))
            }
            Action::AcceptStreams {
                migration_id,
                secret,
                stream_count,
                encodings,
            } => {
                let expected = StreamsExpected {
                    migration_id,
                    secret,
                    stream_count,
                };
                match self.accept(&expected) {
                    Ok(links) => self
                        .rooms
                        .land(links, migration_id, encodings)
                        .map(|()| Some(Input::StreamsAccepted)),
                    Err(cause) => Err(cause),
                }
            }
            Action::ConfirmRound {
                round,
                frames,
                pages,
            } => Ok(rooms
                .confirm(round, &frames, pages)
                .err()
                .map(Input::BadPages)),
            Action::CheckLedger => Ok(Some(match rooms.check_ledger() {
                Ok(()) => Input::LedgerComplete,
                Err(gap) => Input::LedgerGap(gap),
            })),
            Action::RestoreState(sections) => {
                rooms.restore(sections).map(|()| Some(Input::StateRestored))
            }
            Action::ResumeGuest => rooms.resume().map(|()| Some(Input::GuestResumed)),
            Action::DropGuest => {
                rooms.drop_guest();
                Ok(None)
            }
            Action::CloseLink => {
                rooms.end_streams();
                rooms.control = None;
                Ok(None)
            }
            Action::Observe(event) => {
                observer.on_moment(&Moment::Session(event));
                Ok(None)
            }
            Action::Finished(outcome) => {
                self.outcome = Some(outcome);
                Ok(None)
            }
        };
        done.unwrap_or_else(|cause| Some(self.failed(cause)))
    }

    /// Waits for the page streams, for as long as there is a source that could open them.
    fn accept(&mut self, expected: &StreamsExpected) -> Result<Vec<PageLink>, Cause> {
        let give_up = AtomicBool::new(false);
        let (cancel, control) = (self.cancel, &self.rooms.control);
        let wait = Wait::at_most(self.config.session.handshake_max).unless(&give_up);
        let listener = &mut *self.listener;
        let bound: Result<_, TransportError> = std::thread::scope(|scope| {
            let (done, is_done) = crossbeam_channel::bounded::<()>(1);
            scope.spawn({
                let give_up = &give_up;
                move || {
                    while is_done.recv_timeout(Duration::from_millis(20)).is_err() {
                        let over = control.as_ref().is_none_or(Control::is_over);
                        if over || cancel.is_cancelled() {
                            return give_up.store(true, Ordering::Release);
                        }
                    }
                }
            });
            let bound = listener.accept_streams(expected, &wait);
            // The watcher may have ended already.
            let _ = done.send(());
            bound
        });
        Ok(bound?)
    }

    /// Keeps the failure for the end, and tells the session in its own words.
    fn failed(&mut self, cause: Cause) -> Input {
        let fault = cause.fault();
        self.failure.get_or_insert(cause);
        Input::LocalFailure(fault)
    }

    fn end(self, outcome: Outcome, stage: Stage) -> Result<Landed<H::Guest>, MigrationError> {
        let custody = self.session.custody();
        let mut report = self.rooms.report;
        report.elapsed = self.begun.elapsed();
        let cause = match (outcome, self.failure) {
            (Outcome::Completed, _) => match self.rooms.guest {
                Some(guest) => return Ok(Landed { guest, report }),
                None => Cause::Host("the guest is gone".into()),
            },
            (Outcome::Refused(reasons), _) => Cause::refused(reasons),
            (Outcome::Failed(_) | Outcome::InTransit(_), Some(cause)) => cause,
            (Outcome::Failed(error) | Outcome::InTransit(error), None) => error.into(),
        };
        Err(MigrationError {
            stage,
            custody,
            cause,
        })
    }
}
