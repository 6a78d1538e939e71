//! The source's loop: the only place of the source that waits. It selects one event, gives it to the
//! session, and carries out what the session wants.

use std::collections::VecDeque;
use std::time::Instant;

use crossbeam_channel::{Receiver, Select, unbounded};
use limosa_pages::PageCount;
use limosa_session::source::{Action, Input};
use limosa_session::{Custody, Outcome, Source, Stage, Timestamp};
use limosa_transport::{Endpoint, Wait, connect_control, probe_io};
use limosa_wire::{Message, MigrationId, RoundKind};

use crate::cancel::CancelToken;
use crate::config::{AGENT, CANCEL_CHECK, MigrationConfig, PROGRESS_EVERY};
use crate::control::{Control, ControlNews};
use crate::error::{Cause, MigrationError};
use crate::guest::SourceGuest;
use crate::observe::{Moment, Observer};
use crate::report::SourceReport;
use crate::sending::StreamNews;
use crate::source::SourceRooms;
use crate::switchover::Mark;

/// Moves a running guest to the target that listens at `target`.
///
/// Returns once the guest runs there. The call blocks the thread that makes it; `observer` is called
/// on that thread.
///
/// # Errors
/// A [`MigrationError`], which says who has the guest now. Unless that is
/// [`Custody::InTransit`](limosa_session::Custody::InTransit), the guest runs on here, and another
/// attempt may be made at any time: it begins with a full round.
pub fn migrate_out<G: SourceGuest>(
    guest: &mut G,
    target: &Endpoint,
    config: &MigrationConfig,
    cancel: &CancelToken,
    observer: &mut dyn Observer,
) -> Result<SourceReport, MigrationError> {
    let begun = Instant::now();
    let at_connect = |cause| MigrationError {
        stage: Stage::Connect,
        custody: Custody::Source,
        cause,
    };
    let (stream_news, from_streams) = unbounded();
    let (control_news, from_control) = unbounded();
    let offer = guest.offer().map_err(|error| at_connect(error.into()))?;
    let migration_id = MigrationId::new(crate::random::bytes().map_err(at_connect)?);
    let mut rooms = SourceRooms::new(guest, target, config, cancel, migration_id, stream_news);
    let io = probe_io(config.link.io)
        .map_err(|reason| at_connect(Cause::Host(format!("io_uring can't be had: {reason}"))))?;
    rooms.report.io = format!("{} ({})", io.io, io.reason);
    let wait = Wait::at_most(config.link.connect_max).unless(cancel.flag());
    let link = connect_control(target, &config.link, &wait).map_err(|e| at_connect(e.into()))?;
    rooms.control = Some(Control::start(link, control_news).map_err(at_connect)?);
    let session = Source::new(
        config.session.clone(),
        migration_id,
        offer,
        AGENT.into(),
        Timestamp::default(),
    );
    let driver = Driver {
        rooms,
        session,
        begun,
        inputs: VecDeque::new(),
        failure: None,
        outcome: None,
    };
    driver.run(&from_control, &from_streams, observer)
}

struct Driver<'a, G: SourceGuest> {
    rooms: SourceRooms<'a, G>,
    session: Source,
    begun: Instant,
    /// Answers to actions that are done already.
    inputs: VecDeque<Input>,
    /// The first failure of this side, with more in it than the session is told.
    failure: Option<Cause>,
    outcome: Option<Outcome>,
}

impl<G: SourceGuest> Driver<'_, G> {
    fn run(
        mut self,
        control: &Receiver<ControlNews>,
        streams: &Receiver<StreamNews>,
        observer: &mut dyn Observer,
    ) -> Result<SourceReport, MigrationError> {
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
                None => self.select(control, streams, observer),
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
        streams: &Receiver<StreamNews>,
        observer: &mut dyn Observer,
    ) -> Option<Input> {
        if self.rooms.cancel.is_cancelled() && self.session.custody() == Custody::Source {
            return Some(Input::Cancelled);
        }
        let timeout = self.session.poll_timeout()?.since_start();
        let nap = timeout
            .saturating_sub(self.begun.elapsed())
            .min(CANCEL_CHECK);
        let mut select = Select::new();
        let (from_control, from_streams) = (select.recv(control), select.recv(streams));
        let ready = match select.select_timeout(nap) {
            Ok(ready) => ready,
            Err(_) => {
                self.rooms
                    .tell_progress(self.begun, PROGRESS_EVERY, observer);
                return (self.begun.elapsed() >= timeout).then_some(Input::Timeout);
            }
        };
        match ready.index() {
            index if index == from_control => ready.recv(control).ok().map(|news| match news {
                ControlNews::Message(message) => Input::Message(message),
                ControlNews::Garbage(error) => Input::Garbage(error),
                ControlNews::Lost(error) => Input::ControlLost(error.to_string()),
            }),
            index if index == from_streams => {
                let news = ready.recv(streams).ok()?;
                self.rooms
                    .tell_progress(self.begun, PROGRESS_EVERY, observer);
                self.on_stream(news)
            }
            _ => None,
        }
    }

    fn on_stream(&mut self, news: StreamNews) -> Option<Input> {
        match news {
            StreamNews::RoundSent { report, stream } => {
                let report = self.rooms.stream_sent(stream, report)?;
                let last = self.rooms.report.rounds.last();
                if last.is_some_and(|round| round.kind == RoundKind::Final) {
                    self.rooms.clock.mark(Mark::LastRoundSent);
                }
                Some(Input::RoundDone(report))
            }
            StreamNews::Failed {
                stream,
                cause: Cause::Transport(error),
            } => Some(Input::StreamLost(stream, error.to_string())),
            StreamNews::Failed { cause, .. } => Some(self.failed(cause)),
        }
    }

    /// Does one action; what it answers at once is returned.
    fn apply(&mut self, action: Action, observer: &mut dyn Observer) -> Option<Input> {
        let rooms = &mut self.rooms;
        let done = match action {
            Action::Send(message) => return self.send(&message),
            Action::OpenStreams {
                stream_count,
                encodings,
                secret,
            } => rooms
                .open_streams(stream_count, encodings, secret)
                .map(|()| Some(Input::StreamsOpened)),
            Action::StartTracking => rooms
                .start_tracking()
                .map(|()| Some(Input::TrackingStarted)),
            Action::Harvest => rooms.harvest().map(|count| {
                rooms.clock.mark_after(Mark::Paused, Mark::Harvested);
                Some(Input::Harvested(PageCount::new(count)))
            }),
            Action::StartRound(plan) => rooms.start_round(plan).map(|()| None),
            Action::PauseGuest => {
                rooms.clock.mark(Mark::PauseAsked);
                rooms.guest.pause().map_err(Cause::from).map(|()| {
                    rooms.clock.mark(Mark::Paused);
                    Some(Input::GuestPaused)
                })
            }
            Action::ExportState => rooms
                .guest
                .export_state()
                .map_err(Cause::from)
                .map(|state| {
                    rooms.clock.mark(Mark::Exported);
                    Some(Input::StateExported(state))
                }),
            Action::ResumeGuest => rooms.guest.resume().map_err(Cause::from).map(|()| None),
            Action::ReleaseGuest => {
                rooms.clock.mark(Mark::Running);
                rooms.guest.release().map_err(Cause::from).map(|()| None)
            }
            Action::StopTracking => {
                rooms.stop_tracking();
                Ok(None)
            }
            Action::CloseLink => {
                rooms.close();
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

    fn send(&mut self, message: &Message) -> Option<Input> {
        if matches!(message, Message::HandOver(_)) {
            self.rooms.clock.mark(Mark::HandedOver);
        }
        let control = self.rooms.control.as_mut()?;
        match control.send(message) {
            Ok(()) => None,
            Err(Cause::Transport(error)) => Some(Input::ControlLost(error.to_string())),
            Err(cause) => Some(self.failed(cause)),
        }
    }

    /// Keeps the failure for the end, and tells the session in its own words.
    fn failed(&mut self, cause: Cause) -> Input {
        let fault = cause.fault();
        self.failure.get_or_insert(cause);
        Input::LocalFailure(fault)
    }

    fn end(self, outcome: Outcome, stage: Stage) -> Result<SourceReport, MigrationError> {
        let custody = self.session.custody();
        let mut report = self.rooms.report;
        report.elapsed = self.begun.elapsed();
        report.switchover = self.rooms.clock.figures();
        let cause = match (outcome, self.failure) {
            (Outcome::Completed, None) => return Ok(report),
            // The guest runs at the target; what could not be let go here does not change that.
            (Outcome::Completed, Some(_)) => return Ok(report),
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
