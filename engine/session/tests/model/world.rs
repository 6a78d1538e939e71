//! Two hosts, a link and a guest: the real machines, and drivers that do what they want at once.
//! Who runs the guest is told by the hosts' deeds, not by what the machines believe.

use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use limosa_session::source::{Action as SourceAction, Input as SourceInput};
use limosa_session::target::{Action as TargetAction, Input as TargetInput};
use limosa_session::{Harvest, Outcome, RoundReport, Source, Target, Timestamp};
use limosa_wire::{EncodingCounts, Message, Verdict};

use super::machines::{fitting_host, offered_cpu, source, target, unfit_host};
use super::{Bug, Hosts};

/// Later than every deadline and every silence that starts at the beginning.
const FAR: Duration = Duration::from_secs(5 * 60 * 60);

/// What one host does with the guest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Guest {
    /// There is none here.
    None,
    Runs,
    Paused,
    /// It was here, and its host let it go for good or died.
    Gone,
}

/// Can the target's host give the guest's processor, in truth?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Fit {
    Fits,
    Unfit,
}

/// What became of the page streams, and of the words that must come before them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pages {
    /// The source has said that it agrees.
    agreed: bool,
    /// The target has heard so.
    heard: bool,
    /// The source has opened its streams.
    pub(crate) opened: bool,
    /// The target has let them in.
    pub(crate) let_in: bool,
    /// One of them did so too early.
    pub(crate) too_early: bool,
}

impl Pages {
    const fn open(&mut self) {
        self.opened = true;
        self.too_early |= !self.agreed;
    }

    const fn let_in(&mut self) {
        self.let_in = true;
        self.too_early |= !self.heard;
    }
}

/// What travels on one direction of the control link.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Wire {
    Said(Message),
    /// The sender has closed its end.
    Closed,
}

/// One host.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Host<M, I> {
    pub(crate) machine: M,
    pub(crate) guest: Guest,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) is_dead: bool,
    /// Work that is under way, as the answers that it will give.
    pub(crate) work: Vec<I>,
    /// What the peer said and has not been heard.
    pub(crate) inbox: Vec<Wire>,
}

impl<M, I> Host<M, I> {
    const fn new(machine: M, guest: Guest) -> Self {
        Self {
            machine,
            guest,
            outcome: None,
            is_dead: false,
            work: Vec::new(),
            inbox: Vec::new(),
        }
    }

    pub(crate) const fn is_active(&self) -> bool {
        self.outcome.is_none() && !self.is_dead
    }

    /// Does the next message name the guest's processor?
    pub(crate) fn hears_of_a_cpu(&self) -> bool {
        self.inbox
            .first()
            .is_some_and(|wire| digest_of(&mut wire.clone()).is_some())
    }

    /// The next message names another one.
    pub(crate) fn hear_of_another(&mut self) {
        if let Some(digest) = self.inbox.first_mut().and_then(digest_of) {
            *digest = !*digest;
        }
    }

    pub(crate) fn dies(&mut self) {
        self.is_dead = true;
        if self.guest != Guest::None {
            self.guest = Guest::Gone;
        }
    }
}

/// Everything there is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct World {
    pub(crate) source: Host<Source, SourceInput>,
    pub(crate) target: Host<Target, TargetInput>,
    /// Nothing said from now on arrives; whether anybody notices is another matter.
    pub(crate) is_cut: bool,
    /// Has the guest ever run at the target?
    pub(crate) ran_there: bool,
    pub(crate) pages: Pages,
    /// Of the target's host.
    pub(crate) host: Fit,
    /// Faults that may still happen.
    pub(crate) faults_left: u8,
}

/// The digest of the guest's processor in a message.
const fn digest_of(wire: &mut Wire) -> Option<&mut u64> {
    match wire {
        Wire::Said(Message::Verdict(Verdict::Accepted { cpu_digest, .. })) => Some(cpu_digest),
        Wire::Said(Message::Agreed(said)) => Some(&mut said.cpu_digest),
        Wire::Said(Message::State(said)) => Some(&mut said.cpu_digest),
        Wire::Said(Message::Prepared(said)) => Some(&mut said.cpu_digest),
        _ => None,
    }
}

/// Feeds text to a hash: the machines can be printed and compared, but not hashed.
struct IntoHash<'a, H>(&'a mut H);

impl<H: Hasher> Write for IntoHash<'_, H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        write!(IntoHash(state), "{self:?}").expect("a hash takes every text");
    }
}

impl World {
    pub(crate) fn new(faults_left: u8, bug: Bug, hosts: Hosts) -> Self {
        let blind = matches!(bug, Bug::TargetJudgesNothing | Bug::NobodyJudges);
        let (host, believed) = match hosts {
            Hosts::Alike => (Fit::Fits, fitting_host()),
            Hosts::Unlike if blind => (Fit::Unfit, fitting_host()),
            Hosts::Unlike => (Fit::Unfit, unfit_host()),
        };
        let mut world = Self {
            source: Host::new(source(), Guest::Runs),
            target: Host::new(target(believed), Guest::None),
            is_cut: false,
            ran_there: false,
            pages: Pages::default(),
            host,
            faults_left,
        };
        world.drain_source(bug);
        world
    }

    pub(crate) fn tell_source(&mut self, input: SourceInput, bug: Bug) {
        let now = time_of(input == SourceInput::Timeout);
        if self.source.is_active() {
            self.source.machine.handle(input, now).unwrap();
            self.drain_source(bug);
        }
    }

    pub(crate) fn tell_target(&mut self, input: TargetInput, bug: Bug) {
        let now = time_of(input == TargetInput::Timeout);
        if bug == Bug::HearsAfterTheEnd
            && self.target.guest == Guest::Gone
            && matches!(input, TargetInput::Message(Message::HandOver(_)))
        {
            self.runs_there();
        }
        if self.target.is_active() {
            self.pages.heard |= matches!(input, TargetInput::Message(Message::Agreed(_)));
            self.target.machine.handle(input, now).unwrap();
            self.drain_target(bug);
        }
    }

    /// Is the target about to look at its host again?
    pub(crate) fn may_change(&self) -> bool {
        let looks = |work: &TargetInput| matches!(work, TargetInput::HostSurveyed(_));
        self.host == Fit::Fits && self.target.work.iter().any(looks)
    }

    pub(crate) fn change_host(&mut self, bug: Bug) {
        self.host = Fit::Unfit;
        for work in &mut self.target.work {
            if let TargetInput::HostSurveyed(host) = work
                && bug != Bug::TrustsItsHost
            {
                *host = unfit_host();
            }
        }
    }

    fn runs_there(&mut self) {
        self.target.guest = Guest::Runs;
        self.ran_there = true;
    }

    fn drain_source(&mut self, bug: Bug) {
        let mut answers = Vec::new();
        while let Some(action) = self.source.machine.poll_action() {
            let host = &mut self.source;
            match action {
                SourceAction::Send(message) => {
                    self.pages.agreed |= matches!(message, Message::Agreed(_));
                    self.post_to_target(Wire::Said(message));
                }
                SourceAction::CloseLink => self.post_to_target(Wire::Closed),
                SourceAction::OpenStreams { .. } => {
                    self.pages.open();
                    answers.push(SourceInput::StreamsOpened);
                }
                SourceAction::StartTracking => answers.push(SourceInput::TrackingStarted),
                SourceAction::Rehearse => answers.push(SourceInput::Rehearsed(None)),
                SourceAction::Harvest => answers.push(SourceInput::Harvested(Harvest::default())),
                SourceAction::StartRound(plan) => {
                    let (frames, pages) = (vec![1], 1);
                    answers.push(SourceInput::RoundDone(RoundReport {
                        round: plan.round,
                        pages: EncodingCounts {
                            raw: pages,
                            ..EncodingCounts::default()
                        },
                        wire_bytes: 4096,
                        frames: frames.clone(),
                        elapsed: Duration::from_millis(1),
                        idle: Duration::ZERO,
                    }));
                    // The streams bring it whenever they like.
                    let round = plan.round;
                    self.target.work.push(TargetInput::RoundLanded {
                        round,
                        frames,
                        pages,
                    });
                }
                SourceAction::DescribeGuest => {
                    answers.push(SourceInput::GuestDescribed(offered_cpu()));
                }
                SourceAction::PauseGuest => {
                    if bug != Bug::NeverPauses {
                        host.guest = Guest::Paused;
                    }
                    answers.push(SourceInput::GuestPaused);
                }
                SourceAction::ExportState => {
                    answers.push(SourceInput::StateExported(Vec::new()));
                }
                SourceAction::ResumeGuest => {
                    if bug != Bug::ForgetsToResume {
                        host.guest = Guest::Runs;
                    }
                }
                SourceAction::ReleaseGuest => host.guest = Guest::Gone,
                SourceAction::StopTracking | SourceAction::Slow(_) | SourceAction::Observe(_) => {}
                SourceAction::Finished(outcome) => {
                    if bug == Bug::ResumesInTransit && matches!(outcome, Outcome::InTransit(_)) {
                        host.guest = Guest::Runs;
                    }
                    host.outcome = Some(outcome);
                    host.work.clear();
                }
            }
        }
        if self.source.is_active() {
            self.source.work.extend(answers);
        }
    }

    fn drain_target(&mut self, bug: Bug) {
        let mut answers = Vec::new();
        while let Some(action) = self.target.machine.poll_action() {
            let host = &mut self.target;
            match action {
                TargetAction::Send(mut message) => {
                    self.say_the_truth(&mut message, bug);
                    if bug == Bug::RunsOncePrepared && matches!(message, Message::Prepared(_)) {
                        self.runs_there();
                    }
                    self.post_to_source(Wire::Said(message));
                }
                TargetAction::CloseLink => self.post_to_source(Wire::Closed),
                TargetAction::PrepareGuest(_) => {
                    host.guest = Guest::Paused;
                    answers.push(TargetInput::GuestPrepared);
                }
                TargetAction::AcceptStreams { .. } => {
                    self.pages.let_in();
                    answers.push(TargetInput::StreamsAccepted);
                }
                TargetAction::SurveyHost => answers.push(TargetInput::HostSurveyed(fitting_host())),
                TargetAction::RestoreState(_) => answers.push(TargetInput::StateRestored),
                TargetAction::CheckLedger => answers.push(TargetInput::LedgerComplete),
                TargetAction::ResumeGuest => {
                    // Its vCPUs run from some moment on before the machine hears of it.
                    self.runs_there();
                    answers.push(TargetInput::GuestResumed);
                }
                TargetAction::DropGuest => host.guest = Guest::Gone,
                TargetAction::ConfirmRound { .. } | TargetAction::Observe(_) => {}
                TargetAction::Finished(outcome) => {
                    host.outcome = Some(outcome);
                    host.work.clear();
                }
            }
        }
        if self.target.is_active() {
            self.target.work.extend(answers);
        }
    }

    /// What an accepting target says of its host is true, unless nobody looks at it anyway.
    fn say_the_truth(&mut self, message: &mut Message, bug: Bug) {
        if let Message::Verdict(Verdict::Accepted { host, .. }) = message {
            let blind = matches!(bug, Bug::SourceJudgesNothing | Bug::NobodyJudges);
            if self.host == Fit::Unfit && !blind {
                *host = unfit_host().encode();
            }
            if bug == Bug::LetsInEarly {
                self.pages.let_in();
            }
        }
    }

    fn post_to_target(&mut self, wire: Wire) {
        if !self.is_cut && !self.target.is_dead {
            self.target.inbox.push(wire);
        }
    }

    fn post_to_source(&mut self, wire: Wire) {
        if !self.is_cut && !self.source.is_dead {
            self.source.inbox.push(wire);
        }
    }
}

const fn time_of(is_timeout: bool) -> Timestamp {
    Timestamp::new(match is_timeout {
        true => FAR,
        false => Duration::ZERO,
    })
}
