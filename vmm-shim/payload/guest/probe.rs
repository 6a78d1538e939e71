//! Notices that the vCPU stood still, and books it: as downtime if a switchover happened meanwhile,
//! else as a stall of the current phase.

use crate::clock::Clock;
use crate::cpu;
use crate::memory::{Own, add, field, load, mailbox};
use crate::stats::{Gap, bucket_of};

/// What is recorded for a downtime that cannot be known, because the counter went backwards.
const UNKNOWN_NS: u64 = u64::MAX;

/// The stamps of one vCPU.
pub struct Probe {
    own: Own,
    clock: Clock,
    last: u64,
    switchover: u64,
    longest_ns: u64,
}

/// What a gap without a switchover means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Gaps {
    /// A stall.
    Stalls,
    /// The vCPU's own work, which is of no interest.
    Work,
}

impl Probe {
    /// Starts now.
    pub fn new(own: Own, clock: Clock) -> Self {
        let switchover = load(mailbox!(switchover));
        Self {
            own,
            clock,
            last: cpu::time(),
            switchover,
            longest_ns: 0,
        }
    }

    /// Takes a time stamp and books the gap since the last one, less `expected` counts.
    #[inline(always)]
    pub fn stamp(&mut self, expected: u64, gaps: Gaps) -> u64 {
        // The time belongs to the number of switchovers only if that did not change around it: a
        // vCPU may be stopped between any two instructions.
        let (now, switchover) = loop {
            let before: u64 = load(mailbox!(switchover));
            let now = cpu::time();
            if load::<u64>(mailbox!(switchover)) == before {
                break (now, before);
            }
        };
        add(field!(self.own, stamps), 1);
        let gap = now.checked_sub(self.last);
        self.last = now;
        if gap.is_some() && switchover == self.switchover && gaps == Gaps::Work {
            return now;
        }
        self.book(gap, expected, switchover);
        now
    }

    #[inline(always)]
    fn book(&mut self, gap: Option<u64>, expected: u64, switchover: u64) {
        let ns = gap.map(|gap| self.clock.ns(gap.saturating_sub(expected)));
        if ns.is_none() {
            add(field!(self.own, steps_back), 1);
        }
        if switchover != self.switchover {
            self.switchover = switchover;
            self.own.add_gap(Gap {
                switchover,
                ns: ns.unwrap_or(UNKNOWN_NS),
            });
        } else if let Some(ns) = ns {
            self.own.add_stall(load(mailbox!(phase)), bucket_of(ns), ns);
        }
        self.longest_ns = self.longest_ns.max(ns.unwrap_or(0));
    }

    /// The longest gap since the last call.
    pub fn take_longest_ns(&mut self) -> u64 {
        core::mem::take(&mut self.longest_ns)
    }
}
