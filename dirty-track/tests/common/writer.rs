//! What every writer does, and how it is told to pause: the same program for a thread and for a vCPU
//! (`guest.rs`). It does not record its writes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use limosa_pages::{PageIndex, PageRange};

use super::memory::HostMemory;

/// Pages that writers count up. Neither their start nor their end is one of a word of 64 pages, a
/// chunk or a memory region.
pub(crate) const DATA: PageRange =
    match PageRange::new(PageIndex::new(0x415), PageIndex::new(0xc15)) {
        Some(pages) => pages,
        None => PageRange::empty(),
    };

/// Which bits of a random number choose one of those pages.
pub(crate) const DATA_MASK: u64 = 0x7ff;

/// Where the first writer's control block lies; the others' follow, a page each.
const CONTROL: u64 = 0x20000;

const RUN: u64 = 0;
const END: u64 = u64::MAX;
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Where a writer's random numbers begin.
#[derive(Clone, Copy)]
pub(crate) struct Seed(pub(crate) u64);

/// A control block: the command, its acknowledgement, and the address of a single write.
pub(crate) struct Control<'a> {
    memory: &'a HostMemory,
    address: u64,
}

impl<'a> Control<'a> {
    pub(crate) fn new(memory: &'a HostMemory, writer: usize) -> Self {
        Self {
            memory,
            address: CONTROL + 0x1000 * writer as u64,
        }
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn run(&self) {
        self.memory.word(self.address).store(RUN, Ordering::SeqCst);
    }

    /// Tells the writer to pause; `pause_count` differs from that of the pause before.
    pub(crate) fn pause(&self, pause_count: u64) {
        self.memory
            .word(self.address)
            .store(pause_count, Ordering::SeqCst);
    }

    pub(crate) fn end(&self) {
        self.pause(END);
    }

    /// Waits until the writer stands still, and has recorded what it wrote.
    pub(crate) fn wait_paused(&self, pause_count: u64) {
        wait_for(|| self.memory.word(self.address + 8).load(Ordering::SeqCst) == pause_count);
    }

    /// Lets the paused writer write one page, and waits until it has.
    pub(crate) fn write(&self, page: PageIndex) {
        let request = self.memory.word(self.address + 16);
        request.store(page.address().get(), Ordering::SeqCst);
        wait_for(|| request.load(Ordering::SeqCst) == 0);
    }
}

fn wait_for(done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < STUCK_AFTER, "a writer does not answer");
        std::thread::yield_now();
    }
}

/// Counts up random pages until it is told to end, and calls `written` after each write.
pub(crate) fn write_until_told(
    memory: &HostMemory,
    control: u64,
    seed: Seed,
    written: impl Fn(PageIndex),
) {
    let (command, answer) = (memory.word(control), memory.word(control + 8));
    let request = memory.word(control + 16);
    let write = |page: PageIndex| {
        memory.counter(page).fetch_add(1, Ordering::Relaxed);
        written(page);
    };
    let mut random = seed.0;
    loop {
        match command.load(Ordering::SeqCst) {
            RUN => {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                write(PageIndex::new(
                    DATA.start().get() + (random >> 12 & DATA_MASK),
                ));
            }
            paused => {
                answer.store(paused, Ordering::SeqCst);
                if paused == END {
                    return;
                }
                let page = request.load(Ordering::SeqCst) >> 12;
                if page != 0 {
                    write(PageIndex::new(page));
                    request.store(0, Ordering::SeqCst);
                }
                std::thread::yield_now();
            }
        }
    }
}
