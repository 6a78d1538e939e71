//! What came of a run: both sides' figures and the proofs, put together.

use std::time::Duration;

use anyhow::Result;

use crate::child::Worker;
use crate::protocol::{
    Answer, CpuFacts, GuestSight, MarksNs, MoveFigures, Order, SourceSide, TargetSide,
};
use crate::report::{
    BothSides, Check, Compat, CpuSeconds, Downtime, Quantiles, Run, RunOutcome, Tracking, Verified,
};
use crate::switchover::{Switchover, quantiles_of};
use crate::worker::READS_ANOTHER;

/// Longest time for a guest's check of all its memory, and for a digest of it.
const CHECK_MAX: Duration = Duration::from_secs(300);
/// Longest time for a guest's view of itself.
const SIGHT_MAX: Duration = Duration::from_secs(20);

/// The end of one move, both sides.
pub(crate) struct Move {
    pub(crate) source: SourceSide,
    /// None where the target did not live to tell.
    pub(crate) target: Option<TargetSide>,
}

impl Move {
    /// The moments of its switchover on both sides, which are empty where there were none.
    pub(crate) fn marks(&self) -> BothSides<MarksNs> {
        let source = self.source.figures.as_ref();
        BothSides {
            source: source.map_or_else(MarksNs::new, |figures| figures.switchover_ns.clone()),
            target: self
                .target
                .as_ref()
                .map_or_else(MarksNs::new, |target| target.switchover_ns.clone()),
        }
    }
}

/// Which proofs were asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proofs {
    /// The guest checks all its memory and counters.
    pub(crate) guest: bool,
    /// The digests of both sides' memory are compared.
    pub(crate) digest: bool,
}

/// Asks the guest, which is with `here`, what it saw and whether all its memory is right, and puts
/// everything together. How often it moved and how large it is, the caller adds; `hops` are the
/// moments of all its switchovers.
pub(crate) fn conclude(
    proofs: Proofs,
    (last, hops): (&Move, &[BothSides<MarksNs>]),
    cpu: CpuFacts,
    (here, there): (&mut Worker, &mut Worker),
) -> Result<Run> {
    let (source, target) = (&last.source, last.target.as_ref());
    let figures = source.figures.as_ref();
    let mut error = source.ending.error.clone();
    let runs_here = source.ending.custody != "in-transit";
    let sight = if runs_here {
        sight_of(here)?
    } else {
        GuestSight::default()
    };
    let (guest, processor) = if proofs.guest && runs_here {
        check_of(here, &mut error)?
    } else {
        (Check::Off, Check::Off)
    };
    let verified = Verified {
        guest,
        processor,
        digest: if proofs.digest && source.completed() {
            compare_digests(there, target, &mut error)?
        } else {
            Check::Off
        },
    };
    let pauses = Pauses::of(hops, &sight);
    let landed = |cpu_s| source.completed().then_some(cpu_s);
    Ok(Run {
        outcome: outcome_of(&source.ending.outcome),
        custody: source.ending.custody.clone(),
        error,
        reasons: source.ending.reasons.clone(),
        hops: 0,
        total_ms: figures.map(|figures| figures.total_ms),
        downtime_ms: Downtime {
            engine: figures.map(|figures| figures.downtime_ms),
            guest: sight.gap_ms.filter(|_| source.completed()),
        },
        stall_max_ms: source.stall_ms.as_ref().map(|stall| stall.max),
        stall_ms: source.stall_ms.clone(),
        work_share: None,
        guest_bytes: 0,
        content_bytes: figures.map(|figures| figures.content_bytes),
        wire_bytes: figures.map(|figures| figures.wire_bytes),
        stream_bytes: figures.map_or_else(Vec::new, |figures| figures.stream_bytes.clone()),
        pages: figures.map(|figures| figures.pages),
        throughput_gib_s: None,
        ratio_to_sockets: None,
        cpu_s: CpuSeconds {
            source: source.cpu_s,
            target: target.map(|target| target.cpu_s),
            vcpu_source: source.vcpu_cpu_s,
            vcpu_target: landed(sight.vcpu_cpu_s),
        },
        overhead_bytes: BothSides {
            source: figures.map(|figures| figures.overhead_bytes),
            target: target.and_then(|target| target.overhead_bytes),
        },
        huge_pages: BothSides {
            source: source.huge_share,
            target: target.and_then(|target| target.huge_share),
        },
        rounds: figures.map_or_else(Vec::new, |figures| figures.rounds.clone()),
        convergence: figures.map(|figures| figures.convergence.clone()),
        switchover: pauses.last.filter(|_| source.completed()),
        hop_switchovers: pauses.each,
        hop_gap_ms: pauses.gap_ms,
        tracking: figures.map(tracking_of),
        timeline: source.timeline.clone(),
        compat: compat_of(cpu, last),
        verified,
    })
}

/// The pauses of which both sides have told, with what the guest says of them.
struct Pauses {
    last: Option<Switchover>,
    /// Of a chain of moves; else empty.
    each: Vec<Switchover>,
    /// Over a chain of moves.
    gap_ms: Option<Quantiles>,
}

impl Pauses {
    fn of(hops: &[BothSides<MarksNs>], sight: &GuestSight) -> Self {
        let of = |(hop, marks): (usize, &BothSides<MarksNs>)| {
            let gap = sight.gaps_ms.get(hop).copied().flatten();
            Switchover::of(&marks.source, &marks.target, gap)
        };
        let mut each: Vec<_> = hops.iter().enumerate().filter_map(of).collect();
        let last = each.last().cloned();
        let mut gap_ms = quantiles_of(sight.gaps_ms.iter().copied().flatten());
        if hops.len() < 2 {
            each.clear();
            gap_ms = None;
        }
        Self { last, each, gap_ms }
    }
}

/// What a GiB of it takes, the caller adds.
fn tracking_of(figures: &MoveFigures) -> Tracking {
    Tracking {
        by: figures.tracking.clone(),
        start_ms: figures.tracking_start_ms,
        start_ms_per_gib: 0.0,
        rearm_longest_ms: figures.rearm_longest_ms,
    }
}

fn compat_of(cpu: CpuFacts, last: &Move) -> Compat {
    let figures = last.source.figures.as_ref();
    Compat {
        cpu,
        warnings: figures.map_or_else(Vec::new, |figures| figures.warnings.clone()),
        handshake_ms: figures.map(|figures| figures.handshake_ms),
        prepare_ms: last.target.as_ref().and_then(|target| target.prepare_ms),
    }
}

fn outcome_of(word: &str) -> RunOutcome {
    match word {
        "completed" => RunOutcome::Completed,
        "refused" => RunOutcome::Refused,
        "cancelled" => RunOutcome::Cancelled,
        _ => RunOutcome::Failed,
    }
}

fn sight_of(worker: &mut Worker) -> Result<GuestSight> {
    worker.order(&Order::Guest)?;
    worker.wait_for("view of the guest", SIGHT_MAX, |answer| match answer {
        Answer::Guest { sight } => Some(*sight),
        _ => None,
    })
}

/// The guest's memory and its processor.
fn check_of(worker: &mut Worker, error: &mut Option<String>) -> Result<(Check, Check)> {
    worker.order(&Order::Check)?;
    let (ok, detail, differences) = worker.wait_for("check", CHECK_MAX, |answer| match answer {
        Answer::Checked {
            ok,
            detail,
            processor,
        } => Some((ok, detail, processor)),
        _ => None,
    })?;
    let memory = if ok { Check::Ok } else { Check::Failed };
    if !ok {
        error.get_or_insert(detail);
    }
    let processor = match differences {
        None => Check::Off,
        Some(differences) if differences.is_empty() => Check::Ok,
        Some(differences) => {
            let differences = differences.join("; ");
            error.get_or_insert(format!("{READS_ANOTHER}: {differences}"));
            Check::Failed
        }
    };
    Ok((memory, processor))
}

/// The target's digest, taken before the guest ran there, against that of what the source has left.
fn compare_digests(
    source: &mut Worker,
    target: Option<&TargetSide>,
    error: &mut Option<String>,
) -> Result<Check> {
    let Some(expected) = target.and_then(|target| target.digest) else {
        error.get_or_insert("the target gave no digest of the guest's memory".into());
        return Ok(Check::Failed);
    };
    source.order(&Order::Digest)?;
    let found = source.wait_for("digest", CHECK_MAX, |answer| match answer {
        Answer::Digest { digest } => Some(digest),
        _ => None,
    })?;
    if found == expected {
        return Ok(Check::Ok);
    }
    error.get_or_insert("the digests of source and target memory differ".into());
    Ok(Check::Failed)
}
