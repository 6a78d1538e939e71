//! What one command measured, as the JSON schema `limosa.run/1`; `docs/report.md` describes each
//! field.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::convergence::ConvergenceFigures;
use crate::link::LinkFacts;
use crate::protocol::CpuFacts;
use crate::reference::SocketSettings;
use crate::refusal::Reason;
use crate::switchover::Switchover;
use crate::timeline::Timeline;

/// The schema's name and version.
pub(crate) const SCHEMA: &str = "limosa.run/1";

/// A whole command's result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) schema: String,
    pub(crate) config: Config,
    pub(crate) host: HostFacts,
    pub(crate) reference: Option<Reference>,
    pub(crate) runs: Vec<Run>,
    pub(crate) summary: Summary,
}

/// What was asked for, after defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) guest: String,
    pub(crate) guest_reason: String,
    pub(crate) memory_bytes: u64,
    pub(crate) vcpus: u16,
    pub(crate) fill: String,
    pub(crate) touched_percent: f64,
    pub(crate) touched_bytes: u64,
    pub(crate) working_set_bytes: u64,
    pub(crate) dirty_rate_bytes: u64,
    pub(crate) pattern: String,
    pub(crate) probe: String,
    pub(crate) backing: String,
    #[serde(default)]
    pub(crate) tracking: String,
    pub(crate) transport: String,
    /// What shapes the link; none of one that is as fast as it can.
    pub(crate) link: Option<LinkFacts>,
    /// None where no run has completed.
    pub(crate) io: Option<String>,
    pub(crate) streams: u16,
    /// That work on all of memory at once.
    pub(crate) threads: usize,
    pub(crate) codec: String,
    pub(crate) staging: String,
    pub(crate) splice: String,
    pub(crate) downtime_ms: f64,
    pub(crate) on_stall: String,
    /// Bytes a second; none of streams that are not held back.
    #[serde(default)]
    pub(crate) bandwidth: Option<NonZeroU64>,
    pub(crate) seed: u64,
    pub(crate) repeat: u32,
    pub(crate) hops: u32,
    pub(crate) warmed_bytes: u64,
    /// All of the target's memory, before it listened.
    pub(crate) populated: bool,
    /// What the guest was to see of its processor.
    pub(crate) compat: String,
    /// What either side pretended to be.
    pub(crate) as_host: Option<String>,
    pub(crate) as_target: Option<String>,
}

/// The machine that the command ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostFacts {
    pub(crate) cpu: String,
    pub(crate) lps: usize,
    pub(crate) kernel: String,
    pub(crate) kvm: String,
    pub(crate) memory: u64,
}

/// Bare sockets carrying as many bytes into the same kind of memory, measured beside the runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Reference {
    pub(crate) what: String,
    pub(crate) bytes: u64,
    pub(crate) streams: u16,
    pub(crate) total_ms: Vec<f64>,
    pub(crate) throughput_gib_s: Spread,
    pub(crate) settings: SocketSettings,
    /// Our total ÷ the reference's total beside it.
    pub(crate) time_ratio: Option<Spread>,
    /// The reference's total ÷ ours.
    pub(crate) ratio_to_sockets: Option<Spread>,
    /// The same sockets without a copy at the sending end; none on a shaped link.
    pub(crate) spliced: Option<SplicedReference>,
    pub(crate) memory: Option<MemorySpeeds>,
}

/// What sockets do to which memory goes by reference (vmsplice).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SplicedReference {
    pub(crate) total_ms: Vec<f64>,
    pub(crate) throughput_gib_s: Spread,
    /// Their total ÷ ours.
    pub(crate) ratio_to_sockets: Spread,
}

/// What memory itself could do beside each run, on one thread and on all.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct MemorySpeeds {
    pub(crate) memcpy_one_gib_s: Spread,
    pub(crate) memcpy_all_gib_s: Spread,
    pub(crate) read_one_gib_s: Spread,
    pub(crate) read_all_gib_s: Spread,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RunOutcome {
    Completed,
    Refused,
    Failed,
    Cancelled,
}

/// One migration (or, with hops, the last of a chain; the figures are then of that last one).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) outcome: RunOutcome,
    pub(crate) custody: String,
    pub(crate) error: Option<String>,
    /// Of a refusal.
    pub(crate) reasons: Vec<Reason>,
    pub(crate) hops: u32,
    pub(crate) total_ms: Option<f64>,
    pub(crate) downtime_ms: Downtime,
    pub(crate) stall_max_ms: Option<f64>,
    pub(crate) stall_ms: Option<Quantiles>,
    /// What the guest wrote while it moved, as a share of what it was to; none of an idle one.
    #[serde(default)]
    pub(crate) work_share: Option<f64>,
    pub(crate) guest_bytes: u64,
    /// What of it held anything but zeros when the move began.
    pub(crate) content_bytes: Option<u64>,
    pub(crate) wire_bytes: Option<u64>,
    /// How many of them went over each stream.
    pub(crate) stream_bytes: Vec<u64>,
    pub(crate) pages: Option<Pages>,
    pub(crate) throughput_gib_s: Option<f64>,
    /// The time of the bare sockets beside it ÷ its own.
    pub(crate) ratio_to_sockets: Option<f64>,
    pub(crate) cpu_s: CpuSeconds,
    pub(crate) overhead_bytes: BothSides<Option<u64>>,
    /// Shares, from 0 to 1.
    pub(crate) huge_pages: BothSides<Option<f64>>,
    pub(crate) rounds: Vec<RoundFigures>,
    /// None of a move that did not complete.
    #[serde(default)]
    pub(crate) convergence: Option<ConvergenceFigures>,
    // Reports of earlier builds lack these.
    #[serde(default)]
    pub(crate) switchover: Option<Switchover>,
    /// Of a chain of moves, every one of them.
    #[serde(default)]
    pub(crate) hop_switchovers: Vec<Switchover>,
    /// Of a chain of moves, over all of them.
    #[serde(default)]
    pub(crate) hop_gap_ms: Option<Quantiles>,
    #[serde(default)]
    pub(crate) tracking: Option<Tracking>,
    pub(crate) timeline: Timeline,
    pub(crate) compat: Compat,
    pub(crate) verified: Verified,
}

/// The guest's processor, and what the handshake made of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Compat {
    #[serde(flatten)]
    pub(crate) cpu: CpuFacts,
    /// What differed and was forgiven, with the reasons.
    pub(crate) warnings: Vec<String>,
    pub(crate) handshake_ms: Option<f64>,
    /// What of it the target took to make machine and memory.
    pub(crate) prepare_ms: Option<f64>,
}

/// How the guest's writes were followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tracking {
    pub(crate) by: String,
    /// What it took to begin.
    pub(crate) start_ms: f64,
    pub(crate) start_ms_per_gib: f64,
    /// The longest that rearming a chunk took while the guest ran.
    pub(crate) rearm_longest_ms: f64,
}

/// The pause as each saw it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Downtime {
    pub(crate) engine: Option<f64>,
    pub(crate) guest: Option<f64>,
}

/// Quantiles of what the guest saw, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Pages by encoding, over all rounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pages {
    pub(crate) absent: u64,
    pub(crate) zero: u64,
    pub(crate) raw: u64,
    pub(crate) lz4: u64,
    // Reports of earlier builds lack these.
    /// Raw, and straight out of the guest's memory.
    #[serde(default)]
    pub(crate) live: u64,
    #[serde(default)]
    pub(crate) constant: u64,
    #[serde(default)]
    pub(crate) zstd: u64,
    #[serde(default)]
    pub(crate) delta: u64,
}

impl Pages {
    /// Pages in all encodings together.
    pub(crate) fn all(&self) -> u64 {
        let unread = self.absent + self.zero + self.constant;
        unread + self.raw + self.live + self.lz4 + self.zstd + self.delta
    }
}

/// CPU time; the vCPUs' is not in `source` and `target`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct CpuSeconds {
    pub(crate) source: f64,
    pub(crate) target: Option<f64>,
    pub(crate) vcpu_source: f64,
    pub(crate) vcpu_target: Option<f64>,
}

/// One figure of either side.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct BothSides<T> {
    pub(crate) source: T,
    pub(crate) target: T,
}

/// One round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RoundFigures {
    pub(crate) pages: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) ms: f64,
}

/// One kind of proof that nothing was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Check {
    Ok,
    Failed,
    Off,
}

/// The proofs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Verified {
    pub(crate) guest: Check,
    pub(crate) processor: Check,
    pub(crate) digest: Check,
}

/// Least, middle and largest of a figure over the runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

/// Each figure over the completed runs; absent figures are null.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) completed: u32,
    pub(crate) verified: u32,
    pub(crate) handshake_ms: Option<Spread>,
    pub(crate) total_ms: Option<Spread>,
    pub(crate) downtime_engine_ms: Option<Spread>,
    pub(crate) downtime_guest_ms: Option<Spread>,
    pub(crate) stall_max_ms: Option<Spread>,
    pub(crate) throughput_gib_s: Option<Spread>,
    pub(crate) ratio_to_sockets: Option<Spread>,
    pub(crate) wire_bytes: Option<Spread>,
    pub(crate) cpu_source_s: Option<Spread>,
    pub(crate) cpu_target_s: Option<Spread>,
    pub(crate) rounds: Option<Spread>,
}

impl Spread {
    /// None of no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (first, last) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self {
            min: first,
            median,
            max: last,
        })
    }
}

impl Verified {
    /// Nothing that was checked came out wrong.
    pub(crate) fn holds(self) -> bool {
        [self.guest, self.processor, self.digest]
            .iter()
            .all(|check| *check != Check::Failed)
    }

    /// Something was checked, and nothing of it came out wrong.
    fn proves(self) -> bool {
        self.holds() && (self.guest == Check::Ok || self.digest == Check::Ok)
    }
}

impl Summary {
    /// Over the completed ones of `runs`.
    pub(crate) fn of(runs: &[Run]) -> Self {
        let completed: Vec<&Run> = runs
            .iter()
            .filter(|run| run.outcome == RunOutcome::Completed)
            .collect();
        let spread = |figure: fn(&Run) -> Option<f64>| {
            Spread::of(completed.iter().filter_map(|run| figure(run)))
        };
        Self {
            completed: completed.len() as u32,
            verified: completed.iter().filter(|run| run.verified.proves()).count() as u32,
            handshake_ms: spread(|run| run.compat.handshake_ms),
            total_ms: spread(|run| run.total_ms),
            downtime_engine_ms: spread(|run| run.downtime_ms.engine),
            downtime_guest_ms: spread(|run| run.downtime_ms.guest),
            stall_max_ms: spread(|run| run.stall_max_ms),
            throughput_gib_s: spread(|run| run.throughput_gib_s),
            ratio_to_sockets: spread(|run| run.ratio_to_sockets),
            wire_bytes: spread(|run| run.wire_bytes.map(|bytes| bytes as f64)),
            cpu_source_s: spread(|run| Some(run.cpu_s.source)),
            cpu_target_s: spread(|run| run.cpu_s.target),
            rounds: spread(|run| Some(run.rounds.len() as f64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            spread,
            Spread {
                min: 1.0,
                median: 2.5,
                max: 4.0
            }
        );
        assert_eq!(Spread::of([]), None);
    }
}
