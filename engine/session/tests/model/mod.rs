//! The model: what may happen to the world at any time. What must hold whatever happens is in
//! `rules.rs`.

mod machines;
mod rules;
mod world;

use limosa_session::source::Input as SourceInput;
use limosa_session::target::Input as TargetInput;
use limosa_session::{FaultKind, LocalFault};
use limosa_wire::{DecodeError, DecodeFault, StreamIndex};
use stateright::{Model, Property};

use self::world::Wire;
pub(crate) use self::world::World;

/// A bug planted in a driver, to show that the model would find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bug {
    None,
    /// The source lets the guest run again where the outcome is in transit.
    ResumesInTransit,
    /// The source does not let the guest run again after a failure.
    ForgetsToResume,
    /// The source leaves the guest running.
    NeverPauses,
    /// The target lets the guest run once it is prepared.
    RunsOncePrepared,
    /// The target hears a hand-over after it has given up and dropped the guest.
    HearsAfterTheEnd,
    /// The target takes every guest for one that fits, and says truly what its host is.
    TargetJudgesNothing,
    /// The source takes every host for one that fits.
    SourceJudgesNothing,
    /// Neither looks.
    NobodyJudges,
    /// The target does not look at its host again.
    TrustsItsHost,
    /// The target lets page streams in with its own verdict.
    LetsInEarly,
}

/// What guest and target are to each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hosts {
    /// The guest can live on the target.
    Alike,
    /// It can't, and never could.
    Unlike,
}

/// A migration to which at most so many faults happen. Time-outs are no faults: they may come at
/// any time, as if a peer was slow.
pub(crate) struct Migration {
    pub(crate) faults: u8,
    pub(crate) bug: Bug,
    pub(crate) hosts: Hosts,
}

/// What may happen next.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Happening {
    SourceHears,
    TargetHears,
    SourceWorks(usize),
    TargetWorks(usize),
    SourceTimesOut,
    TargetTimesOut,
    /// What has been said and not heard is lost with everything that will be said.
    LinkBreaks,
    SourceSeesLink,
    TargetSeesLink,
    /// A message on its way is lost, though the link works on.
    SourceMisses,
    TargetMisses,
    /// A message comes twice.
    SourceHearsTwice,
    TargetHearsTwice,
    /// A message overtakes the one ahead of it.
    SourceHearsLater,
    TargetHearsLater,
    SourceHearsGarbage,
    TargetHearsGarbage,
    /// A message speaks of another processor than its sender said.
    SourceHearsOfAnother,
    TargetHearsOfAnother,
    /// The target's host can't give the guest's processor any more.
    HostChanges,
    SourceLosesStream,
    TargetLosesStream,
    TargetGetsBadPages,
    SourceFails(usize),
    TargetFails(usize),
    SourceCancelled,
    TargetCancelled,
    SourceDies,
    TargetDies,
}

impl Happening {
    /// Does it use up one of the faults?
    const fn is_fault(self) -> bool {
        !matches!(
            self,
            Self::SourceHears
                | Self::TargetHears
                | Self::SourceWorks(_)
                | Self::TargetWorks(_)
                | Self::SourceTimesOut
                | Self::TargetTimesOut
                | Self::SourceSeesLink
                | Self::TargetSeesLink
        )
    }
}

impl Model for Migration {
    type State = World;
    type Action = Happening;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self.faults, self.bug, self.hosts)]
    }

    fn actions(&self, world: &World, out: &mut Vec<Happening>) {
        use Happening as H;
        let World { source, target, .. } = world;
        if source.is_active() {
            out.extend((!source.inbox.is_empty()).then_some(H::SourceHears));
            out.extend((0..source.work.len()).map(H::SourceWorks));
            out.push(H::SourceTimesOut);
            out.extend(world.is_cut.then_some(H::SourceSeesLink));
        }
        // A target that has ended still has a socket for a while.
        out.extend((!target.is_dead && !target.inbox.is_empty()).then_some(H::TargetHears));
        if target.is_active() {
            out.extend((0..target.work.len()).map(H::TargetWorks));
            out.push(H::TargetTimesOut);
            out.extend(world.is_cut.then_some(H::TargetSeesLink));
        }
        if world.faults_left == 0 {
            return;
        }
        if source.is_active() {
            out.extend([H::SourceCancelled, H::SourceDies]);
            out.extend([H::SourceHearsGarbage, H::SourceLosesStream]);
            out.extend((source.inbox.len() > 1).then_some(H::SourceHearsLater));
            out.extend((0..source.work.len()).map(H::SourceFails));
            if matches!(source.inbox.first(), Some(Wire::Said(_))) {
                out.extend([H::SourceMisses, H::SourceHearsTwice]);
            }
            out.extend(source.hears_of_a_cpu().then_some(H::SourceHearsOfAnother));
        }
        if target.is_active() {
            out.extend([H::TargetCancelled, H::TargetDies]);
            out.extend([H::TargetHearsGarbage, H::TargetLosesStream]);
            out.push(H::TargetGetsBadPages);
            out.extend((target.inbox.len() > 1).then_some(H::TargetHearsLater));
            out.extend((0..target.work.len()).map(H::TargetFails));
            if matches!(target.inbox.first(), Some(Wire::Said(_))) {
                out.extend([H::TargetMisses, H::TargetHearsTwice]);
            }
            out.extend(target.hears_of_a_cpu().then_some(H::TargetHearsOfAnother));
            out.extend(world.may_change().then_some(H::HostChanges));
        }
        out.extend((!world.is_cut).then_some(H::LinkBreaks));
    }

    fn next_state(&self, before: &World, happening: Happening) -> Option<World> {
        let mut world = before.clone();
        world.faults_left -= u8::from(happening.is_fault());
        world.happens(happening, self.bug);
        // A late answer, or a time-out of which nothing is due, changes nothing.
        (world != *before).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        match self.hosts {
            Hosts::Alike => rules::of_alike_hosts(),
            Hosts::Unlike => rules::of_unlike_hosts(),
        }
    }
}

impl World {
    fn happens(&mut self, happening: Happening, bug: Bug) {
        use Happening as H;
        match happening {
            H::SourceHears => {
                let input = match self.source.inbox.remove(0) {
                    Wire::Said(message) => SourceInput::Message(message),
                    Wire::Closed => SourceInput::ControlLost("closed".into()),
                };
                self.tell_source(input, bug);
            }
            H::TargetHears => {
                let input = match self.target.inbox.remove(0) {
                    Wire::Said(message) => TargetInput::Message(message),
                    Wire::Closed => TargetInput::ControlLost("closed".into()),
                };
                self.tell_target(input, bug);
            }
            H::SourceWorks(index) => {
                let input = self.source.work.remove(index);
                self.tell_source(input, bug);
            }
            H::TargetWorks(index) => {
                let input = self.target.work.remove(index);
                self.tell_target(input, bug);
            }
            H::SourceTimesOut => self.tell_source(SourceInput::Timeout, bug),
            H::TargetTimesOut => self.tell_target(TargetInput::Timeout, bug),
            H::LinkBreaks => {
                self.is_cut = true;
                self.source.inbox.clear();
                self.target.inbox.clear();
            }
            H::SourceSeesLink => self.tell_source(SourceInput::ControlLost("cut".into()), bug),
            H::TargetSeesLink => self.tell_target(TargetInput::ControlLost("cut".into()), bug),
            H::SourceMisses => drop(self.source.inbox.remove(0)),
            H::TargetMisses => drop(self.target.inbox.remove(0)),
            H::SourceHearsTwice => self.source.inbox.insert(0, self.source.inbox[0].clone()),
            H::TargetHearsTwice => self.target.inbox.insert(0, self.target.inbox[0].clone()),
            H::SourceHearsLater => self.source.inbox.swap(0, 1),
            H::TargetHearsLater => self.target.inbox.swap(0, 1),
            H::SourceHearsGarbage => self.tell_source(SourceInput::Garbage(garbage()), bug),
            H::TargetHearsGarbage => self.tell_target(TargetInput::Garbage(garbage()), bug),
            H::SourceHearsOfAnother => self.source.hear_of_another(),
            H::TargetHearsOfAnother => self.target.hear_of_another(),
            H::HostChanges => self.change_host(bug),
            H::SourceLosesStream => {
                let stream = StreamIndex::new(0);
                self.tell_source(SourceInput::StreamLost(stream, "cut".into()), bug);
            }
            H::TargetLosesStream => {
                let stream = StreamIndex::new(0);
                self.tell_target(TargetInput::StreamLost(stream, "cut".into()), bug);
            }
            H::TargetGetsBadPages => self.tell_target(TargetInput::BadPages("bad".into()), bug),
            H::SourceFails(index) => {
                self.source.work.remove(index);
                self.tell_source(SourceInput::LocalFailure(fault()), bug);
            }
            H::TargetFails(index) => {
                self.target.work.remove(index);
                self.tell_target(TargetInput::LocalFailure(fault()), bug);
            }
            H::SourceCancelled => self.tell_source(SourceInput::Cancelled, bug),
            H::TargetCancelled => self.tell_target(TargetInput::Cancelled, bug),
            H::SourceDies => self.source.dies(),
            H::TargetDies => self.target.dies(),
        }
    }
}

fn garbage() -> DecodeError {
    DecodeError {
        what: DecodeFault::Magic { found: 0 },
        offset: 0,
    }
}

fn fault() -> LocalFault {
    LocalFault {
        kind: FaultKind::Guest,
        text: "it failed".into(),
    }
}
