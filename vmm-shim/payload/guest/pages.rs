//! Fills, writes and verifies the pages of one vCPU.

use core::ops::Range;
use core::ptr;

use crate::content::{Block, PageKind, for_each_block, page_kind, scramble};
use crate::memory::{load, store};
use crate::plan::{Plan, Share};
use crate::probe::{Gaps, Probe};
use crate::protocol::{Fill, PAGE_BYTES, Params, Pattern};
use crate::stats::CheckResult;

/// The bits of a page's first word that hold its write counter, in the working set.
const COUNTER: u64 = 0xffff_ffff;

/// The pages that one vCPU owns, and how often it wrote them.
pub struct Pages<'a> {
    plan: &'a Plan,
    share: Share,
    seed: u64,
    fill: Fill,
    pattern: Pattern,
    counters: u64,
    random: u64,
    cursor: u64,
    passes: u64,
    /// Page writes done.
    pub writes: u64,
}

impl<'a> Pages<'a> {
    /// Those of a vCPU.
    pub fn new(params: &Params, plan: &'a Plan, index: u64) -> Self {
        Self {
            plan,
            share: plan.share(index),
            seed: params.seed,
            // The plan refuses unknown numbers.
            fill: Fill::from_number(params.fill).unwrap_or(Fill::Zero),
            pattern: Pattern::from_number(params.pattern).unwrap_or(Pattern::Sequential),
            counters: params.counters.start,
            random: scramble(params.seed ^ (index + 1)) | 1,
            cursor: 0,
            passes: 0,
            writes: 0,
        }
    }

    /// Pages that are written again and again.
    pub fn working(&self) -> u64 {
        self.share.working.end - self.share.working.start
    }

    /// Writes the initial content; returns the number of pages.
    pub fn fill(&self, probe: &mut Probe) -> u64 {
        let (working, still) = (&self.share.working, &self.share.still);
        if self.pattern != Pattern::Sequential {
            for number in working.clone() {
                store(self.counter(number), 0u32);
            }
        }
        self.fill_runs(working, COUNTER, probe);
        self.fill_runs(still, 0, probe);
        working.end - working.start + still.end - still.start
    }

    fn fill_runs(&self, numbers: &Range<u64>, cleared: u64, probe: &mut Probe) {
        for run in self.plan.touched_runs(numbers.clone()) {
            for page in 0..run.pages {
                let address = run.address + page * PAGE_BYTES;
                let kind = page_kind(self.seed, address, self.fill);
                fill_page(self.seed, address, kind, cleared);
                probe.stamp(0, Gaps::Work);
            }
        }
    }

    /// Writes one page, the one that the pattern wants next.
    #[inline(always)]
    pub fn write(&mut self) {
        let own = self.working();
        let chosen = match self.pattern {
            Pattern::Sequential => self.cursor,
            Pattern::Random => self.any(own),
            Pattern::HotCold => {
                let hot = self.any(10) != 0;
                let hot_pages = own.div_ceil(10);
                if hot || hot_pages == own {
                    self.any(hot_pages)
                } else {
                    hot_pages + self.any(own - hot_pages)
                }
            }
        };
        let number = self.share.working.start + chosen;
        bump(self.plan.touched_address(number));
        if self.pattern == Pattern::Sequential {
            self.cursor += 1;
            if self.cursor == own {
                self.cursor = 0;
                self.passes += 1;
            }
        } else {
            bump(self.counter(number));
        }
        self.writes += 1;
    }

    fn counter(&self, number: u64) -> u64 {
        self.counters + number * size_of::<u32>() as u64
    }

    /// A number below `bound`, which is not 0.
    fn any(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * u128::from(bound)) >> 64) as u64
    }

    /// Verifies every page that this vCPU owns. Sequence number and time are left to the caller.
    pub fn check(&self, probe: &mut Probe) -> CheckResult {
        let mut result = CheckResult {
            writes_done: self.writes,
            ..CheckResult::default()
        };
        let working = self.share.working.clone();
        let mut number = working.start;
        for run in self.plan.touched_runs(working) {
            for page in 0..run.pages {
                let address = run.address + page * PAGE_BYTES;
                let expected = self.expected_counter(number);
                let found: u32 = load(address);
                result.writes_found += u64::from(found);
                let kind = page_kind(self.seed, address, self.fill);
                let same = verify_page(self.seed, address, kind, COUNTER);
                note(&mut result, address, same && found == expected);
                probe.stamp(0, Gaps::Work);
                number += 1;
            }
        }
        // Counters have 32 bits: whole turns of one of them are no difference.
        if result.writes_done.wrapping_sub(result.writes_found) & COUNTER == 0 {
            result.writes_found = result.writes_done;
        }
        for run in self.plan.touched_runs(self.share.still.clone()) {
            for page in 0..run.pages {
                let address = run.address + page * PAGE_BYTES;
                let kind = page_kind(self.seed, address, self.fill);
                note(
                    &mut result,
                    address,
                    verify_page(self.seed, address, kind, 0),
                );
                probe.stamp(0, Gaps::Work);
            }
        }
        for run in self.plan.untouched_runs(self.share.untouched.clone()) {
            for page in 0..run.pages {
                let address = run.address + page * PAGE_BYTES;
                let same = verify_page(self.seed, address, PageKind::Zero, 0);
                note(&mut result, address, same);
                probe.stamp(0, Gaps::Work);
            }
        }
        result
    }

    /// How often a page of the working set was written, as memory or the order of writes has it.
    fn expected_counter(&self, number: u64) -> u32 {
        match self.pattern {
            Pattern::Sequential => {
                let begun = number - self.share.working.start < self.cursor;
                (self.passes + u64::from(begun)) as u32
            }
            Pattern::Random | Pattern::HotCold => load(self.counter(number)),
        }
    }
}

fn note(result: &mut CheckResult, address: u64, good: bool) {
    result.pages += 1;
    if !good {
        if result.bad_pages == 0 {
            result.first_bad = address;
        }
        result.bad_pages += 1;
    }
}

#[inline(always)]
fn bump(address: u64) {
    store(address, load::<u32>(address).wrapping_add(1));
}

/// Writes a page; the bits `cleared` of its first word are left 0.
fn fill_page(seed: u64, address: u64, kind: PageKind, cleared: u64) {
    let page = ptr::with_exposed_provenance_mut::<Block>(address as usize);
    for_each_block(seed, address, kind, |at, mut block| {
        if at == 0 {
            block[0] &= !cleared;
        }
        // SAFETY: `at` is below the blocks of a page, and the page is this vCPU's own.
        unsafe { page.add(at).write(block) };
    });
}

/// Whether a page holds what it should, apart from the bits `ignored` of its first word.
fn verify_page(seed: u64, address: u64, kind: PageKind, ignored: u64) -> bool {
    let page = ptr::with_exposed_provenance::<Block>(address as usize);
    let mut wrong: Block = [0; 8];
    for_each_block(seed, address, kind, |at, block| {
        // SAFETY: as `fill_page`.
        let mut found = unsafe { page.add(at).read() };
        if at == 0 {
            found[0] = (found[0] & !ignored) | (block[0] & ignored);
        }
        for ((wrong, found), expected) in wrong.iter_mut().zip(found).zip(block) {
            *wrong |= found ^ expected;
        }
    });
    wrong.iter().fold(0, |any, word| any | word) == 0
}
