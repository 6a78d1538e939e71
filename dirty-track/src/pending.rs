//! What a log of one bit per page said when it was last read, less what was rearmed since. It reads
//! and clears no log.

use std::array;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use limosa_pages::{CHUNK_WORDS, ChunkIndex, ChunkPages, PageCount, PageIndex, PageRange, PageSet};
use zerocopy::FromZeros;

use crate::asleep::end_of_chunk;
use crate::parts::sum_of_parts;

const WORD_PAGES: usize = u64::BITS as usize;

/// The bits of a stretch of the guest's memory: bit *i* for its *i*-th page, as kernels have it.
///
/// A log is read straight into the bits, and pages are taken out as they are rearmed; so that each
/// page costs one bit here, beside that in the set which a harvest fills.
///
/// The bits are cleared in the log block by block, each as it was read: a page of a block may only
/// be taken out once the block was cleared.
pub(crate) struct Pending {
    pages: PageRange,
    words: Box<[AtomicU64]>,
    /// How many bits are set, asleep blocks aside; all that a reading has to know to see that it
    /// overwrites nothing.
    left_count: AtomicU64,
    block_words: usize,
    blocks: Vec<Block>,
}

/// Words that are cleared in the log together.
#[derive(Default)]
struct Block {
    /// Since the last reading.
    cleared: AtomicBool,
    /// Its bits mean nothing: no page of it is written.
    asleep: bool,
}

impl Pending {
    /// Nothing is pending of `pages`.
    pub(crate) fn new(pages: PageRange) -> Option<Self> {
        let word_count = pages.count().get().div_ceil(WORD_PAGES as u64) as usize;
        let pending = Self {
            pages,
            // From the kernel, which has it zeroed where it is first touched.
            words: <[AtomicU64]>::new_box_zeroed_with_elems(word_count).ok()?,
            left_count: AtomicU64::new(0),
            block_words: CHUNK_WORDS,
            blocks: Vec::new(),
        };
        Some(pending.with_block_chunks(1))
    }

    /// The same with blocks of so many chunks.
    pub(crate) fn with_block_chunks(mut self, chunks: u16) -> Self {
        self.block_words = usize::from(chunks).max(1) * CHUNK_WORDS;
        let block_count = self.words.len().div_ceil(self.block_words);
        self.blocks = (0..block_count).map(|_| Block::default()).collect();
        self
    }

    /// Takes every page out.
    pub(crate) fn clear(&mut self) {
        let left_count = std::mem::take(self.left_count.get_mut());
        if left_count != 0 || self.blocks.iter().any(|block| block.asleep) {
            self.words.iter_mut().for_each(|word| *word.get_mut() = 0);
        }
        self.blocks.fill_with(Block::default);
    }

    /// Adds what `read` writes over the words. To be followed by [`add_to`](Self::add_to).
    ///
    /// # Errors
    /// Those of `read`; what is pending has no meaning then.
    pub(crate) fn read<E>(
        &mut self,
        read: impl FnOnce(&mut [AtomicU64]) -> Result<(), E>,
    ) -> Result<(), E> {
        let left = self.left();
        self.blocks.fill_with(Block::default);
        read(&mut self.words)?;
        let tail = self.pages.count().get() % WORD_PAGES as u64;
        if let Some(last) = self.words.last_mut().filter(|_| tail != 0) {
            *last.get_mut() &= u64::MAX >> (WORD_PAGES as u64 - tail);
        }
        for (nth, pages) in left.iter().flat_map(PageSet::chunks) {
            let words = self.words.iter_mut().skip(nth.get() as usize * CHUNK_WORDS);
            words
                .zip(pages.words())
                .for_each(|(word, left)| *word.get_mut() |= left);
        }
        Ok(())
    }

    /// The bits that are set; `None` where there are none, as after a round that sent everything.
    fn left(&mut self) -> Option<PageSet> {
        if *self.left_count.get_mut() == 0 {
            return None;
        }
        let mut left = PageSet::new(PageIndex::new(self.pages.count().get()));
        let words = self.words.chunks_mut(CHUNK_WORDS).enumerate();
        for (nth, words) in words {
            let block = &self.blocks[nth * CHUNK_WORDS / self.block_words];
            if !block.asleep {
                let mut pages = ChunkPages::EMPTY;
                for (page, word) in pages.words_mut().iter_mut().zip(words) {
                    *page = *word.get_mut();
                }
                left.insert_chunk(ChunkIndex::new(nth as u64), &pages);
            }
        }
        Some(left)
    }

    /// Adds those of `pages` that are there. To be followed by [`add_to`](Self::add_to).
    pub(crate) fn insert_range(&mut self, pages: PageRange) {
        self.change(pages, |word, mask| *word |= mask);
    }

    /// Takes those of `pages` out that are there, for what the log says of them means nothing.
    ///
    /// To be called after a reading, and followed by [`add_to`](Self::add_to), which is not to be
    /// told of these pages either: the bits of whole blocks stay as they are.
    pub(crate) fn let_sleep(&mut self, pages: PageRange) {
        let pages = pages.intersect(self.pages);
        if pages.is_empty() {
            return;
        }
        let block_pages = (self.block_words * WORD_PAGES) as u64;
        let offset = |page: PageIndex| page.get() - self.pages.start().get();
        let first = offset(pages.start()).div_ceil(block_pages);
        let beyond = match offset(pages.end()) {
            _ if pages.end() == self.pages.end() => self.blocks.len() as u64,
            end => end / block_pages,
        };
        if first >= beyond {
            return self.change(pages, |word, mask| *word &= !mask);
        }
        let page = |block: u64| PageIndex::new(self.pages.start().get() + block * block_pages);
        let (from, until) = (page(first), page(beyond).min(pages.end()));
        let ends = [(pages.start(), from), (until, pages.end())];
        for (start, end) in ends {
            let end = PageRange::new(start, end).unwrap_or(PageRange::empty());
            self.change(end, |word, mask| *word &= !mask);
        }
        for block in &mut self.blocks[first as usize..beyond as usize] {
            block.asleep = true;
        }
    }

    fn change(&mut self, pages: PageRange, change: impl Fn(&mut u64, u64)) {
        let pages = pages.intersect(self.pages);
        let bit = |page: PageIndex| page.get().saturating_sub(self.pages.start().get()) as usize;
        let (mut from, end) = (bit(pages.start()), bit(pages.end()));
        while from < end {
            let first = from % WORD_PAGES;
            let count = (WORD_PAGES - first).min(end - from);
            let mask = (u64::MAX >> (WORD_PAGES - count)) << first;
            if let Some(word) = self.words.get_mut(from / WORD_PAGES) {
                change(word.get_mut(), mask);
            }
            from += count;
        }
    }

    /// Adds what is pending to `dirty`, on all logical processors. Only the parts of a range that
    /// `awake` gives for it are looked at: all that do not [sleep](Self::let_sleep), in whole
    /// chunks, none twice.
    pub(crate) fn add_to<Awake: Iterator<Item = PageRange>>(
        &mut self,
        dirty: &mut PageSet,
        awake: impl Fn(PageRange) -> Awake + Sync,
    ) {
        let bits = Bits {
            pages: self.pages,
            words: plain(&mut self.words),
        };
        let inside = sum_of_parts(dirty, |part| {
            let awake = awake(part.pages().intersect(bits.pages));
            if part.count() == PageCount::ZERO {
                bits.each_chunk(awake, |chunk, pages| part.insert_chunk(chunk, pages));
                return part.count().get();
            }
            let mut count = 0;
            bits.each_chunk(awake, |chunk, pages| {
                count += u64::from(pages.count());
                part.insert_chunk(chunk, pages);
            });
            count
        });
        // What `dirty` has no place for stays pending.
        let mut beyond = 0;
        if let Some(rest) = PageRange::new(end_of_chunk(dirty.bound()), bits.pages.end()) {
            let awake = awake(rest.intersect(bits.pages));
            bits.each_chunk(awake, |_, pages| beyond += u64::from(pages.count()));
        }
        *self.left_count.get_mut() = inside + beyond;
    }

    /// Takes pages of `chunk` out. The blocks that it [touches](Self::blocks_of) were cleared.
    pub(crate) fn remove_chunk(&self, chunk: ChunkIndex, pages: &ChunkPages) {
        let mut removed = 0;
        let mut take = |at: usize, mask: u64| {
            if !self.blocks[at / self.block_words].asleep {
                let old = self.words[at].fetch_and(!mask, Ordering::AcqRel);
                removed += u64::from((old & mask).count_ones());
            }
        };
        let words = pages.words().iter().enumerate();
        let words = words.filter(|(_, pages)| **pages != 0);
        match self.aligned(chunk) {
            Some(first) => words.for_each(|(nth, pages)| take(first + nth, *pages)),
            None => words.for_each(|(nth, pages)| {
                around(self.pages, self.words.len(), chunk, nth, |at, shift| {
                    let mask = if shift < 0 {
                        pages >> -shift
                    } else {
                        pages << shift
                    };
                    take(at, mask);
                });
            }),
        }
        if removed != 0 {
            self.left_count.fetch_sub(removed, Ordering::AcqRel);
        }
    }

    /// Which word is the first of `chunk`, where the chunk has eight to itself.
    fn aligned(&self, chunk: ChunkIndex) -> Option<usize> {
        let start = chunk.pages().start().get();
        let offset = start.checked_sub(self.pages.start().get())? as usize;
        let first = offset / WORD_PAGES;
        let is_whole = first + CHUNK_WORDS <= self.words.len();
        (offset.is_multiple_of(WORD_PAGES) && is_whole).then_some(first)
    }

    /// The blocks that hold bits of `chunk`.
    pub(crate) fn blocks_of(&self, chunk: ChunkIndex) -> Range<usize> {
        let part = self.pages.intersect(chunk.pages());
        if part.is_empty() {
            return 0..0;
        }
        let block_pages = (self.block_words * WORD_PAGES) as u64;
        let offset = |page: PageIndex| page.get() - self.pages.start().get();
        let first = offset(part.start()) / block_pages;
        first as usize..offset(part.end()).div_ceil(block_pages) as usize
    }

    /// Whether `block` was cleared in the log since the last reading, or need not be.
    pub(crate) fn is_cleared(&self, block: usize) -> bool {
        let block = self.blocks.get(block);
        block.is_none_or(|block| block.asleep || block.cleared.load(Ordering::Acquire))
    }

    /// Whoever sees this takes pages of `block` out.
    pub(crate) fn set_cleared(&self, block: usize) {
        if let Some(block) = self.blocks.get(block) {
            block.cleared.store(true, Ordering::Release);
        }
    }

    /// Makes `bits` the words of `block` from the first to the last that has a bit, and returns
    /// which word of all the first is; `None` where there is no bit. To be called before the block
    /// is cleared, and by one thread at a time.
    pub(crate) fn block(&self, block: usize, bits: &mut Vec<u64>) -> Option<usize> {
        let start = block * self.block_words;
        let end = self.words.len().min(start + self.block_words);
        let words = self.words.get(start..end)?;
        let has_bits = |word: &AtomicU64| word.load(Ordering::Relaxed) != 0;
        let first = words.iter().position(has_bits)?;
        let last = words.iter().rposition(has_bits)?;
        bits.clear();
        let words = words[first..=last].iter();
        bits.extend(words.map(|word| word.load(Ordering::Relaxed)));
        Some(start + first)
    }

    /// The pages of which it has bits.
    pub(crate) fn pages(&self) -> PageRange {
        self.pages
    }

    pub(crate) fn overhead_bytes(&self) -> usize {
        size_of_val(&*self.words) + size_of_val(self.blocks.as_slice())
    }
}

/// The bits while nobody changes them.
struct Bits<'a> {
    pages: PageRange,
    words: &'a [u64],
}

impl Bits<'_> {
    /// Hands the chunks of `awake` that have a page to `add`, with all that is pending of them.
    fn each_chunk(
        &self,
        awake: impl Iterator<Item = PageRange>,
        mut add: impl FnMut(ChunkIndex, &ChunkPages),
    ) {
        for awake in awake.filter(|awake| !awake.is_empty()) {
            let beyond = end_of_chunk(awake.end()).chunk().get();
            for chunk in awake.start().chunk().get()..beyond {
                let chunk = ChunkIndex::new(chunk);
                let pages = self.chunk(chunk);
                if !pages.is_empty() {
                    add(chunk, &pages);
                }
            }
        }
    }

    /// The pages of `chunk` that are pending; of a chunk that sleeps they have no meaning.
    fn chunk(&self, chunk: ChunkIndex) -> ChunkPages {
        let start = chunk.pages().start().get();
        let offset = start.wrapping_sub(self.pages.start().get()) as usize;
        if offset.is_multiple_of(WORD_PAGES) {
            let at = offset / WORD_PAGES;
            if let Some(words) = self.words.get(at..at.saturating_add(CHUNK_WORDS))
                && let Some(words) = words.first_chunk::<CHUNK_WORDS>()
            {
                return ChunkPages::from_words(*words);
            }
        }
        ChunkPages::from_words(array::from_fn(|nth| {
            let mut pages = 0;
            around(self.pages, self.words.len(), chunk, nth, |at, shift| {
                pages |= if shift < 0 {
                    self.words[at] << -shift
                } else {
                    self.words[at] >> shift
                };
            });
            pages
        }))
    }
}

/// Where the pages of the `nth` word of `chunk` are among the words of `pages`: in up to two, each
/// with how much further to the left its bits are than in the chunk's word.
fn around(
    pages: PageRange,
    word_count: usize,
    chunk: ChunkIndex,
    nth: usize,
    mut word: impl FnMut(usize, i32),
) {
    let page = chunk.pages().start().get() as i64 + (nth * WORD_PAGES) as i64;
    let offset = page - pages.start().get() as i64;
    let (at, shift) = (
        offset.div_euclid(WORD_PAGES as i64),
        offset.rem_euclid(WORD_PAGES as i64) as i32,
    );
    for (at, shift) in [(at, shift), (at + 1, shift - WORD_PAGES as i32)] {
        let is_there = usize::try_from(at).is_ok_and(|at| at < word_count);
        if is_there && shift > -(WORD_PAGES as i32) {
            word(at as usize, shift);
        }
    }
}

/// The words without their atomicity, which would keep a processor from reading several at once.
fn plain(words: &mut [AtomicU64]) -> &mut [u64] {
    zerocopy::transmute_mut!(words)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use limosa_pages::CHUNK_PAGES;
    use proptest::prelude::*;

    use super::*;
    use crate::asleep;

    /// What happens to a log, with chunks and pages counted from the one that holds the first page.
    #[derive(Clone, Debug)]
    enum Step {
        /// The guest writes these pages, and the log is read; these runs of chunks sleep.
        Read(Vec<u64>, Vec<(u64, u64)>),
        Rearm(u64, [u64; CHUNK_WORDS]),
    }

    fn step() -> impl Strategy<Value = Step> {
        let pages = proptest::collection::vec(0..4000_u64, 0..60);
        let runs = proptest::collection::vec((0..4_u64, 1..5_u64), 0..3);
        let word = prop_oneof![Just(u64::MAX), any::<u64>()];
        prop_oneof![
            (pages, runs).prop_map(|(pages, runs)| Step::Read(pages, runs)),
            (0..9_u64, proptest::array::uniform8(word))
                .prop_map(|(chunk, pages)| Step::Rearm(chunk, pages)),
        ]
    }

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::new(PageIndex::new(start), PageIndex::new(end)).unwrap()
    }

    fn numbers(set: &PageSet) -> BTreeSet<u64> {
        let pages = set.runs().flat_map(PageRange::iter);
        pages.map(PageIndex::get).collect()
    }

    /// One after the other, none touching: as `Asleep` has them.
    fn runs_of(first_chunk: u64, gaps: &[(u64, u64)]) -> Vec<PageRange> {
        let mut from = first_chunk;
        let runs = gaps.iter().map(|(gap, count)| {
            let start = from + gap;
            from = start + count + 1;
            range(start * CHUNK_PAGES, (start + count) * CHUNK_PAGES)
        });
        runs.collect()
    }

    /// A kernel's log with its oracle: plain sets of page numbers.
    struct World {
        slot: PageRange,
        pending: Pending,
        /// What the kernel has; reading takes nothing out.
        log: BTreeSet<u64>,
        reported: BTreeSet<u64>,
        asleep: Vec<PageRange>,
    }

    impl World {
        fn read(&mut self, written: &[u64], gaps: &[(u64, u64)]) {
            let (slot, start) = (self.slot, self.slot.start().get());
            let written = written.iter().map(|page| start + page);
            self.log
                .extend(written.filter(|page| *page < slot.end().get()));
            let read = |words: &mut [AtomicU64]| {
                words.iter_mut().for_each(|word| *word.get_mut() = 0);
                for page in self.log.iter().map(|page| page - start) {
                    *words[page as usize / 64].get_mut() |= 1 << (page % 64);
                }
                Ok::<(), ()>(())
            };
            self.pending.read(read).unwrap();
            self.reported.extend(&self.log);
            // A slot's own sleepers: whole chunks.
            let whole = range(
                start.next_multiple_of(CHUNK_PAGES),
                (slot.end().get() / CHUNK_PAGES * CHUNK_PAGES).max(start.next_multiple_of(512)),
            );
            let runs = runs_of(start / CHUNK_PAGES, gaps).into_iter();
            let runs = runs
                .map(|run| run.intersect(whole))
                .filter(|run| !run.is_empty());
            self.asleep = runs.collect();
            for run in &self.asleep {
                self.pending.let_sleep(*run);
                self.reported
                    .retain(|page| !run.contains(PageIndex::new(*page)));
            }
            let mut dirty = PageSet::new(slot.end());
            let runs = &self.asleep;
            self.pending
                .add_to(&mut dirty, |pages| asleep::awake(runs, pages));
            assert_eq!(numbers(&dirty), self.reported);
        }

        fn rearm(&mut self, chunk: ChunkIndex, pages: &ChunkPages) {
            for block in self.pending.blocks_of(chunk) {
                if self.pending.is_cleared(block) {
                    continue;
                }
                let mut bits = Vec::new();
                if let Some(first) = self.pending.block(block, &mut bits) {
                    let mut cleared = PageSet::new(self.slot.end());
                    let first = PageCount::new(first as u64 * 64);
                    cleared.insert_bits(self.slot.start().saturating_add(first), &bits);
                    let sleeps = |page: &u64| {
                        let mut runs = self.asleep.iter();
                        runs.any(|run| run.contains(PageIndex::new(*page)))
                    };
                    let cleared = numbers(&cleared);
                    assert!(!cleared.iter().any(sleeps), "what sleeps is not cleared");
                    self.log.retain(|page| !cleared.contains(page));
                }
                self.pending.set_cleared(block);
            }
            self.pending.remove_chunk(chunk, pages);
            let gone =
                |page: PageIndex| page.chunk() == chunk && pages.contains(page.offset_in_chunk());
            self.reported.retain(|page| !gone(PageIndex::new(*page)));
            let left_count = self.pending.left_count.load(Ordering::Relaxed);
            assert_eq!(left_count, self.reported.len() as u64);
        }
    }

    proptest! {
        #[test]
        fn what_is_pending_is_what_was_read_and_not_rearmed(
            start in prop_oneof![Just(0), Just(512), Just(1024), 0..1300_u64],
            count in 1..4000_u64,
            block_chunks in 1..5_u16,
            steps in proptest::collection::vec(step(), 0..24),
        ) {
            let slot = range(start, start + count);
            let pending = Pending::new(slot).unwrap().with_block_chunks(block_chunks);
            let mut world = World {
                slot,
                pending,
                log: BTreeSet::new(),
                reported: BTreeSet::new(),
                asleep: Vec::new(),
            };
            world.read(&[], &[]);
            for step in &steps {
                match step {
                    Step::Read(written, gaps) => world.read(written, gaps),
                    Step::Rearm(nth, pages) => {
                        let chunk = ChunkIndex::new(start / CHUNK_PAGES + nth);
                        world.rearm(chunk, &ChunkPages::from_words(*pages));
                    }
                }
            }
            world.pending.clear();
            world.log.clear();
            world.reported.clear();
            world.read(&[], &[]);
        }
    }
}
