//! A guest's numbers in the host's types: durations, percentiles, verdicts. It reads no memory.

use core::time::Duration;

use crate::probe::ProbeError;
use crate::protocol::{Phase, VcpuState};
use crate::stats::{
    BUCKETS, CheckResult, Fault, GAPS_KEPT, PHASES, PhaseStalls, VcpuStats, bucket_floor,
};

/// How often stalls of which length happened; four buckets to the octave, so that a percentile is
/// at most 25 % too large, never too small.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    buckets: [u64; BUCKETS],
    longest: Duration,
}

impl Histogram {
    /// No stall at all.
    pub const EMPTY: Self = Self {
        buckets: [0; BUCKETS],
        longest: Duration::ZERO,
    };

    /// Stalls counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The longest stall, exactly.
    #[must_use]
    pub const fn longest(&self) -> Duration {
        self.longest
    }

    /// The length that this share of all stalls does not exceed, as the upper end of its bucket;
    /// zero where nothing was counted. `share` is clamped to 0..=1.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Duration {
        let count = self.count();
        let rank = (share.clamp(0.0, 1.0) * count as f64).ceil().max(1.0) as u64;
        let mut passed = 0u64;
        for (bucket, in_bucket) in self.buckets.iter().enumerate() {
            passed = passed.saturating_add(*in_bucket);
            if *in_bucket > 0 && passed >= rank {
                return Duration::from_nanos(bucket_floor(bucket + 1) - 1).min(self.longest);
            }
        }
        Duration::ZERO
    }

    /// Stalls that lasted at least so long, to the grain of the buckets (a bucket counts if it
    /// begins there or later).
    #[must_use]
    pub fn count_from(&self, length: Duration) -> u64 {
        let ns = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let long = self
            .buckets
            .iter()
            .enumerate()
            .filter(|(bucket, _)| bucket_floor(*bucket) >= ns);
        long.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Adds another one's stalls.
    pub fn merge(&mut self, other: &Self) {
        for (into, count) in self.buckets.iter_mut().zip(other.buckets) {
            *into = into.saturating_add(count);
        }
        self.longest = self.longest.max(other.longest);
    }

    /// The stalls since an earlier look at the same vCPU. The longest stays that of all time where
    /// its bucket grew; else it is the upper end of the last bucket that did.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut buckets = self.buckets;
        for (into, count) in buckets.iter_mut().zip(earlier.buckets) {
            *into = into.saturating_sub(count);
        }
        let mut grown = Self {
            buckets,
            longest: self.longest,
        };
        let last = buckets.iter().rposition(|count| *count > 0);
        grown.longest = last.map_or(Duration::ZERO, |bucket| {
            Duration::from_nanos(bucket_floor(bucket + 1) - 1).min(self.longest)
        });
        grown
    }
}

impl From<&PhaseStalls> for Histogram {
    fn from(stalls: &PhaseStalls) -> Self {
        Self {
            buckets: stalls.buckets,
            longest: Duration::from_nanos(stalls.longest_ns),
        }
    }
}

/// Stalls of one phase.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PhaseReport {
    /// Which.
    pub phase: Phase,
    /// Its stalls.
    pub stalls: Histogram,
}

/// What one vCPU says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VcpuReport {
    /// Its index.
    pub index: usize,
    /// Where it is.
    pub state: VcpuState,
    /// Times that it read the clock; grows while it lives.
    pub stamps: u64,
    /// Page writes done.
    pub writes: u64,
    /// Page writes dropped because they fell due during a stall of more than 1 ms.
    pub writes_dropped: u64,
    /// Times that its time stamp counter went backwards.
    pub steps_back: u64,
    /// Frequency of its time stamp counter in kHz, given or measured.
    pub tsc_khz: u64,
    /// What the fill took, and how many pages it was.
    pub fill: (Duration, u64),
    /// Why it stopped; all zeros while it runs.
    pub fault: Fault,
    /// Its last check.
    pub check: CheckResult,
    /// Stalls by phase, in the order of [`Phase::ALL`].
    pub phases: [PhaseReport; PHASES],
    /// Downtimes that it saw, oldest first: switchover number and length. At most the last 256. A
    /// length of centuries means unknown: the time stamp counter went backwards.
    pub downtimes: Vec<(u64, Duration)>,
}

impl VcpuReport {
    pub(crate) fn decode(index: usize, stats: &VcpuStats) -> Result<Self, ProbeError> {
        let state = VcpuState::from_number(stats.state).ok_or(ProbeError::UnknownState {
            vcpu: index,
            number: stats.state,
        })?;
        let kept = usize::try_from(stats.gap_count)
            .unwrap_or(GAPS_KEPT)
            .min(GAPS_KEPT);
        let oldest = stats.gap_count - kept as u64;
        let slots = (oldest..stats.gap_count).map(|number| (number % GAPS_KEPT as u64) as usize);
        let gaps = slots.filter_map(|slot| stats.gaps.get(slot));
        Ok(Self {
            index,
            state,
            stamps: stats.stamps,
            writes: stats.writes,
            writes_dropped: stats.writes_dropped,
            steps_back: stats.steps_back,
            tsc_khz: stats.tsc_khz,
            fill: (Duration::from_nanos(stats.fill_ns), stats.fill_pages),
            fault: stats.fault,
            check: stats.check,
            phases: [Phase::Quiet, Phase::Precopy, Phase::Postcopy].map(|phase| PhaseReport {
                phase,
                stalls: Histogram::from(&stats.phases[phase.number() as usize]),
            }),
            downtimes: gaps
                .map(|gap| (gap.switchover, Duration::from_nanos(gap.ns)))
                .collect(),
        })
    }

    /// The downtime of one switchover; `None` if this vCPU has not noticed it yet.
    #[must_use]
    pub fn downtime(&self, switchover: u64) -> Option<Duration> {
        self.downtimes
            .iter()
            .rev()
            .find(|(number, _)| *number == switchover)
            .map(|(_, gap)| *gap)
    }

    /// The stalls of a phase.
    #[must_use]
    pub fn stalls(&self, phase: Phase) -> &Histogram {
        match phase {
            Phase::Quiet => &self.phases[0].stalls,
            Phase::Precopy => &self.phases[1].stalls,
            Phase::Postcopy => &self.phases[2].stalls,
        }
    }

    /// Turns a vCPU that stopped into an error.
    ///
    /// # Errors
    /// [`ProbeError::Faulted`] or [`ProbeError::Rejected`].
    pub const fn alive(&self) -> Result<(), ProbeError> {
        match self.state {
            VcpuState::Faulted => Err(ProbeError::Faulted {
                vcpu: self.index,
                fault: self.fault,
            }),
            VcpuState::Rejected => Err(ProbeError::Rejected {
                vcpu: self.index,
                rule: self.fault.vector,
            }),
            _ => Ok(()),
        }
    }
}

/// The verdict over all of a guest's memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckReport {
    /// Pages that the guest has.
    pub pages_expected: u64,
    /// Pages that were read.
    pub pages: u64,
    /// Pages with a wrong byte or a wrong write counter.
    pub bad_pages: u64,
    /// Lowest address of those that each vCPU met first.
    pub first_bad: Option<u64>,
    /// Page writes done, according to the vCPUs.
    pub writes_done: u64,
    /// Page writes done, according to the pages.
    pub writes_found: u64,
    /// vCPUs whose two numbers of writes differ.
    pub miscounts: u64,
    /// The slowest vCPU's time.
    pub elapsed: Duration,
}

impl CheckReport {
    pub(crate) fn of(pages_expected: u64, answers: &[CheckResult]) -> Self {
        let sum = |of: fn(&CheckResult) -> u64| {
            answers
                .iter()
                .fold(0u64, |sum, answer| sum.saturating_add(of(answer)))
        };
        let bad = answers.iter().filter(|answer| answer.bad_pages > 0);
        let slowest = answers
            .iter()
            .map(|answer| answer.elapsed_ns)
            .max()
            .unwrap_or(0);
        Self {
            pages_expected,
            pages: sum(|answer| answer.pages),
            bad_pages: sum(|answer| answer.bad_pages),
            first_bad: bad.map(|answer| answer.first_bad).min(),
            writes_done: sum(|answer| answer.writes_done),
            writes_found: sum(|answer| answer.writes_found),
            miscounts: sum(|answer| u64::from(answer.writes_done != answer.writes_found)),
            elapsed: Duration::from_nanos(slowest),
        }
    }

    /// Whether every page was read and every byte and every write is there.
    #[must_use]
    pub const fn intact(&self) -> bool {
        self.pages == self.pages_expected && self.bad_pages == 0 && self.miscounts == 0
    }
}
