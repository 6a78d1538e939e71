//! One attempt at a migration, in one thread: both machines, the links between them, the guest, and
//! simulated time. What the sides do is `source.rs` and `target.rs`; what goes wrong is
//! `strikes.rs`.

use std::time::Duration;

use limosa_session::Timestamp;
use limosa_wire::{MigrationId, StreamSecret};

use super::checkers::{
    AgreementChecker, CustodyChecker, Ends, Findings, Holds, LedgerChecker, MemoryChecker,
    ProgressChecker,
};
use super::clock::Agenda;
use super::faults::{FaultKind, Faults};
use super::foretold::Calibration;
use super::guest::{Guest, GuestCopy};
use super::link::Lane;
use super::plan::Plan;
use super::processors::Processors;
use super::rng::Rng;
use super::sabotage::Sabotage;
use super::source::{SourceSide, SourceWork};
use super::target::{TargetSide, TargetWork};

/// One of the two hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    Source,
    Target,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Source => Self::Target,
            Self::Target => Self::Source,
        }
    }
}

/// Something that is due.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Event {
    /// A message arrives at a side; the end of the link where it has no bytes.
    ControlArrives(Side, Vec<u8>),
    /// A side notices that the control link is broken.
    ControlBreaks(Side),
    /// A frame arrives on a stream; the end of the stream where it has no bytes.
    FrameArrives(usize, Vec<u8>),
    /// A side notices that a stream is broken.
    StreamBreaks(Side, usize),
    /// A connection that is none of this migration's shows this frame.
    StrangerBinds(Vec<u8>),
    /// The target lands what has arrived on a stream.
    LandNext(usize),
    /// The source sends a stream's part of the round.
    SendPart(usize),
    /// A piece of work of the source is done.
    Source(SourceWork),
    /// A piece of work of the target is done.
    Target(TargetWork),
    /// A fault strikes.
    Strike(FaultKind),
    /// An operator cancels at a side.
    Cancel(Side),
}

/// What is next.
enum Due {
    Event,
    Timer(Side),
}

/// What happened, line by line, where somebody wants to read or compare it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) is_on: bool,
    pub(crate) lines: Vec<String>,
}

/// What outlives an attempt.
pub(crate) struct Estate {
    pub(crate) plan: Plan,
    pub(crate) sabotage: Sabotage,
    pub(crate) rng: Rng,
    pub(crate) agenda: Agenda<Event>,
    pub(crate) trace: Trace,
    pub(crate) findings: Findings,
    /// How often forecasts held.
    pub(crate) calibration: Calibration,
    pub(crate) guest: Guest,
    /// Names of the attempt before, which a stale stream still shows.
    pub(crate) before: (MigrationId, StreamSecret),
}

/// The checkers of one attempt.
#[derive(Default)]
pub(crate) struct Checks {
    pub(crate) agreement: AgreementChecker,
    pub(crate) custody: CustodyChecker,
    pub(crate) memory: MemoryChecker,
    pub(crate) ledger: LedgerChecker,
    pub(crate) progress: ProgressChecker,
}

/// The lanes between the hosts.
pub(crate) struct Lanes {
    /// Messages of the source.
    pub(crate) out: Lane,
    /// Messages of the target.
    pub(crate) back: Lane,
    /// Page streams.
    pub(crate) pages: Vec<Lane>,
}

/// One attempt.
pub(crate) struct World {
    pub(crate) estate: Estate,
    pub(crate) begun: Duration,
    pub(crate) faults: Faults,
    pub(crate) checks: Checks,
    pub(crate) lanes: Lanes,
    pub(crate) processors: Processors,
    pub(crate) source: SourceSide,
    pub(crate) target: TargetSide,
    /// The guest at the source; none once its host is gone.
    pub(crate) here: Option<GuestCopy>,
    /// The guest at the target, from its making on.
    pub(crate) there: Option<GuestCopy>,
    pub(crate) runs_here: bool,
    pub(crate) runs_there: bool,
}

impl World {
    /// The time now.
    pub(crate) const fn now(&self) -> Duration {
        self.estate.agenda.now()
    }

    /// The time now, as the machines know it.
    pub(crate) fn timestamp(&self) -> Timestamp {
        Timestamp::new(self.now().saturating_sub(self.begun))
    }

    /// A time up to `us` microseconds.
    pub(crate) fn some_time(&mut self, us: u64) -> Duration {
        Duration::from_nanos(self.estate.rng.within(1000, us.max(1) * 1000))
    }

    pub(crate) fn after(&mut self, wait: Duration, event: Event) {
        self.estate.agenda.after(wait, event);
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.estate.trace.is_on {
            let line = format!("{:>12?} {}", self.estate.agenda.now(), line());
            self.estate.trace.lines.push(line);
        }
    }

    /// Plays the attempt until both machines have ended or are gone.
    pub(crate) fn play(&mut self) {
        let timed: Vec<_> = self.faults.timed().collect();
        for (kind, after) in timed {
            self.after(after, Event::Strike(kind));
        }
        self.drain_source();
        while !self.is_over() && self.goes_on() {
            let Some((at, due)) = self.next_due() else {
                self.estate
                    .findings
                    .add("progress", "nothing is due, and nobody has ended".into());
                break;
            };
            self.step(at, &due);
        }
        if self.estate.findings.is_empty() {
            self.check_end();
        }
    }

    /// Are both machines through?
    pub(crate) const fn is_over(&self) -> bool {
        !self.source.is_active() && !self.target.is_active()
    }

    /// Has no rule been broken yet, and is the attempt within its bound? What follows after that
    /// says nothing, and might not end.
    fn goes_on(&mut self) -> bool {
        let took = self.now().saturating_sub(self.begun);
        self.checks.progress.look(took, &mut self.estate.findings);
        self.estate.findings.is_empty()
    }

    /// Lets `wait` pass, with all that is due meanwhile. Called from within the work of a stream,
    /// so that everything else goes on while pages are read and sent.
    pub(crate) fn pass(&mut self, wait: Duration) {
        let until = self.now() + wait;
        while let Some((at, due)) = self.next_due().filter(|(at, _)| *at <= until)
            && self.goes_on()
        {
            self.step(at, &due);
        }
        self.advance(until);
    }

    /// Lets time pass until something has happened; says whether anything can.
    pub(crate) fn pass_one(&mut self) -> bool {
        let Some((at, due)) = self.next_due() else {
            return false;
        };
        self.step(at, &due);
        self.goes_on()
    }

    fn next_due(&self) -> Option<(Duration, Due)> {
        let event = self.estate.agenda.next_at().map(|at| (at, Due::Event));
        let source = self
            .timer_at(self.source.timer())
            .map(|at| (at, Due::Timer(Side::Source)));
        let target = self
            .timer_at(self.target.timer())
            .map(|at| (at, Due::Timer(Side::Target)));
        // Of what is due at one time the first of these comes first.
        [event, source, target]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }

    fn timer_at(&self, timer: Option<Timestamp>) -> Option<Duration> {
        timer.map(|timer| (self.begun + timer.since_start()).max(self.now()))
    }

    fn step(&mut self, at: Duration, due: &Due) {
        self.advance(at);
        match due {
            Due::Event => {
                if let Some(event) = self.estate.agenda.pop() {
                    self.happen(event);
                }
            }
            Due::Timer(Side::Source) => {
                let fired = self.timestamp().since_start();
                self.tell_source(limosa_session::source::Input::Timeout);
                let next = self.source.timer().map(Timestamp::since_start);
                self.checks
                    .progress
                    .timer_fires(fired, next, &mut self.estate.findings);
            }
            Due::Timer(Side::Target) => {
                let fired = self.timestamp().since_start();
                self.tell_target(limosa_session::target::Input::Timeout);
                let next = self.target.timer().map(Timestamp::since_start);
                self.checks
                    .progress
                    .timer_fires(fired, next, &mut self.estate.findings);
            }
        }
        self.look();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ControlArrives(to, bytes) => self.control_arrives(to, bytes),
            Event::ControlBreaks(side) => self.lose_control(side),
            Event::FrameArrives(stream, frame) => self.frame_arrives(stream, frame),
            Event::StreamBreaks(side, stream) => self.lose_stream(side, stream),
            Event::StrangerBinds(frame) => self.stranger_binds(&frame),
            Event::LandNext(stream) => self.land_next(stream),
            Event::SendPart(stream) => self.send_part(stream),
            Event::Source(work) => self.do_source(work),
            Event::Target(work) => self.do_target(work),
            Event::Strike(kind) => self.strike(kind),
            Event::Cancel(side) => self.cancel(side),
        }
    }

    /// Lets the guest run until `now`, wherever it does.
    fn advance(&mut self, now: Duration) {
        let Estate {
            agenda,
            guest,
            rng,
            sabotage,
            ..
        } = &mut self.estate;
        match (&self.here, &self.there) {
            (Some(here), _) if self.runs_here => guest.run(here, now),
            (_, Some(there)) if self.runs_there => guest.run(there, now),
            (Some(here), None | Some(_)) => {
                guest.sleep(now);
                if *sabotage == Sabotage::WritesWhilePaused && rng.chance(20) {
                    guest.write_once(here);
                }
            }
            _ => guest.sleep(now),
        }
        agenda.advance(now);
    }

    /// Who may run the guest, and who does.
    pub(crate) fn holds(&self) -> Holds {
        Holds {
            source: self.source.is_alive.then(|| self.source.machine.custody()),
            target: self.target.is_alive.then(|| self.target.machine.custody()),
            runs_here: self.runs_here,
            runs_there: self.runs_there,
        }
    }

    /// Lets the custody checker look.
    pub(crate) fn look(&mut self) {
        let holds = self.holds();
        self.checks.custody.look(holds, &mut self.estate.findings);
    }

    fn check_end(&mut self) {
        self.look();
        let findings = &mut self.estate.findings;
        let source = self
            .source
            .outcome
            .as_ref()
            .filter(|_| self.source.is_alive);
        let target = self
            .target
            .outcome
            .as_ref()
            .filter(|_| self.target.is_alive);
        let runs_here = self.runs_here;
        self.checks.custody.end(
            Ends {
                source,
                target,
                runs_here,
            },
            findings,
        );
        let completed = matches!(
            self.target.outcome,
            Some(limosa_session::Outcome::Completed)
        );
        self.checks.ledger.end(completed, findings);
        if source.is_some() && self.source.is_recording {
            self.checks.progress.records_on(findings);
        }
        if !self.faults.have_harmed() {
            self.checks.progress.undisturbed(source, findings);
        }
    }
}
