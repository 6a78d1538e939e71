//! A small driver for tests: both machines back to back over queues, with a clock that is a number.
//! It moves no pages, and does every piece of work at once or when it is told to.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test file uses its own part of it"
)]

use std::collections::VecDeque;
use std::time::Duration;

use limosa_compat::HostCpu;
use limosa_pages::PageCount;
use limosa_session::source::{self, Action as SourceAction, Input as SourceInput};
use limosa_session::target::{self, Action as TargetAction, Input as TargetInput};
use limosa_session::{Custody, Outcome, RoundPlan, RoundReport, Source, Stage, Target, Timestamp};
use limosa_wire::{EncodingCounts, Message, Round, RoundKind};

pub(crate) mod blame;
pub(crate) mod fixture;
pub(crate) mod steps;

pub(crate) use fixture::{PAGES, Plan, section, state};

/// What travels on one direction of the control link.
#[derive(Clone, Debug)]
pub(crate) enum Wire {
    /// A message.
    Said(Message),
    /// The sender has closed its end.
    Closed,
}

/// How a link ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// Both ends are told.
    Told,
    /// Nobody is told: the peer is silent from now on.
    Silent,
}

/// Both sides of one migration, and all that is between them.
pub(crate) struct Pair {
    pub(crate) source: Source,
    pub(crate) target: Target,
    pub(crate) now: Duration,
    pub(crate) to_source: VecDeque<Wire>,
    pub(crate) to_target: VecDeque<Wire>,
    pub(crate) source_work: VecDeque<SourceInput>,
    pub(crate) target_work: VecDeque<TargetInput>,
    /// Rounds whose barriers are on the streams.
    pub(crate) streams: VecDeque<TargetInput>,
    /// Pages that the harvests after the first round find; none once it is empty.
    pub(crate) dirty: VecDeque<u64>,
    /// Work of the source that is not done until `release`.
    pub(crate) hold_source: fn(&SourceInput) -> bool,
    /// Work of the target that is not done until `release`.
    pub(crate) hold_target: fn(&TargetInput) -> bool,
    pub(crate) held_source: VecDeque<SourceInput>,
    pub(crate) held_target: VecDeque<TargetInput>,
    pub(crate) source_did: Vec<SourceAction>,
    pub(crate) target_did: Vec<TargetAction>,
    pub(crate) source_runs: bool,
    pub(crate) target_runs: bool,
    pub(crate) given_away: bool,
    pub(crate) cut: Option<Cut>,
    /// The processor that the guest sees, as it says when it is asked again.
    pub(crate) cpu: Vec<u8>,
    /// What the target's host can give, as it finds when it looks again.
    pub(crate) host: HostCpu,
    stream_count: u16,
    /// Orders what could happen next; 0 takes it always in the same order.
    seed: u64,
}

impl Pair {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut pair = Self {
            source: plan.source(),
            target: plan.target(),
            now: Duration::ZERO,
            to_source: VecDeque::new(),
            to_target: VecDeque::new(),
            source_work: VecDeque::new(),
            target_work: VecDeque::new(),
            streams: VecDeque::new(),
            dirty: plan.dirty.iter().copied().collect(),
            hold_source: |_| false,
            hold_target: |_| false,
            held_source: VecDeque::new(),
            held_target: VecDeque::new(),
            source_did: Vec::new(),
            target_did: Vec::new(),
            source_runs: true,
            target_runs: false,
            given_away: false,
            cut: None,
            cpu: plan.offer.cpu.clone(),
            host: plan.policy.host.clone(),
            stream_count: 0,
            seed: plan.seed,
        };
        pair.drain();
        pair
    }

    pub(crate) fn clock(&self) -> Timestamp {
        Timestamp::new(self.now)
    }

    pub(crate) fn give_source(&mut self, input: SourceInput) {
        let now = self.clock();
        self.source.handle(input, now).expect("what was asked for");
        self.drain();
    }

    pub(crate) fn give_target(&mut self, input: TargetInput) {
        let now = self.clock();
        self.target.handle(input, now).expect("what was asked for");
        self.drain();
    }

    pub(crate) fn tell_source(&mut self, message: Message) {
        self.give_source(SourceInput::Message(message));
    }

    pub(crate) fn tell_target(&mut self, message: Message) {
        self.give_target(TargetInput::Message(message));
    }

    /// Cuts the link: what is on its way is lost, too.
    pub(crate) fn cut(&mut self, cut: Cut) {
        self.cut = Some(cut);
        self.to_source.clear();
        self.to_target.clear();
        self.streams.clear();
        if cut == Cut::Told {
            self.give_source(SourceInput::ControlLost("cut".into()));
            self.give_target(TargetInput::ControlLost("cut".into()));
        }
    }

    pub(crate) fn source_outcome(&self) -> Option<&Outcome> {
        self.source_did.iter().find_map(|action| match action {
            SourceAction::Finished(outcome) => Some(outcome),
            _ => None,
        })
    }

    pub(crate) fn target_outcome(&self) -> Option<&Outcome> {
        self.target_did.iter().find_map(|action| match action {
            TargetAction::Finished(outcome) => Some(outcome),
            _ => None,
        })
    }

    pub(crate) fn is_over(&self) -> bool {
        self.source.stage() == Stage::Finished && self.target.stage() == Stage::Finished
    }

    /// Carries out all actions of both sides.
    fn drain(&mut self) {
        while let Some(action) = self.source.poll_action() {
            self.do_source(&action);
            self.source_did.push(action);
        }
        while let Some(action) = self.target.poll_action() {
            self.do_target(&action);
            self.target_did.push(action);
        }
        assert!(
            !(self.source_runs && self.target_runs),
            "two running copies"
        );
    }

    fn do_source(&mut self, action: &source::Action) {
        match action {
            SourceAction::Send(message) => {
                if matches!(message, Message::HandOver(_)) {
                    assert_eq!(self.source.custody(), Custody::InTransit);
                    self.given_away = true;
                }
                let said = Wire::Said(message.clone());
                self.to_target.extend(self.cut.is_none().then_some(said));
            }
            SourceAction::CloseLink => {
                let closed = self.cut.is_none().then_some(Wire::Closed);
                self.to_target.extend(closed);
            }
            SourceAction::ResumeGuest => {
                assert!(
                    !self.given_away && !self.source_runs,
                    "resumed out of place"
                );
                self.source_runs = true;
            }
            SourceAction::ReleaseGuest => assert!(self.given_away && !self.source_runs),
            _ => {}
        }
        let answer = self.answer_of_source(action);
        let held = answer.as_ref().is_some_and(self.hold_source);
        match held {
            true => self.held_source.extend(answer),
            false => self.source_work.extend(answer),
        }
    }

    fn answer_of_source(&mut self, action: &source::Action) -> Option<SourceInput> {
        Some(match action {
            SourceAction::OpenStreams { stream_count, .. } => {
                self.stream_count = *stream_count;
                SourceInput::StreamsOpened
            }
            SourceAction::StartTracking => SourceInput::TrackingStarted,
            SourceAction::Rehearse => SourceInput::Rehearsed(None),
            SourceAction::Harvest => {
                let began = self.source_did.iter().any(is_round_start);
                let found = began.then(|| self.dirty.pop_front()).flatten();
                SourceInput::Harvested(PageCount::new(found.unwrap_or(0)).into())
            }
            SourceAction::StartRound(plan) => SourceInput::RoundDone(self.report(*plan)),
            SourceAction::DescribeGuest => SourceInput::GuestDescribed(self.cpu.clone()),
            SourceAction::PauseGuest => {
                self.source_runs = false;
                SourceInput::GuestPaused
            }
            SourceAction::ExportState => SourceInput::StateExported(state()),
            _ => return None,
        })
    }

    /// Each stream takes ten frames, and each page goes as it is.
    pub(crate) fn report(&self, plan: RoundPlan) -> RoundReport {
        let raw = match plan.kind {
            RoundKind::Full => PAGES,
            RoundKind::Live | RoundKind::Final => 7,
        };
        RoundReport {
            round: plan.round,
            pages: EncodingCounts {
                raw,
                ..EncodingCounts::default()
            },
            wire_bytes: raw * 4096,
            frames: vec![10; usize::from(self.stream_count)],
            elapsed: Duration::from_millis(10),
            idle: Duration::ZERO,
        }
    }

    fn do_target(&mut self, action: &target::Action) {
        let answer = match action {
            TargetAction::Send(message) => {
                let said = Wire::Said(message.clone());
                self.to_source.extend(self.cut.is_none().then_some(said));
                return;
            }
            TargetAction::CloseLink => {
                let closed = self.cut.is_none().then_some(Wire::Closed);
                return self.to_source.extend(closed);
            }
            TargetAction::DropGuest => {
                self.target_runs = false;
                return;
            }
            TargetAction::ResumeGuest => {
                assert!(self.given_away, "resumed before the hand-over");
                self.target_runs = true;
                TargetInput::GuestResumed
            }
            TargetAction::PrepareGuest(_) => TargetInput::GuestPrepared,
            TargetAction::AcceptStreams { .. } => TargetInput::StreamsAccepted,
            TargetAction::SurveyHost => TargetInput::HostSurveyed(self.host.clone()),
            TargetAction::RestoreState(_) => TargetInput::StateRestored,
            TargetAction::CheckLedger => TargetInput::LedgerComplete,
            _ => return,
        };
        match (self.hold_target)(&answer) {
            true => self.held_target.push_back(answer),
            false => self.target_work.push_back(answer),
        }
    }
}

fn is_round_start(action: &source::Action) -> bool {
    matches!(action, SourceAction::StartRound(_))
}

/// What lands at the target of a round that the source has sent.
pub(crate) fn landed(report: &RoundReport) -> TargetInput {
    TargetInput::RoundLanded {
        round: report.round,
        frames: report.frames.clone(),
        pages: report.pages.total(),
    }
}

/// The number of a round.
pub(crate) const fn round(number: u32) -> Round {
    Round::new(number)
}
