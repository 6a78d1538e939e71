//! The source's loop: the only place of the source that waits. It selects one event, gives it to
//! the session, and carries out what the session wants.

use std::collections::VecDeque;
use std::time::Instant;

use crossbeam_channel::{Receiver, Select, unbounded};
use limosa_session::source::{Action, Input};
use limosa_session::{Custody, Event, Outcome, SessionConfig, Source, Stage, Timestamp};
use limosa_transport::{Endpoint, Wait, connect_control, probe_io};
use limosa_wire::{EncodingSet, Message, MigrationId, StreamSecret};

use crate::cancel::CancelToken;
use crate::config::{AGENT, CANCEL_CHECK, MigrationConfig, PROGRESS_EVERY};
use crate::control::{Control, ControlNews, last_words};
use crate::error::{Cause, MigrationError};
use crate::guest::{GuestError, SourceGuest};
use crate::observe::{GuestStep, Moment, Observer, RestStep};
use crate::report::{Foretold, SlowedFrom, SourceReport};
use crate::sending::StreamNews;
use crate::source::SourceRooms;
use crate::switchover::SourceMark as Mark;

/// Moves a running guest to the target that listens at `target`.
///
/// Returns once the guest runs there. The call blocks the thread that makes it; `observer` is
/// called on that thread.
///
/// # Errors
/// A [`MigrationError`], which says who has the guest now. Unless that is
/// [`Custody::InTransit`], the guest runs on here, and another attempt may be made at any time: it
/// begins with a full round.
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
    let connecting = Instant::now();
    let link = connect_control(target, &config.link, &wait).map_err(|e| at_connect(e.into()))?;
    let session_config = SessionConfig {
        encodings: config.encodings_on(&link),
        ..config.session.clone()
    };
    rooms.control = Some(Control::start(link, control_news).map_err(at_connect)?);
    let session = Source::new(
        session_config,
        migration_id,
        offer,
        AGENT.into(),
        Timestamp::default(),
    );
    let driver = Driver {
        rooms,
        session,
        observer,
        control: from_control,
        streams: from_streams,
        begun,
        connecting,
        inputs: VecDeque::new(),
        failure: None,
        stuck: None,
        outcome: None,
        harvest_waits: false,
        rest: RestStep::Ends,
    };
    driver.run()
}

struct Driver<'a, G: SourceGuest> {
    rooms: SourceRooms<'a, G>,
    session: Source,
    observer: &'a mut dyn Observer,
    control: Receiver<ControlNews>,
    streams: Receiver<StreamNews>,
    begun: Instant,
    /// When the target was connected to.
    connecting: Instant,
    /// Answers to actions that are done already, and news that were waited for.
    inputs: VecDeque<Input>,
    /// The first failure of this side, with more in it than the session is told.
    failure: Option<Cause>,
    /// The guest was to go on here, and did not.
    stuck: Option<GuestError>,
    outcome: Option<Outcome>,
    /// The session has asked for a harvest, which is due when the migration goes on.
    harvest_waits: bool,
    /// What the observer was told last.
    rest: RestStep,
}

impl<G: SourceGuest> Driver<'_, G> {
    fn run(mut self) -> Result<SourceReport, MigrationError> {
        let mut last_stage = Stage::Handshake;
        loop {
            while let Some(action) = self.session.poll_action() {
                if self.session.stage() != Stage::Finished {
                    last_stage = self.session.stage();
                }
                match self.apply(action) {
                    Ok(answer) => self.inputs.extend(answer),
                    Err(cause) => {
                        let input = self.failed(cause);
                        self.inputs.push_back(input);
                    }
                }
            }
            if let Some(outcome) = self.outcome.take() {
                return self.end(outcome, last_stage);
            }
            let input = self.inputs.pop_front().or_else(|| self.select());
            if let Some(input) = input
                && let Err(misuse) = self.session.handle(input, self.now())
            {
                // The engine's own fault: the session must end, with the guest where it is.
                let input = self.failed(Cause::Host(misuse.to_string()));
                self.inputs.push_back(input);
            }
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::new(self.begun.elapsed())
    }

    /// An operator lets the migration rest, and the guest runs.
    fn is_resting(&self) -> bool {
        self.rooms.config.steering.is_paused() && self.session.stage() == Stage::Rounds
    }

    fn tell_rest(&mut self) {
        let step = match (self.rooms.config.steering.is_paused(), self.rest) {
            (true, RestStep::Ends) => RestStep::Begins,
            (false, RestStep::Begins) => RestStep::Ends,
            _ => return,
        };
        self.rest = step;
        let elapsed = self.begun.elapsed();
        self.observer.on_moment(&Moment::Rest { step, elapsed });
    }

    /// What an operator wants, where the session is to know of it.
    fn steered(&mut self) -> Option<Input> {
        self.tell_rest();
        if self.rooms.cancel.is_cancelled() && self.session.custody() == Custody::Source {
            return Some(Input::Cancelled);
        }
        if let Some(terms) = self.rooms.config.steering.take_terms() {
            return Some(Input::Renegotiated(terms));
        }
        if !self.harvest_waits || self.is_resting() {
            return None;
        }
        self.harvest_waits = false;
        Some(match self.rooms.harvest() {
            Ok(harvest) => Input::Harvested(harvest),
            Err(cause) => self.failed(cause),
        })
    }

    /// Waits for the next event; none when there is nothing for the session.
    fn select(&mut self) -> Option<Input> {
        if let Some(input) = self.steered() {
            return Some(input);
        }
        let timeout = self.session.poll_timeout()?.since_start();
        let nap = timeout.saturating_sub(self.begun.elapsed());
        let nap = nap.min(CANCEL_CHECK).min(PROGRESS_EVERY);
        let mut select = Select::new();
        let from_control = select.recv(&self.control);
        select.recv(&self.streams);
        let Ok(ready) = select.select_timeout(nap) else {
            self.tell_progress();
            return (self.begun.elapsed() >= timeout).then_some(Input::Timeout);
        };
        if ready.index() == from_control {
            let lost = |_| Input::ControlLost("the control link's thread ended".into());
            let news = ready.recv(&self.control);
            self.mark_word(news.as_ref().ok());
            return Some(news.map_or_else(lost, input_of));
        }
        let news = ready.recv(&self.streams).ok()?;
        self.tell_progress();
        self.on_stream(news)
    }

    /// Marks what the target says of the switchover.
    fn mark_word(&mut self, news: Option<&ControlNews>) {
        let clock = &mut self.rooms.clock;
        match news {
            Some(ControlNews::Message(Message::RoundLanded(_))) => {
                clock.mark_after(Mark::LastRoundSent, Mark::LandedHeard);
            }
            Some(ControlNews::Message(Message::Prepared(_))) => clock.mark(Mark::PreparedHeard),
            Some(ControlNews::Message(Message::Running(_))) => clock.mark(Mark::Running),
            _ => {}
        }
    }

    fn tell_progress(&mut self) {
        self.rooms
            .tell_progress(self.begun, PROGRESS_EVERY, self.observer);
    }

    /// Tells the observer of a step of the guest's: at its mark, or now where none was made.
    fn tell_guest(&mut self, step: GuestStep, mark: Option<Mark>) {
        let at = mark.and_then(|mark| self.rooms.clock.at(mark));
        let elapsed = at.map_or_else(
            || self.begun.elapsed(),
            |at| at.saturating_duration_since(self.begun),
        );
        self.observer.on_moment(&Moment::Guest { step, elapsed });
    }

    fn on_stream(&mut self, news: StreamNews) -> Option<Input> {
        match news {
            StreamNews::RoundSent { report, stream } => {
                let report = self.rooms.stream_sent(stream, report)?;
                self.rooms.tell_round_end(self.begun, self.observer);
                Some(Input::RoundDone(report))
            }
            StreamNews::Failed {
                stream,
                cause: Cause::Transport(error),
            } => {
                let lost = Input::StreamLost(stream, error.to_string());
                self.after_last_words(lost);
                None
            }
            StreamNews::Failed { cause, .. } => Some(self.failed(cause)),
        }
    }

    /// Gives the session `lost` once it was told what the peer says of it.
    fn after_last_words(&mut self, lost: Input) {
        let words = last_words(&self.control);
        self.inputs.extend(words.into_iter().map(input_of));
        self.inputs.push_back(lost);
    }

    /// Does one action; what it answers at once is returned.
    fn apply(&mut self, action: Action) -> Result<Option<Input>, Cause> {
        let is_resting = self.is_resting();
        let rooms = &mut self.rooms;
        let answer = match action {
            Action::Send(message) => return self.send(&message),
            Action::OpenStreams {
                stream_count,
                encodings,
                secret,
            } => return self.open_streams(stream_count, encodings, secret),
            Action::StartTracking => {
                rooms.start_tracking()?;
                Input::TrackingStarted
            }
            Action::Rehearse => Input::Rehearsed(rooms.rehearse()?),
            Action::Slow(slowdown) => {
                rooms.slow(slowdown)?;
                return Ok(None);
            }
            // What would follow is a round, or the pause: neither begins while this rests.
            Action::Harvest if is_resting => {
                self.harvest_waits = true;
                return Ok(None);
            }
            Action::Harvest => Input::Harvested(rooms.harvest()?),
            Action::StartRound(plan) => {
                rooms.start_round(plan)?;
                rooms.tell_round_start(self.begun, self.observer);
                return Ok(None);
            }
            Action::DescribeGuest => Input::GuestDescribed(rooms.guest.offer()?.cpu),
            Action::PauseGuest => {
                self.pause()?;
                Input::GuestPaused
            }
            Action::ExportState => Input::StateExported(rooms.export_state()?),
            Action::ResumeGuest => {
                self.resume();
                return Ok(None);
            }
            Action::ReleaseGuest => {
                self.release()?;
                return Ok(None);
            }
            Action::StopTracking => {
                rooms.stop_tracking();
                return Ok(None);
            }
            Action::CloseLink => {
                rooms.close();
                return Ok(None);
            }
            Action::Observe(event) => {
                self.observe(event);
                return Ok(None);
            }
            Action::Finished(outcome) => {
                self.outcome = Some(outcome);
                return Ok(None);
            }
        };
        Ok(Some(answer))
    }

    fn pause(&mut self) -> Result<(), Cause> {
        self.rooms.pause()?;
        self.tell_guest(GuestStep::PauseAsked, Some(Mark::PauseAsked));
        self.tell_guest(GuestStep::Paused, Some(Mark::Paused));
        Ok(())
    }

    fn resume(&mut self) {
        match self.rooms.guest.resume() {
            Ok(()) => self.tell_guest(GuestStep::RunsHere, None),
            Err(error) => self.stuck = Some(error),
        }
        self.rooms.calm();
    }

    fn release(&mut self) -> Result<(), Cause> {
        let released = self.rooms.release();
        self.tell_guest(GuestStep::RunsThere, Some(Mark::Running));
        released
    }

    fn open_streams(
        &mut self,
        stream_count: u16,
        encodings: EncodingSet,
        secret: StreamSecret,
    ) -> Result<Option<Input>, Cause> {
        match self.rooms.open_streams(stream_count, encodings, secret) {
            Ok(()) => Ok(Some(Input::StreamsOpened)),
            // The next look at the token tells the session, and it the peer.
            Err(cause) if cause.is_cancelled() => Ok(None),
            Err(Cause::Transport(error)) => {
                let lost = self.failed(error.into());
                self.after_last_words(lost);
                Ok(None)
            }
            Err(cause) => Err(cause),
        }
    }

    fn observe(&mut self, event: Event) {
        let report = &mut self.rooms.report;
        match &event {
            Event::Accepted { .. } => report.handshake = self.connecting.elapsed(),
            Event::Warning(warning) => report.warnings.push(warning.clone()),
            Event::Estimate {
                forecast,
                dirty_bytes_per_second,
                ..
            } => {
                let (at, forecast) = (self.begun.elapsed(), *forecast);
                report.foretold.push(Foretold { at, forecast });
                self.rooms.note_dirty_rate(*dirty_bytes_per_second);
            }
            Event::Stalled { policy, .. } => report.stalled = Some(*policy),
            Event::Slowed(slowdown) => {
                let (at, slowdown) = (self.begun.elapsed(), *slowdown);
                report.slowed.push(SlowedFrom { at, slowdown });
                self.rooms.note_slowdown(slowdown);
            }
            _ => {}
        }
        self.observer.on_moment(&Moment::Session(event));
    }

    fn send(&mut self, message: &Message) -> Result<Option<Input>, Cause> {
        let Some(control) = &mut self.rooms.control else {
            return Ok(None);
        };
        if matches!(message, Message::HandOver(_)) {
            self.rooms.clock.mark(Mark::HandedOver);
        }
        let config = self.rooms.config;
        let sent = match message {
            // It may be large, and the guest stands still.
            Message::State(_) => {
                let wait = Wait::at_most(config.session.switchover_max);
                let sent = control.send(message, &wait.unless(self.rooms.cancel.flag()));
                self.rooms.clock.mark(Mark::StateSent);
                sent
            }
            _ => control.send(message, &Wait::at_most(config.link.io_silence_max)),
        };
        if matches!(message, Message::HandOver(_)) {
            self.rooms.calm();
        }
        match sent {
            Ok(()) => Ok(None),
            // The next look at the token tells the session.
            Err(cause) if cause.is_cancelled() => Ok(None),
            Err(Cause::Transport(error)) => {
                self.after_last_words(Input::ControlLost(error.to_string()));
                Ok(None)
            }
            Err(cause) => Err(cause),
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
        report.rested = self.rooms.config.steering.rested();
        report.marks = self.rooms.clock;
        let cause = match outcome {
            // The guest runs at the target; what could not be let go here does not change that.
            Outcome::Completed => return Ok(report),
            Outcome::Refused(reasons) => Cause::refused(reasons),
            Outcome::Failed(error) | Outcome::InTransit(error) => Cause::of(error, self.failure),
        };
        let cause = match self.stuck {
            Some(stuck) => Cause::stuck(&stuck, &cause),
            None => cause,
        };
        Err(MigrationError {
            stage,
            custody,
            cause,
        })
    }
}

fn input_of(news: ControlNews) -> Input {
    match news {
        ControlNews::Message(message) => Input::Message(message),
        ControlNews::Garbage(error) => Input::Garbage(error),
        ControlNews::Lost(error) => Input::ControlLost(error.to_string()),
    }
}
