//! The target's loop: the only place of the target that waits. It selects one event, gives it to
//! the session, and carries out what the session wants.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, bounded, unbounded};
use limosa_pipeline::LandError;
use limosa_session::target::{Action, Input};
use limosa_session::{Custody, Event, Outcome, SessionConfig, Stage, Target, Timestamp};
use limosa_transport::{Listener, PageLink, StreamsExpected, Wait, probe_io};
use limosa_wire::{EncodingSet, Message, StreamSecret};

use crate::cancel::CancelToken;
use crate::config::{AGENT, CANCEL_CHECK, MigrationConfig};
use crate::control::{Control, ControlNews, last_words};
use crate::error::{Cause, MigrationError};
use crate::guest::TargetHost;
use crate::landing::LandingNews;
use crate::observe::{Moment, Observer};
use crate::report::TargetReport;
use crate::survey::Survey;
use crate::switchover::TargetMark as Mark;
use crate::target::TargetRooms;

/// How often a wait for page streams looks at what could end it early.
const WATCH_EVERY: Duration = Duration::from_millis(20);

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
/// A [`MigrationError`]. The guest does not run here then, and nothing of it is left; with custody
/// [`Custody::InTransit`] it was handed over and could not be made to run.
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
    // A host that can't be asked is found out before anybody is waited for.
    host.policy().map_err(|error| at_connect(error.into()))?;
    let io = probe_io(config.link.io)
        .map_err(|reason| at_connect(Cause::Host(format!("io_uring can't be had: {reason}"))))?;
    let wait = Wait::forever().unless(cancel.flag());
    let link = listener
        .accept_control(&wait)
        .map_err(|error| at_connect(error.into()))?;
    let begun = Instant::now();
    // The wait may have been long, and the host may have changed meanwhile.
    let policy = host.policy().map_err(|error| at_connect(error.into()))?;
    let mut rooms = TargetRooms::new(host, landing_news);
    rooms.report.io = format!("{} ({})", io.io, io.reason);
    let session_config = SessionConfig {
        encodings: config.encodings_on(&link),
        ..config.session.clone()
    };
    rooms.control = Some(Control::start(link, control_news).map_err(at_connect)?);
    let secret = StreamSecret::new(crate::random::bytes().map_err(at_connect)?);
    let session = Target::new(
        session_config,
        policy,
        secret,
        AGENT.into(),
        Timestamp::default(),
    );
    std::thread::scope(|scope| {
        let driver = Driver {
            scope,
            rooms,
            session,
            listener,
            observer,
            control: from_control,
            streams: from_streams,
            survey: Survey::none(),
            config,
            cancel,
            begun,
            inputs: VecDeque::new(),
            failure: None,
            outcome: None,
        };
        driver.run()
    })
}

struct Driver<'a, 'scope, 'env, H: TargetHost> {
    scope: &'scope Scope<'scope, 'env>,
    rooms: TargetRooms<'scope, H>,
    session: Target,
    listener: &'a mut Listener,
    observer: &'a mut dyn Observer,
    control: Receiver<ControlNews>,
    streams: Receiver<LandingNews>,
    survey: Survey<'scope>,
    config: &'a MigrationConfig,
    cancel: &'a CancelToken,
    begun: Instant,
    /// Answers to actions that are done already, and news that were waited for.
    inputs: VecDeque<Input>,
    /// The first failure of this side, with more in it than the session is told.
    failure: Option<Cause>,
    outcome: Option<Outcome>,
}

impl<H: TargetHost> Driver<'_, '_, '_, H> {
    fn run(mut self) -> Result<Landed<H::Guest>, MigrationError> {
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

    /// Waits for the next event; none when there is nothing for the session.
    fn select(&mut self) -> Option<Input> {
        if self.cancel.is_cancelled() && self.session.custody() == Custody::Source {
            return Some(Input::Cancelled);
        }
        let timeout = self.session.poll_timeout()?.since_start();
        let nap = timeout.saturating_sub(self.begun.elapsed());
        let nap = nap.min(CANCEL_CHECK);
        let mut select = Select::new();
        let from_control = select.recv(&self.control);
        let from_survey = select.recv(self.survey.is_over());
        select.recv(&self.streams);
        let Ok(ready) = select.select_timeout(nap) else {
            self.rooms.calm_if_long();
            return (self.begun.elapsed() >= timeout).then_some(Input::Timeout);
        };
        if ready.index() == from_control {
            let lost = |_| Input::ControlLost("the control link's thread ended".into());
            let news = ready.recv(&self.control);
            self.mark_word(news.as_ref().ok());
            return Some(news.map_or_else(lost, input_of));
        }
        if ready.index() == from_survey {
            // There is no message: it is the end that counts.
            let _ = ready.recv(self.survey.is_over());
            return self.on_survey();
        }
        let news = ready.recv(&self.streams).ok()?;
        self.on_stream(news)
    }

    /// Marks what the source says of the switchover.
    fn mark_word(&mut self, news: Option<&ControlNews>) {
        let clock = &mut self.rooms.clock;
        match news {
            Some(ControlNews::Message(Message::State(_))) => clock.mark(Mark::StateReceived),
            Some(ControlNews::Message(Message::RoundEnd(_))) => {
                clock.mark_after(Mark::Announced, Mark::TotalsHeard);
            }
            Some(ControlNews::Message(Message::HandOver(_))) => clock.mark(Mark::HandOverReceived),
            _ => {}
        }
    }

    fn on_survey(&mut self) -> Option<Input> {
        let found = self.survey.finish()?;
        self.rooms.clock.mark(Mark::Surveyed);
        Some(match found {
            Ok(policy) => Input::HostSurveyed(policy.host),
            Err(cause) => self.failed(cause),
        })
    }

    fn on_stream(&mut self, news: LandingNews) -> Option<Input> {
        match news {
            LandingNews::RoundLanded(round, at) => {
                self.rooms.clock.renew(Mark::LastPageLanded, at);
                Some(match self.rooms.counted(round) {
                    Some((frames, pages)) => Input::RoundLanded {
                        round,
                        frames,
                        pages,
                    },
                    None => {
                        Input::BadPages(format!("round {} is over before it began", round.next()))
                    }
                })
            }
            LandingNews::Failed {
                stream,
                cause: Cause::Transport(error),
            } => {
                let lost = Input::StreamLost(stream, error.to_string());
                self.after_last_words(lost);
                None
            }
            LandingNews::Failed {
                cause: Cause::Landing(LandError::Memory(error)),
                ..
            } => Some(self.failed(error.into())),
            LandingNews::Failed {
                cause: cause @ Cause::Landing(_),
                ..
            } => {
                let text = cause.to_string();
                self.failure.get_or_insert(cause);
                Some(Input::BadPages(text))
            }
            LandingNews::Failed { cause, .. } => Some(self.failed(cause)),
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
        let rooms = &mut self.rooms;
        let answer = match action {
            Action::Send(message) => return self.send(&message),
            Action::PrepareGuest(offer) => {
                rooms.prepare(
                    &offer,
                    self.config.session.clone().bounded().keep_alive_every,
                )?;
                Input::GuestPrepared
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
                return self.accept_streams(&expected, encodings);
            }
            Action::ConfirmRound {
                round,
                frames,
                pages,
            } => {
                let gap = rooms.confirm(round, &frames, pages).err();
                return Ok(gap.map(Input::BadPages));
            }
            Action::SurveyHost => {
                rooms.hurry();
                self.survey.start();
                return Ok(None);
            }
            Action::CheckLedger => match rooms.check_ledger() {
                Ok(()) => Input::LedgerComplete,
                Err(gap) => Input::LedgerGap(gap),
            },
            Action::RestoreState(sections) => {
                rooms.restore(sections)?;
                Input::StateRestored
            }
            Action::ResumeGuest => {
                rooms.resume()?;
                Input::GuestResumed
            }
            Action::DropGuest => {
                rooms.drop_guest();
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

    fn observe(&mut self, event: Event) {
        let report = &mut self.rooms.report;
        match &event {
            Event::Accepted { .. } => report.handshake = self.begun.elapsed(),
            Event::Warning(warning) => report.warnings.push(warning.clone()),
            _ => {}
        }
        self.observer.on_moment(&Moment::Session(event));
    }

    fn send(&mut self, message: &Message) -> Result<Option<Input>, Cause> {
        let Some(control) = &mut self.rooms.control else {
            return Ok(None);
        };
        match message {
            Message::Prepared(_) => self.rooms.clock.mark(Mark::PreparedSent),
            Message::Running(_) => self.rooms.clock.mark(Mark::RunningSent),
            _ => {}
        }
        match control.send(message, &Wait::at_most(self.config.link.io_silence_max)) {
            Err(Cause::Transport(error)) => {
                self.after_last_words(Input::ControlLost(error.to_string()));
                Ok(None)
            }
            sent => sent.map(|()| None),
        }
    }

    /// Lets the page streams in, and gives each a thread.
    fn accept_streams(
        &mut self,
        expected: &StreamsExpected,
        encodings: EncodingSet,
    ) -> Result<Option<Input>, Cause> {
        match self.accept(expected) {
            Ok(links) => {
                let migration_id = expected.migration_id;
                if let Some(host) = self.rooms.host.take() {
                    self.survey = Survey::prepared(self.scope, host)?;
                }
                self.rooms.land(links, migration_id, encodings)?;
                Ok(Some(Input::StreamsAccepted))
            }
            // The wait was ended because of what the token or the control link tells next.
            Err(cause) if cause.is_cancelled() => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// Waits for the page streams, for as long as there is a source that could open them.
    fn accept(&mut self, expected: &StreamsExpected) -> Result<Vec<PageLink>, Cause> {
        let give_up = AtomicBool::new(false);
        let (cancel, control) = (self.cancel, &self.rooms.control);
        let wait = Wait::at_most(self.config.session.handshake_max).unless(&give_up);
        let listener = &mut *self.listener;
        std::thread::scope(|scope| {
            let (done, is_done) = bounded::<()>(0);
            let give_up = &give_up;
            let watch = move || {
                while is_done.recv_timeout(WATCH_EVERY) == Err(RecvTimeoutError::Timeout) {
                    let is_over = control.as_ref().is_none_or(Control::is_over);
                    if is_over || cancel.is_cancelled() {
                        return give_up.store(true, Ordering::Release);
                    }
                }
            };
            std::thread::Builder::new()
                .spawn_scoped(scope, watch)
                .map_err(|error| Cause::Host(format!("no thread to watch the source: {error}")))?;
            let bound = listener.accept_streams(expected, &wait);
            drop(done);
            Ok(bound?)
        })
    }

    /// Keeps the failure for the end, and tells the session in its own words.
    fn failed(&mut self, cause: Cause) -> Input {
        let fault = cause.fault();
        self.failure.get_or_insert(cause);
        Input::LocalFailure(fault)
    }

    fn end(mut self, outcome: Outcome, stage: Stage) -> Result<Landed<H::Guest>, MigrationError> {
        // What the host can give is of no interest any more.
        drop(self.survey.finish());
        let custody = self.session.custody();
        let mut report = self.rooms.report;
        report.elapsed = self.begun.elapsed();
        report.marks = self.rooms.clock;
        let cause = match outcome {
            Outcome::Completed => match self.rooms.guest {
                Some(guest) => return Ok(Landed { guest, report }),
                None => Cause::Host("the guest is gone".into()),
            },
            Outcome::Refused(reasons) => Cause::refused(reasons),
            Outcome::Failed(error) | Outcome::InTransit(error) => Cause::of(error, self.failure),
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
