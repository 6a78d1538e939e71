//! A scripted guest: what it writes, and its own books of what it has written. It knows nothing of
//! migrations and runs wherever it is told to.

use std::sync::Arc;
use std::time::Duration;

use limosa_dirty::{DirtySource, Script, ScriptedWrites};
use limosa_pages::{MemoryMap, PAGE_BYTES, PageCount, PageIndex, PageRange};
use limosa_session::Slowdown;

use super::memory::{PageBytes, SimMemory};
use super::rng::{Digest, Rng};
use super::sabotage::{LateClear, Sabotage};

/// How a guest behaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// Pages that it has written before the first migration, of 100.
    pub(crate) present_percent: u64,
    /// Pages that it writes while it runs.
    pub(crate) writes_per_second: u64,
    /// Of its writes, so many in 100 make a page zero that it wrote before.
    pub(crate) zeroing_percent: u64,
}

/// What a page should hold, by the guest's books: nothing, or bytes that follow from a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Stamp(u64);

impl Stamp {
    /// The page's bytes: zeros, noise, text that shrinks, or one word at either end.
    fn fill(self, bytes: &mut PageBytes) {
        bytes.fill(0);
        if self == Self::default() {
            return;
        }
        let (words, _) = bytes.as_chunks_mut::<8>();
        match self.0 % 4 {
            0 => {
                let mut noise = Rng::new(self.0);
                words
                    .iter_mut()
                    .for_each(|word| *word = noise.number().to_le_bytes());
            }
            1 => words.fill(self.0.to_le_bytes()),
            2 => words[0] = self.0.to_le_bytes(),
            _ => words[PAGE_BYTES / 8 - 1] = self.0.to_le_bytes(),
        }
    }
}

/// What the guest has written, page by page: the truth that memory is held against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Books(Vec<Stamp>);

impl Books {
    /// What `page` should hold.
    pub(crate) fn fill(&self, page: PageIndex, bytes: &mut PageBytes) {
        let stamp = self.0.get(page.get() as usize);
        stamp.copied().unwrap_or_default().fill(bytes);
    }

    /// One number for all of it: the guest's "state besides its memory".
    pub(crate) fn digest(&self) -> [u8; 8] {
        let mut digest = Digest::default();
        self.0
            .iter()
            .for_each(|stamp| digest.add(&stamp.0.to_le_bytes()));
        digest.get().to_le_bytes()
    }
}

/// A guest's memory on one host, with the record of its writes there.
pub(crate) struct GuestCopy {
    /// The memory.
    pub(crate) memory: Arc<SimMemory>,
    /// The record of writes.
    pub(crate) dirty: Box<dyn DirtySource>,
    /// The end at which the guest records them.
    pub(crate) writes: ScriptedWrites,
}

impl GuestCopy {
    /// A copy over `memory`, with a planted bug where `sabotage` asks for one.
    pub(crate) fn new(memory: Arc<SimMemory>, map: &MemoryMap, sabotage: Sabotage) -> Self {
        let script = Script::new(map);
        let writes = script.writes();
        let dirty: Box<dyn DirtySource> = match sabotage {
            Sabotage::ClearsAfterCopy => Box::new(LateClear::new(script)),
            _ => Box::new(script),
        };
        Self {
            memory,
            dirty,
            writes,
        }
    }
}

/// The one guest of a world. Where it runs, and whether, is the world's to say.
pub(crate) struct Guest {
    habits: Habits,
    rng: Rng,
    books: Books,
    pages: Vec<PageIndex>,
    written: Vec<PageIndex>,
    stamps: u64,
    next_write: Duration,
    slowdown: Slowdown,
    /// Of 100 writes, so many are not recorded: a planted bug.
    unseen_percent: u64,
}

impl Guest {
    /// A guest that has not written anything.
    pub(crate) fn new(map: &MemoryMap, habits: Habits, rng: Rng, sabotage: Sabotage) -> Self {
        Self {
            habits,
            rng,
            books: Books(vec![Stamp::default(); map.end().get() as usize]),
            pages: map
                .regions()
                .iter()
                .flat_map(|region| region.iter())
                .collect(),
            written: Vec::new(),
            stamps: 0,
            next_write: Duration::ZERO,
            slowdown: Slowdown::None,
            unseen_percent: match sabotage {
                Sabotage::WritesUnseen => 10,
                _ => 0,
            },
        }
    }

    /// Writes what it has before the first migration.
    pub(crate) fn boot(&mut self, copy: &GuestCopy) {
        for page in 0..self.pages.len() {
            if self.rng.chance(self.habits.present_percent) {
                let page = self.pages[page];
                self.write(page, copy);
            }
        }
    }

    /// Lets the guest run on `copy` until `now`.
    pub(crate) fn run(&mut self, copy: &GuestCopy, now: Duration) {
        while self.next_write <= now {
            self.write_once(copy);
            let mean = 1_000_000_000 / self.writes_per_second().max(1);
            self.next_write += Duration::from_nanos(self.rng.within(1, 2 * mean));
        }
    }

    /// The guest is held back from now on.
    pub(crate) const fn slow(&mut self, slowdown: Slowdown) {
        self.slowdown = slowdown;
    }

    fn writes_per_second(&self) -> u64 {
        let usual = self.habits.writes_per_second;
        match self.slowdown {
            Slowdown::None => usual,
            Slowdown::DutyCycle { run_permille } => usual * u64::from(run_permille) / 1000,
            Slowdown::DirtyLimit { bytes_per_second } => {
                usual.min(bytes_per_second / PAGE_BYTES as u64)
            }
        }
    }

    /// The guest stands still until `now`.
    pub(crate) fn sleep(&mut self, now: Duration) {
        self.next_write = self.next_write.max(now);
    }

    /// Writes one page, wherever the guest is.
    pub(crate) fn write_once(&mut self, copy: &GuestCopy) {
        if self.habits.writes_per_second == 0 {
            return;
        }
        let zeroes = self.rng.chance(self.habits.zeroing_percent);
        if let Some(page) = self.rng.pick(&self.written).filter(|_| zeroes) {
            return self.put(page, Stamp::default(), copy);
        }
        // Most writes go to few pages, as those of real guests do.
        let hot = self.pages.len() / 16;
        let is_hot = self.rng.chance(75);
        let choice = if is_hot {
            &self.pages[..hot]
        } else {
            &self.pages
        };
        if let Some(page) = self.rng.pick(choice) {
            self.write(page, copy);
        }
    }

    /// The guest's books.
    pub(crate) const fn books(&self) -> &Books {
        &self.books
    }

    fn write(&mut self, page: PageIndex, copy: &GuestCopy) {
        self.stamps += 1;
        let stamp = Stamp(self.stamps << 2 | self.rng.below(4));
        self.put(page, stamp, copy);
        if self.written.len() < WRITTEN_MAX {
            self.written.push(page);
        }
    }

    fn put(&mut self, page: PageIndex, stamp: Stamp, copy: &GuestCopy) {
        let mut bytes = [0; PAGE_BYTES];
        stamp.fill(&mut bytes);
        copy.memory.write(page, &bytes);
        if let Some(entry) = self.books.0.get_mut(page.get() as usize) {
            *entry = stamp;
        }
        let is_seen = !self.rng.chance(self.unseen_percent);
        if let Some(pages) =
            PageRange::from_start_count(page, PageCount::new(1)).filter(|_| is_seen)
        {
            copy.writes.write(pages);
        }
    }
}

/// Pages that are kept in mind to be zeroed later.
const WRITTEN_MAX: usize = 4096;
