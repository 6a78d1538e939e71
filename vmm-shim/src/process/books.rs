//! What a thread of a process guest reports about itself, at the addresses and in the layout of the
//! payload's protocol, so that one reader serves both kinds of guest.

use core::mem::offset_of;

use limosa_payload::protocol::{MAILBOX, Mailbox, VcpuState};
use limosa_payload::stats::{
    CheckResult, GAPS_KEPT, Gap, PHASES, PhaseStalls, VcpuStats, bucket_of, stats_address,
};
use zerocopy::IntoBytes;

use super::memory::Memory;
use crate::vcpu::VcpuFault;

/// What is recorded for a downtime that can't be known, because the clock went backwards.
const UNKNOWN_NS: u64 = u64::MAX;

const SWITCHOVER: u64 = MAILBOX + offset_of!(Mailbox, switchover) as u64;
const SEQUENCE: u64 = MAILBOX + offset_of!(Mailbox, sequence) as u64;
const COMMAND: u64 = MAILBOX + offset_of!(Mailbox, command) as u64;
const PHASE: u64 = MAILBOX + offset_of!(Mailbox, phase) as u64;

/// One thread's stats, and the mailbox that all share.
pub(super) struct Books<'a> {
    memory: &'a Memory,
    base: u64,
}

impl<'a> Books<'a> {
    pub(super) fn of(memory: &'a Memory, index: u16) -> Self {
        Self {
            memory,
            base: stats_address(usize::from(index)),
        }
    }

    /// Where the stats lie.
    pub(super) const fn address(&self) -> u64 {
        self.base
    }

    fn field(&self, offset: usize) -> u64 {
        self.base + offset as u64
    }

    pub(super) fn begin(&self, index: u16, tsc_khz: u64) -> Result<(), VcpuFault> {
        let memory = self.memory;
        memory.store_short(self.field(offset_of!(VcpuStats, index)), index.into())?;
        memory.store(self.field(offset_of!(VcpuStats, tsc_khz)), tsc_khz)?;
        self.set_state(VcpuState::Filling)
    }

    pub(super) fn set_state(&self, state: VcpuState) -> Result<(), VcpuFault> {
        let place = self.field(offset_of!(VcpuStats, state));
        self.memory.store_short(place, state.number())
    }

    pub(super) fn set_fill(&self, ns: u64, pages: u64) -> Result<(), VcpuFault> {
        let memory = self.memory;
        memory.store(self.field(offset_of!(VcpuStats, fill_ns)), ns)?;
        memory.store(self.field(offset_of!(VcpuStats, fill_pages)), pages)
    }

    pub(super) fn set_writes(&self, writes: u64) -> Result<(), VcpuFault> {
        let place = self.field(offset_of!(VcpuStats, writes));
        self.memory.store(place, writes)
    }

    pub(super) fn writes(&self) -> Result<u64, VcpuFault> {
        self.memory.load(self.field(offset_of!(VcpuStats, writes)))
    }

    pub(super) fn add_dropped(&self, writes: u64) -> Result<(), VcpuFault> {
        let place = self.field(offset_of!(VcpuStats, writes_dropped));
        self.memory.add(place, writes)
    }

    pub(super) fn add_stamp(&self) -> Result<(), VcpuFault> {
        let place = self.field(offset_of!(VcpuStats, stamps));
        self.memory.add(place, 1)
    }

    pub(super) fn switchover(&self) -> Result<u64, VcpuFault> {
        self.memory.load(SWITCHOVER)
    }

    /// The number of the last command, and the command.
    pub(super) fn command(&self) -> Result<(u64, u32), VcpuFault> {
        Ok((
            self.memory.load(SEQUENCE)?,
            self.memory.load_short(COMMAND)?,
        ))
    }

    /// Books a stall; `None` for a clock that went backwards.
    pub(super) fn add_stall(&self, ns: Option<u64>) -> Result<(), VcpuFault> {
        let Some(ns) = ns else {
            return self.add_step_back();
        };
        let phase = self.memory.load_short(PHASE)?;
        let known = u64::from(phase).min(PHASES as u64 - 1);
        let stalls =
            self.field(offset_of!(VcpuStats, phases)) + known * size_of::<PhaseStalls>() as u64;
        let bucket = offset_of!(PhaseStalls, buckets) + bucket_of(ns) * size_of::<u64>();
        self.memory.add(stalls + bucket as u64, 1)?;
        let longest = stalls + offset_of!(PhaseStalls, longest_ns) as u64;
        if ns > self.memory.load(longest)? {
            self.memory.store(longest, ns)?;
        }
        Ok(())
    }

    /// Books a downtime: the entry first, then the count.
    pub(super) fn add_gap(&self, switchover: u64, ns: Option<u64>) -> Result<(), VcpuFault> {
        if ns.is_none() {
            self.add_step_back()?;
        }
        let count_place = self.field(offset_of!(VcpuStats, gap_count));
        let count = self.memory.load(count_place)?;
        let slot = count % GAPS_KEPT as u64 * size_of::<Gap>() as u64;
        let gap = self.field(offset_of!(VcpuStats, gaps)) + slot;
        let ns = ns.unwrap_or(UNKNOWN_NS);
        self.memory
            .store(gap + offset_of!(Gap, switchover) as u64, switchover)?;
        self.memory.store(gap + offset_of!(Gap, ns) as u64, ns)?;
        self.memory.store(count_place, count.wrapping_add(1))
    }

    fn add_step_back(&self) -> Result<(), VcpuFault> {
        let place = self.field(offset_of!(VcpuStats, steps_back));
        self.memory.add(place, 1)
    }

    /// Answers a check: everything first, then the sequence number.
    pub(super) fn set_check(&self, result: &CheckResult) -> Result<(), VcpuFault> {
        let place = self.field(offset_of!(VcpuStats, check));
        let (words, _) = result.as_bytes().as_chunks::<8>();
        // Backwards: the sequence number is the first of them.
        for (at, word) in words.iter().enumerate().rev() {
            let address = place + (at * size_of::<u64>()) as u64;
            self.memory.store(address, u64::from_le_bytes(*word))?;
        }
        Ok(())
    }
}

// What `set_check` relies on.
const _: () = assert!(offset_of!(CheckResult, sequence) == 0);
