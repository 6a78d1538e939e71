//! What every writer does, and how it is told to pause: the same program for a thread and for a
//! vCPU (`guest.rs`). It does not record its writes.

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

/// A control block: the command, its acknowledgement, the address of a single write, and how many
/// writes a run has.
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

    /// Lets the writer go on, for at most `writes_max` writes.
    pub(crate) fn run(&self, writes_max: u64) {
        self.memory
            .word(self.address + 24)
            .store(writes_max, Ordering::SeqCst);
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
    let (request, writes_max) = (memory.word(control + 16), memory.word(control + 24));
    let write = |page: PageIndex| {
        memory.counter(page).fetch_add(1, Ordering::Relaxed);
        written(page);
    };
    let mut random = seed.0;
    // Unknown while paused.
    let mut writes_left = None;
    loop {
        match command.load(Ordering::SeqCst) {
            RUN => {
                let left = writes_left.get_or_insert_with(|| writes_max.load(Ordering::SeqCst));
                if *left == 0 {
                    std::thread::yield_now();
                    continue;
                }
                *left -= 1;
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let page = random >> 12 & DATA_MASK;
                write(PageIndex::new(DATA.start().get() + page));
                // Slow, as a vCPU whose every write faults, so that rounds run beside it.
                (0..page % 64).for_each(|_| std::hint::spin_loop());
            }
            paused => {
                writes_left = None;
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
