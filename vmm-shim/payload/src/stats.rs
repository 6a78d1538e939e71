//! What each vCPU reports about itself, as bytes, and how stalls fall into buckets; it does not say
//! how they are measured.

#[cfg(not(limosa_guest))]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::protocol::{Phase, VCPU_STATS, VCPU_STATS_STRIDE};

/// Buckets of a stall histogram: four to the octave, up to 2^41 ns (36 minutes).
pub const BUCKETS: usize = 160;
/// Switchovers that a vCPU remembers.
pub const GAPS_KEPT: usize = 256;
/// Phases that have a histogram of their own.
pub const PHASES: usize = Phase::ALL.len();

/// The bucket of a stall: exact below 4 ns, then four buckets per power of two.
#[must_use]
#[inline]
pub const fn bucket_of(ns: u64) -> usize {
    if ns < 4 {
        return ns as usize;
    }
    let octave = 63 - ns.leading_zeros() as usize;
    let quarter = (ns >> (octave - 2)) as usize & 3;
    let bucket = (octave - 1) * 4 + quarter;
    if bucket < BUCKETS {
        bucket
    } else {
        BUCKETS - 1
    }
}

/// The shortest stall of a bucket in nanoseconds; the next bucket's is the first that is too long.
#[must_use]
pub const fn bucket_floor(bucket: usize) -> u64 {
    if bucket < 4 {
        return bucket as u64;
    }
    let shift = bucket / 4 - 1;
    if shift >= 61 {
        return u64::MAX;
    }
    (4 + (bucket as u64 & 3)) << shift
}

/// Why a vCPU stopped for good.
#[repr(C)]
#[cfg_attr(
    not(limosa_guest),
    derive(FromBytes, IntoBytes, Immutable, KnownLayout)
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fault {
    /// Exception vector; of a rejected guest the number of the
    /// [`PlanFault`](crate::plan::PlanFault).
    pub vector: u64,
    /// Error code, 0 for exceptions that have none.
    pub error_code: u64,
    /// Instruction that failed.
    pub rip: u64,
    /// Stack pointer at that instruction.
    pub rsp: u64,
    /// Code segment: its two low bits are the privilege level.
    pub cs: u64,
    /// Address of the last page fault.
    pub cr2: u64,
}

/// What one vCPU found when it verified its share.
#[repr(C)]
#[cfg_attr(
    not(limosa_guest),
    derive(FromBytes, IntoBytes, Immutable, KnownLayout)
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CheckResult {
    /// The command's sequence number; written last.
    pub sequence: u64,
    /// Pages read.
    pub pages: u64,
    /// Pages whose bytes or write counter are wrong.
    pub bad_pages: u64,
    /// Address of the first of them.
    pub first_bad: u64,
    /// Page writes that the pages themselves prove.
    pub writes_found: u64,
    /// Page writes that the vCPU knows to have done; a difference is an error as well.
    pub writes_done: u64,
    /// What the check took.
    pub elapsed_ns: u64,
}

/// Stalls of one phase.
#[repr(C)]
#[cfg_attr(
    not(limosa_guest),
    derive(FromBytes, IntoBytes, Immutable, KnownLayout)
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PhaseStalls {
    /// The longest.
    pub longest_ns: u64,
    /// How many of each bucket.
    pub buckets: [u64; BUCKETS],
}

/// What a vCPU saw of one switchover.
#[repr(C)]
#[cfg_attr(
    not(limosa_guest),
    derive(FromBytes, IntoBytes, Immutable, KnownLayout)
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gap {
    /// The mailbox's switchover number.
    pub switchover: u64,
    /// How long the vCPU stood still: its downtime.
    pub ns: u64,
}

/// Everything that one vCPU reports. Numbers only grow, except where said.
#[repr(C)]
#[cfg_attr(
    not(limosa_guest),
    derive(FromBytes, IntoBytes, Immutable, KnownLayout)
)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuStats {
    /// A [`VcpuState`](crate::protocol::VcpuState); not growing.
    pub state: u32,
    /// The vCPU's index.
    pub index: u32,
    /// Times that it read the clock: loop iterations, or wakes of a sleeping probe.
    pub stamps: u64,
    /// Page writes done.
    pub writes: u64,
    /// Page writes that fell due during a long stall and were dropped.
    pub writes_dropped: u64,
    /// Times that the time stamp counter went backwards.
    pub steps_back: u64,
    /// Frequency that it reckons with, given or measured.
    pub tsc_khz: u64,
    /// What the fill took.
    pub fill_ns: u64,
    /// Pages that it filled.
    pub fill_pages: u64,
    /// Switchovers seen; entry `n` of `gaps` is at `n % GAPS_KEPT`. Written after the entry.
    pub gap_count: u64,
    /// Why it stopped, if it did.
    pub fault: Fault,
    /// The last check.
    pub check: CheckResult,
    /// By the number of the [`Phase`].
    pub phases: [PhaseStalls; PHASES],
    /// The last switchovers.
    pub gaps: [Gap; GAPS_KEPT],
}

/// Where the stats of a vCPU lie.
#[must_use]
pub const fn stats_address(index: usize) -> u64 {
    VCPU_STATS + index as u64 * VCPU_STATS_STRIDE
}

const _: () = {
    assert!(size_of::<VcpuStats>() as u64 <= VCPU_STATS_STRIDE);
    assert!(bucket_of(u64::MAX) == BUCKETS - 1);
    let mut bucket = 0;
    while bucket < BUCKETS {
        assert!(bucket_of(bucket_floor(bucket)) == bucket);
        assert!(bucket_of(bucket_floor(bucket + 1) - 1) == bucket);
        bucket += 1;
    }
};
