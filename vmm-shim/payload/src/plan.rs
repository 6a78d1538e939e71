//! Which pages a guest fills, writes and leaves alone, and which vCPU owns which: worked out alike
//! by the guest and its host from [`Params`]. It touches no memory.
//!
//! Touched pages are numbered from 0 over all regions; the first of them are the working set. The
//! untouched ones have numbers of their own. A page belongs to one vCPU for everything: fill,
//! writes and check, so vCPUs never wait for each other.

use core::ops::Range;

use crate::protocol::{
    Fill, HOLE, MAPPED_END, PAGE_BYTES, PARAMS_MAGIC, PLANNED_END, Params, Pattern, Probe,
    REGIONS_MAX, RESERVED_END, Span, TOUCHED_ALL, VCPUS_MAX, VERSION,
};

/// Why parameters make no sense. The number is what a guest reports that rejects them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum PlanFault {
    /// The magic or the version is another one.
    Foreign = 1,
    /// No vCPU, or more than [`VCPUS_MAX`].
    VcpuCount = 2,
    /// An unknown fill, pattern or probe.
    UnknownNumber = 3,
    /// No region, too many, or one that is empty, unaligned, out of order or out of bounds.
    Regions = 4,
    /// More than all is to be touched.
    Percent = 5,
    /// The working set is no whole number of pages, or larger than the touched memory, or has less
    /// than a page for each vCPU though pages are to be written.
    WorkingSet = 6,
    /// The write counters have too little room, are unaligned, or lie in a region or in the
    /// payload's own memory.
    Counters = 7,
    /// A tick, a heartbeat, an APIC count or a rate beyond reason.
    Clock = 8,
}

/// A vCPU's own pages, as numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// Touched pages that it writes again and again.
    pub working: Range<u64>,
    /// Touched pages that it only fills and checks.
    pub still: Range<u64>,
    /// Untouched pages, in their own numbering.
    pub untouched: Range<u64>,
}

/// Consecutive pages of a region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Address of the first page.
    pub address: u64,
    /// How many pages.
    pub pages: u64,
}

/// The pages of one guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    touched: [Run; REGIONS_MAX],
    untouched: [Run; REGIONS_MAX],
    touched_pages: u64,
    untouched_pages: u64,
    working_pages: u64,
    vcpu_count: u64,
}

/// Longest tick and heartbeat.
const PERIOD_MAX_NS: u64 = 10_000_000_000;
/// Shortest tick and heartbeat: KVM lengthens shorter periods of the APIC timer to this.
/// Source: Linux `arch/x86/kvm/lapic.c`, `min_timer_period_us`.
const TICK_MIN_NS: u64 = 200_000;
/// Most page writes per second.
const RATE_MAX: u64 = 1_000_000_000;

impl Plan {
    /// Checks the parameters and counts the pages.
    ///
    /// # Errors
    /// The first rule that the parameters break.
    pub fn new(params: &Params) -> Result<Self, PlanFault> {
        check_head(params)?;
        let regions = check_regions(params)?;
        let mut plan = Self {
            touched: [Run {
                address: 0,
                pages: 0,
            }; REGIONS_MAX],
            untouched: [Run {
                address: 0,
                pages: 0,
            }; REGIONS_MAX],
            touched_pages: 0,
            untouched_pages: 0,
            working_pages: params.working_set_bytes / PAGE_BYTES,
            vcpu_count: u64::from(params.vcpu_count),
        };
        let runs = plan.touched.iter_mut().zip(plan.untouched.iter_mut());
        for (region, (touched, untouched)) in regions.iter().zip(runs) {
            let pages = region.bytes() / PAGE_BYTES;
            touched.address = region.start;
            touched.pages = pages * u64::from(params.touched_parts) / u64::from(TOUCHED_ALL);
            untouched.address = region.start + touched.pages * PAGE_BYTES;
            untouched.pages = pages - touched.pages;
            plan.touched_pages += touched.pages;
            plan.untouched_pages += untouched.pages;
        }
        let whole = params.working_set_bytes.is_multiple_of(PAGE_BYTES);
        let idle = params.dirty_pages_per_second == 0;
        if !whole
            || plan.working_pages > plan.touched_pages
            || (!idle && plan.working_pages < plan.vcpu_count)
        {
            return Err(PlanFault::WorkingSet);
        }
        check_counters(params, regions)?;
        Ok(plan)
    }

    /// Pages that are filled.
    #[must_use]
    pub const fn touched_pages(&self) -> u64 {
        self.touched_pages
    }

    /// Pages that nobody touches before the first check.
    #[must_use]
    pub const fn untouched_pages(&self) -> u64 {
        self.untouched_pages
    }

    /// Pages that are written again and again: the first touched ones.
    #[must_use]
    pub const fn working_pages(&self) -> u64 {
        self.working_pages
    }

    /// What a vCPU owns; nothing for an index that takes no part.
    #[must_use]
    pub fn share(&self, index: u64) -> Share {
        if index >= self.vcpu_count {
            return Share {
                working: 0..0,
                still: 0..0,
                untouched: 0..0,
            };
        }
        Share {
            working: self.part(0..self.working_pages, index),
            still: self.part(self.working_pages..self.touched_pages, index),
            untouched: self.part(0..self.untouched_pages, index),
        }
    }

    /// Address of a touched page; 0 for a number past the last.
    #[must_use]
    #[inline]
    pub fn touched_address(&self, number: u64) -> u64 {
        address(&self.touched, number)
    }

    /// Address of an untouched page; 0 for a number past the last.
    #[must_use]
    pub fn untouched_address(&self, number: u64) -> u64 {
        address(&self.untouched, number)
    }

    /// The touched pages of a range of numbers, run by run.
    pub fn touched_runs(&self, numbers: Range<u64>) -> impl Iterator<Item = Run> + '_ {
        runs(&self.touched, numbers)
    }

    /// The untouched pages of a range of numbers, run by run.
    pub fn untouched_runs(&self, numbers: Range<u64>) -> impl Iterator<Item = Run> + '_ {
        runs(&self.untouched, numbers)
    }

    fn part(&self, whole: Range<u64>, index: u64) -> Range<u64> {
        let pages = whole.end - whole.start;
        let cut = |index: u64| whole.start + pages * index / self.vcpu_count;
        cut(index)..cut(index + 1)
    }
}

#[inline]
fn address(runs: &[Run], number: u64) -> u64 {
    let mut rest = number;
    for run in runs {
        if rest < run.pages {
            return run.address + rest * PAGE_BYTES;
        }
        rest -= run.pages;
    }
    0
}

fn runs(all: &[Run], numbers: Range<u64>) -> impl Iterator<Item = Run> + '_ {
    let mut first = 0;
    all.iter().filter_map(move |run| {
        let here = first..first + run.pages;
        first = here.end;
        let start = here.start.max(numbers.start);
        let end = here.end.min(numbers.end);
        (start < end).then(|| Run {
            address: run.address + (start - here.start) * PAGE_BYTES,
            pages: end - start,
        })
    })
}

fn check_head(params: &Params) -> Result<(), PlanFault> {
    if params.magic != PARAMS_MAGIC || params.version != VERSION {
        return Err(PlanFault::Foreign);
    }
    if params.vcpu_count == 0 || params.vcpu_count as usize > VCPUS_MAX {
        return Err(PlanFault::VcpuCount);
    }
    let known = Fill::from_number(params.fill).is_some()
        && Pattern::from_number(params.pattern).is_some()
        && Probe::from_number(params.probe).is_some();
    if !known {
        return Err(PlanFault::UnknownNumber);
    }
    if params.touched_parts > TOUCHED_ALL {
        return Err(PlanFault::Percent);
    }
    let in_reason = (TICK_MIN_NS..=PERIOD_MAX_NS).contains(&params.tick_ns)
        && (TICK_MIN_NS..=PERIOD_MAX_NS).contains(&params.heartbeat_ns)
        && (1..=u64::from(u32::MAX)).contains(&params.apic_counts_per_tick)
        && params.dirty_pages_per_second <= RATE_MAX
        && params.tsc_khz <= u64::from(u32::MAX);
    if in_reason {
        Ok(())
    } else {
        Err(PlanFault::Clock)
    }
}

fn check_regions(params: &Params) -> Result<&[Span], PlanFault> {
    let regions = params
        .regions
        .get(..params.region_count as usize)
        .filter(|regions| !regions.is_empty())
        .ok_or(PlanFault::Regions)?;
    let mut floor = RESERVED_END;
    for region in regions {
        let aligned = (region.start | region.end).is_multiple_of(PAGE_BYTES);
        let inside =
            region.start >= floor && region.start < region.end && region.end <= PLANNED_END;
        if !aligned || !inside || overlap(*region, HOLE) {
            return Err(PlanFault::Regions);
        }
        floor = region.end;
    }
    Ok(regions)
}

fn check_counters(params: &Params, regions: &[Span]) -> Result<(), PlanFault> {
    let counters = params.counters;
    if params.pattern == Pattern::Sequential.number() {
        return Ok(());
    }
    let needed = params.working_set_bytes / PAGE_BYTES * size_of::<u32>() as u64;
    let apart = needed == 0
        || (counters.start.is_multiple_of(PAGE_BYTES)
            && counters.start >= RESERVED_END
            && counters.end <= MAPPED_END
            && counters.bytes() >= needed
            && !overlap(counters, HOLE)
            && !regions.iter().any(|region| overlap(*region, counters)));
    if apart {
        Ok(())
    } else {
        Err(PlanFault::Counters)
    }
}

const fn overlap(one: Span, other: Span) -> bool {
    one.start < other.end && other.start < one.end
}
