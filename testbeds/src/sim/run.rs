//! A run: one guest, some migrations, each tried until it succeeds. What happens within an attempt
//! is `world.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use limosa_pages::MemoryMap;
use limosa_pipeline::{Codec, PackConfig, ZstdLevel};
use limosa_session::{Outcome, SessionError, Source, Target, TargetPolicy, Timestamp};
use limosa_wire::{EncodingSet, MigrationId, Offer, PageEncoding, StreamSecret};

use super::checkers::{Findings, Violation};
use super::clock::Agenda;
use super::faults::{FaultKind, Faults};
use super::foretold::Calibration;
use super::guest::{Guest, GuestCopy};
use super::link::Lane;
use super::memory::SimMemory;
use super::plan::{Plan, PlanError};
use super::processors::Processors;
use super::rng::Rng;
use super::sabotage::Sabotage;
use super::source::{SourceSide, books_kind};
use super::target::TargetSide;
use super::world::{Checks, Estate, Lanes, Trace, World};

/// How an attempt ended, as an operator would count it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ending {
    /// The guest runs at the target, and both sides know.
    Completed,
    /// The target said no.
    Refused,
    /// An operator cancelled it at this side or that; the guest stayed.
    Cancelled,
    /// The guest wrote too fast; it stayed.
    NotConverging,
    /// A link broke; the guest stayed.
    LinkLost,
    /// The peer was silent or too slow; the guest stayed.
    TimedOut,
    /// The peer gave up; the guest stayed.
    PeerFailed,
    /// The peer sent what it must not; the guest stayed.
    PeerMisbehaved,
    /// Something failed at the source; the guest stayed.
    LocalFailure,
    /// In transit for the source; the guest ran at the target.
    InTransitThere,
    /// In transit for the source; the target had not got it, and the operator let it run on here.
    InTransitBack,
    /// The source's host was lost after the hand-over; the guest runs at the target.
    SourceLostAfter,
    /// The guest was lost with the host that had it.
    GuestLost,
}

impl Ending {
    /// Every ending.
    pub const ALL: [Self; 13] = [
        Self::Completed,
        Self::Refused,
        Self::Cancelled,
        Self::NotConverging,
        Self::LinkLost,
        Self::TimedOut,
        Self::PeerFailed,
        Self::PeerMisbehaved,
        Self::LocalFailure,
        Self::InTransitThere,
        Self::InTransitBack,
        Self::SourceLostAfter,
        Self::GuestLost,
    ];

    fn of_failure(error: &SessionError) -> Self {
        match error {
            SessionError::PeerMisbehaved(_) => Self::PeerMisbehaved,
            SessionError::PeerFailed { .. } => Self::PeerFailed,
            SessionError::PeerSilent { .. } | SessionError::TimedOut { .. } => Self::TimedOut,
            SessionError::LinkLost(_) => Self::LinkLost,
            SessionError::NotConverging(_) => Self::NotConverging,
            SessionError::Cancelled => Self::Cancelled,
            SessionError::PeerIncompatible(_) => Self::Refused,
            _ => Self::LocalFailure,
        }
    }
}

/// How often something happened, over many runs.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Attempts by their ending.
    pub endings: BTreeMap<Ending, u64>,
    /// How often forecasts held.
    pub calibration: Calibration,
    /// Faults that took effect.
    pub faults: BTreeMap<FaultKind, u64>,
}

impl Tally {
    /// Adds what happened in a run.
    pub fn add(&mut self, run: &Run) {
        self.calibration.merge(&run.calibration);
        for ending in &run.endings {
            *self.endings.entry(*ending).or_default() += 1;
        }
        for fault in &run.faults {
            *self.faults.entry(*fault).or_default() += 1;
        }
    }

    /// Adds another tally.
    pub fn merge(&mut self, other: &Self) {
        self.calibration.merge(&other.calibration);
        for (ending, count) in &other.endings {
            *self.endings.entry(*ending).or_default() += count;
        }
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (ending, count) in &self.endings {
            writeln!(f, "{count:>8} {ending:?}")?;
        }
        let faults: Vec<_> = self
            .faults
            .iter()
            .map(|(kind, n)| format!("{kind:?} {n}"))
            .collect();
        let Calibration { left, downtime } = self.calibration;
        writeln!(f, "  foretold: time left {left}, downtime {downtime}")?;
        write!(f, "  faults: {}", faults.join(", "))
    }
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Run {
    /// Each attempt's ending, in order.
    pub endings: Vec<Ending>,
    /// The faults that took effect.
    pub faults: Vec<FaultKind>,
    /// How often forecasts held, of attempts in which nothing went wrong.
    pub calibration: Calibration,
    /// Simulated time.
    pub took: Duration,
    /// Broken rules; none in a run that is as it should be.
    pub violations: Vec<Violation>,
    /// What happened, line by line, where it was asked for.
    pub trace: Vec<String>,
}

/// Whether a run keeps its trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracing {
    /// It does, for reading or comparing.
    On,
    /// It does not, for speed.
    Off,
}

/// Plays `plan` as `seed` has it, with a planted bug unless `sabotage` is `None`. The same
/// arguments play the same run.
///
/// # Errors
/// A plan that can't be played.
pub fn play(
    plan: &Plan,
    seed: u64,
    sabotage: Sabotage,
    tracing: Tracing,
) -> Result<Run, PlanError> {
    let mut rng = Rng::new(seed);
    let map = plan.guest.map(&mut rng)?;
    let habits = plan.guest.habits(&mut rng);
    let mut guest = Guest::new(&map, habits, rng.fork(), sabotage);
    let mut here = GuestCopy::new(SimMemory::new(&map)?, &map, sabotage);
    guest.boot(&here);
    let hops = plan.hops.draw(&mut rng);
    let before = (
        MigrationId::new(rng.bytes()),
        StreamSecret::new(rng.bytes()),
    );
    let is_on = tracing == Tracing::On;
    let mut estate = Estate {
        plan: plan.clone(),
        sabotage,
        rng,
        agenda: Agenda::default(),
        trace: Trace {
            is_on,
            lines: Vec::new(),
        },
        findings: Findings::default(),
        calibration: Calibration::default(),
        guest,
        before,
    };
    let (mut endings, mut faults) = (Vec::new(), Vec::new());
    let (mut hop, mut attempt) = (0, 0);
    while hop < hops && estate.findings.is_empty() {
        let is_disturbed = attempt < plan.disturbed_attempts;
        let drawn = if is_disturbed {
            Faults::draw(plan, &mut estate.rng)
        } else {
            Faults::default()
        };
        let mut world = begin(estate, here, drawn, &map)?;
        world.play();
        faults.extend_from_slice(world.faults.struck());
        let end = settle(world);
        estate = end.estate;
        endings.push(end.ending);
        let Some(copy) = end.guest else { break };
        here = copy;
        (hop, attempt) = if end.has_moved {
            (hop + 1, 0)
        } else {
            (hop, attempt + 1)
        };
        if attempt > plan.disturbed_attempts {
            // An undisturbed attempt failed: either a rule is broken, or the guest is too busy.
            break;
        }
    }
    Ok(Run {
        endings,
        faults,
        calibration: estate.calibration,
        took: estate.agenda.now(),
        violations: estate.findings.violations().to_vec(),
        trace: estate.trace.lines,
    })
}

/// Makes both sides of an attempt.
fn begin(
    mut estate: Estate,
    here: GuestCopy,
    mut faults: Faults,
    map: &MemoryMap,
) -> Result<World, PlanError> {
    estate.agenda.clear();
    let Estate { rng, plan, .. } = &mut estate;
    let migration_id = MigrationId::new(rng.bytes());
    let secret = StreamSecret::new(rng.bytes());
    let start = Timestamp::default();
    let processors = Processors::new()?;
    let wanted = plan.link.streams.draw(rng);
    let mut config = plan.session.config(wanted, rng);
    config.encodings = some_encodings(rng);
    let source = Source::new(
        config,
        migration_id,
        offer(map, &processors),
        "simulation".into(),
        start,
    );
    let mut config = plan.session.config(wanted, rng);
    config.encodings = some_encodings(rng);
    let stream_count_max = plan.link.streams.draw(rng) as u16;
    let refuses = faults.takes(FaultKind::RefuseOffer);
    let machine = if refuses { "another" } else { MACHINE };
    let policy = policy(map, stream_count_max, machine, &processors);
    let target = Target::new(config, policy, secret, "simulation".into(), start);
    let zstd = Codec::Zstd(ZstdLevel::MIN);
    let codecs = [Codec::None, Codec::Lz4, zstd, Codec::Delta];
    let codec = rng.pick(&codecs).unwrap_or_default();
    let pack = PackConfig::new(codec, EncodingSet::ALL);
    let lane = |rng: &mut Rng| Lane::new(plan.link.shape(rng), rng.fork());
    let lanes = Lanes {
        out: lane(rng),
        back: lane(rng),
        pages: Vec::new(),
    };
    let mut world = World {
        begun: estate.agenda.now(),
        estate,
        faults,
        checks: Checks::default(),
        lanes,
        processors,
        source: SourceSide::new(source, migration_id, pack, map),
        target: TargetSide::new(target, secret),
        here: Some(here),
        there: None,
        runs_here: true,
        runs_there: false,
    };
    world.note(|| format!("=== migration {migration_id}"));
    Ok(world)
}

const MACHINE: &str = "simulated";

fn some_encodings(rng: &mut Rng) -> EncodingSet {
    let less = rng.pick(&[
        None,
        None,
        Some(PageEncoding::Absent),
        Some(PageEncoding::Lz4),
        Some(PageEncoding::Zstd),
        Some(PageEncoding::Delta),
        Some(PageEncoding::Constant),
    ]);
    less.flatten()
        .map_or(EncodingSet::ALL, |less| EncodingSet::ALL.without(less))
}

fn offer(map: &MemoryMap, processors: &Processors) -> Offer {
    Offer {
        cpu: processors.guest.clone(),
        map: map.clone(),
        vcpu_count: 1,
        sections: vec![books_kind()],
        stream_count: 1,
        encodings: EncodingSet::ALL,
        machine: MACHINE.into(),
    }
}

fn policy(
    map: &MemoryMap,
    stream_count_max: u16,
    machine: &str,
    processors: &Processors,
) -> TargetPolicy {
    TargetPolicy {
        host: processors.host.clone(),
        machine: machine.into(),
        memory_bytes_max: map.page_count().bytes(),
        vcpu_count_max: 1,
        stream_count_max,
        sections: vec![books_kind()],
    }
}

struct Settled {
    estate: Estate,
    ending: Ending,
    /// The guest, where it is now; none where it is lost.
    guest: Option<GuestCopy>,
    has_moved: bool,
}

/// What an operator makes of an attempt that has ended on both sides: a guest in transit is looked
/// for at the target first, and only if it is not there, and can't come to be, it runs on here.
fn settle(mut world: World) -> Settled {
    let ending = ending_of(&world);
    world.estate.before = (world.source.migration_id, world.target.secret);
    let (here, there) = (world.here.take(), world.there.take());
    let (guest, has_moved) = match ending {
        Ending::Completed | Ending::InTransitThere | Ending::SourceLostAfter => (there, true),
        Ending::GuestLost => (None, false),
        Ending::InTransitBack => {
            if let Some(here) = &here {
                let findings = &mut world.estate.findings;
                world.checks.memory.resumes_here(&here.memory, findings);
            }
            (here, false)
        }
        _ => (here, false),
    };
    let hosts_live = world.source.is_alive && world.target.is_alive;
    if ending == Ending::GuestLost && hosts_live && world.estate.findings.is_empty() {
        world.checks.progress.guest_gone(&mut world.estate.findings);
    }
    world.note(|| format!("=== {ending:?}"));
    Settled {
        estate: world.estate,
        ending,
        guest,
        has_moved,
    }
}

fn ending_of(world: &World) -> Ending {
    let source = &world.source;
    match &source.outcome {
        _ if !source.is_alive && world.runs_there => Ending::SourceLostAfter,
        _ if !source.is_alive => Ending::GuestLost,
        Some(Outcome::Completed) if world.runs_there => Ending::Completed,
        Some(Outcome::InTransit(_)) if world.runs_there => Ending::InTransitThere,
        Some(Outcome::InTransit(_)) if !world.checks.custody.has_run_there() => {
            Ending::InTransitBack
        }
        Some(Outcome::Refused(_)) => Ending::Refused,
        Some(Outcome::Failed(error)) => Ending::of_failure(error),
        Some(Outcome::Completed | Outcome::InTransit(_)) | None => Ending::GuestLost,
    }
}
