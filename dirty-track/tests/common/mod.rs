//! Worlds for the conformance tests: memory, writers that can be paused, and the source that
//! watches them. What is demanded of a source is said in the tests.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod guest;
pub(crate) mod memory;
pub(crate) mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use guest::{Guest, Task};
use limosa_dirty::{DirtySource, Presence};
use limosa_pages::{ChunkIndex, ChunkPages, MemoryMap, PageIndex, PageRange, PageSet};
use memory::HostMemory;
use writer::{Control, DATA, DATA_MASK, Seed, write_until_told};

/// Two regions with a hole between them, at starts that suit no unit of any source: the first is
/// the writers' control and the guest's program, the second holds the data and pages never written.
pub(crate) fn map() -> MemoryMap {
    let pages = |start, end| PageRange::new(PageIndex::new(start), PageIndex::new(end)).unwrap();
    MemoryMap::new(vec![pages(0, 0x333), pages(0x401, 0xd55)]).unwrap()
}

/// A page without memory.
const HOLE: PageIndex = PageIndex::new(0x3f0);

pub(crate) struct World {
    pub(crate) memory: Arc<HostMemory>,
    pub(crate) source: Box<dyn DirtySource>,
    /// Pages that hold nothing are not read: that would make a source report them.
    presence: Presence,
    writers: Vec<JoinHandle<()>>,
    pause_count: u64,
    /// The counters as they were read when their pages were rearmed: the copy at the target.
    copy: Vec<u64>,
    /// The VM, for as long as its vCPU runs.
    guest: Option<Guest>,
}

impl World {
    pub(crate) fn new(memory: Arc<HostMemory>, source: Box<dyn DirtySource>) -> Self {
        let map = map();
        let mappings = map.regions().iter().map(|&pages| memory.mapping(pages));
        Self {
            presence: Presence::new(mappings.collect()),
            memory,
            source,
            writers: Vec::new(),
            pause_count: 1,
            copy: vec![u64::MAX; DATA.count().get() as usize],
            guest: None,
        }
    }

    /// Adds a thread that writes, and calls `written` after each write. It is paused.
    pub(crate) fn with_thread(mut self, written: impl Fn(PageIndex) + Send + 'static) -> Self {
        let (memory, writer) = (self.memory.clone(), self.writers.len());
        let control = Control::new(&memory, writer);
        control.pause(self.pause_count);
        let address = control.address();
        let seed = Seed(writer as u64 + 7);
        self.writers.push(std::thread::spawn(move || {
            write_until_told(&memory, address, seed, written);
        }));
        self
    }

    /// Adds one of the guest's vCPUs as a writer. It is paused.
    pub(crate) fn with_guest(self, guest: Guest) -> Self {
        self.with_vcpus(guest, 1)
    }

    /// Adds the guest's vCPUs as writers. They are paused.
    pub(crate) fn with_vcpus(mut self, mut guest: Guest, count: usize) -> Self {
        (0..count).for_each(|_| self.add_vcpu(&mut guest));
        self.guest = Some(guest);
        self
    }

    fn add_vcpu(&mut self, guest: &mut Guest) {
        let writer = self.writers.len();
        let control = Control::new(&self.memory, writer);
        control.pause(self.pause_count);
        let task = Task {
            control: control.address(),
            seed: Seed(writer as u64 + 7),
            data: DATA.start(),
            data_mask: DATA_MASK,
            hole: HOLE,
        };
        self.writers.push(guest.spawn(self.memory.clone(), &task));
    }

    fn controls(&self) -> impl Iterator<Item = Control<'_>> {
        (0..self.writers.len()).map(|writer| Control::new(&self.memory, writer))
    }

    /// Lets every writer go on, for so few writes that most pages are written once: a write that
    /// is lost is then not made good by the next one.
    pub(crate) fn run_writers(&self) {
        self.controls().for_each(|control| control.run(300));
    }

    /// Returns when every writer stands still.
    pub(crate) fn pause_writers(&mut self) {
        self.pause_count += 1;
        self.controls()
            .for_each(|control| control.pause(self.pause_count));
        self.controls()
            .for_each(|control| control.wait_paused(self.pause_count));
    }

    /// Each of the paused writers writes `page` once.
    pub(crate) fn write(&self, page: PageIndex) {
        self.controls().for_each(|control| control.write(page));
    }

    /// Starts the source, and takes what holds nothing as copied: it need not be reported.
    pub(crate) fn start(&mut self) {
        self.source.start().unwrap();
        let populated = self.populated();
        for page in DATA.iter().filter(|page| !populated.contains(*page)) {
            self.keep(page, 0);
        }
    }

    /// The pages of the map that hold anything.
    pub(crate) fn populated(&self) -> PageSet {
        let mut pages = PageSet::new(map().end());
        for region in map().regions() {
            self.presence
                .each_run(*region, &mut |run| pages.insert_range(run));
        }
        pages
    }

    /// The written pages among those that the writers may write.
    pub(crate) fn harvest(&mut self) -> PageSet {
        let mut dirty = PageSet::new(map().end());
        let gained = self.source.harvest(&mut dirty).unwrap();
        assert_eq!(gained, dirty.count());
        let mut data = PageSet::new(map().end());
        data.insert_range(DATA);
        dirty.intersect(&data);
        dirty
    }

    /// Rearms and then copies `dirty`, on `thread_count` threads.
    pub(crate) fn copy(&mut self, dirty: &PageSet, thread_count: usize) {
        let (source, world) = (&*self.source, &*self);
        let chunks: Vec<_> = dirty.chunks().collect();
        let copy_share = |share: usize| {
            let mut copied = Vec::new();
            for &(chunk, mut pages) in chunks.iter().skip(share).step_by(thread_count) {
                source.rearm(chunk, &mut pages).unwrap();
                copied.extend(world.counters(chunk, &pages));
            }
            copied
        };
        let copied: Vec<Vec<_>> = if thread_count == 1 {
            vec![copy_share(0)]
        } else {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..thread_count)
                    .map(|share| scope.spawn(move || copy_share(share)))
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            })
        };
        for (page, value) in copied.into_iter().flatten() {
            self.keep(page, value);
        }
    }

    pub(crate) fn keep(&mut self, page: PageIndex, value: u64) {
        if DATA.contains(page) {
            self.copy[(page.get() - DATA.start().get()) as usize] = value;
        }
    }

    /// Harvests, rearms and copies once; what was reported of the writers' pages.
    pub(crate) fn drain(&mut self) -> PageSet {
        let dirty = self.harvest();
        self.copy(&dirty, 1);
        dirty
    }

    /// The pages whose copy is not what the memory holds now.
    pub(crate) fn stale(&self) -> Vec<PageIndex> {
        let chunks = DATA.chunks();
        let counters = chunks.flat_map(|(chunk, part)| {
            let pages = ChunkPages::of_range(chunk, part);
            self.counters(chunk, &pages)
        });
        counters
            .zip(&self.copy)
            .filter(|((_, counter), copy)| counter != *copy)
            .map(|((page, _), _)| page)
            .collect()
    }

    /// What some pages of a chunk hold, in order.
    fn counters(&self, chunk: ChunkIndex, pages: &ChunkPages) -> Vec<(PageIndex, u64)> {
        let present = self.presence.chunk(chunk);
        let offsets = pages.runs().flat_map(|(first, count)| first..first + count);
        let counter = |offset| match present.contains(offset) {
            true => self
                .memory
                .counter(chunk.page(offset))
                .load(Ordering::Relaxed),
            false => 0,
        };
        offsets
            .map(|offset| (chunk.page(offset), counter(offset)))
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.controls().for_each(|control| control.end());
        for writer in self.writers.drain(..) {
            let _ = writer.join();
        }
    }
}
