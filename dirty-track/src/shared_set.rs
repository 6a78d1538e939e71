//! A set of pages that many threads change at once, one atomic bit per page. It does not know what
//! its pages have in common.

use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use limosa_pages::{
    CHUNK_PAGES, CHUNK_WORDS, ChunkIndex, ChunkPages, PageIndex, PageRange, PageSet,
};

use crate::parts::sum_of_parts;

const WORD_PAGES: u64 = u64::BITS as u64;
/// Chunks of a block, which takes a page of memory: 128 MiB of the guest's.
const BLOCK_CHUNKS: usize = 64;
const BLOCK_WORDS: usize = BLOCK_CHUNKS * CHUNK_WORDS;
const BLOCK_PAGES: u64 = BLOCK_CHUNKS as u64 * CHUNK_PAGES;

struct Block {
    words: [AtomicU64; BLOCK_WORDS],
    /// A bit for each chunk. One that has a page has its bit, once the page's insertion is done;
    /// one that has none may have it.
    summary: AtomicU64,
}

impl Block {
    fn new() -> Self {
        Self {
            words: array::from_fn(|_| AtomicU64::new(0)),
            summary: AtomicU64::new(0),
        }
    }

    fn add(&self, at: usize, bits: u64) {
        // Always a locked operation, even where a look would find the bits set: on x86 the look
        // could be done before the caller's own store is visible, and a remove in between would
        // then lose that store. The summary comes after it: see `pages`.
        self.words[at].fetch_or(bits, Ordering::SeqCst);
        let chunk = 1 << (at / CHUNK_WORDS);
        if self.summary.load(Ordering::SeqCst) & chunk == 0 {
            self.summary.fetch_or(chunk, Ordering::SeqCst);
        }
    }

    /// The words of a chunk.
    fn chunk(&self, nth: usize) -> &[AtomicU64] {
        &self.words[nth * CHUNK_WORDS..][..CHUNK_WORDS]
    }

    fn load(&self, nth: usize) -> ChunkPages {
        let mut pages = ChunkPages::EMPTY;
        for (page, word) in pages.words_mut().iter_mut().zip(self.chunk(nth)) {
            *page = word.load(Ordering::SeqCst);
        }
        pages
    }

    /// The pages of a chunk that the summary has; one without pages is taken out of the summary.
    ///
    /// It is taken out first and looked at again after that, whereas `add` sets the word's bit
    /// first: of the two, in one order of all these operations, one sees the other. So either the
    /// page is found here and the chunk put back, or `add` finds the chunk gone and puts it back.
    fn pages(&self, nth: usize) -> ChunkPages {
        let pages = self.load(nth);
        if !pages.is_empty() {
            return pages;
        }
        self.summary.fetch_and(!(1 << nth), Ordering::SeqCst);
        let pages = self.load(nth);
        if !pages.is_empty() {
            self.summary.fetch_or(1 << nth, Ordering::SeqCst);
        }
        pages
    }
}

/// Pages below a bound. Every change is one atomic operation per 64 pages; there is no lock.
///
/// Whoever removes a page sees all that was written to memory before the page was inserted. Memory
/// is taken for blocks in which a page was ever inserted.
pub(crate) struct SharedPageSet {
    bound: PageIndex,
    blocks: Box<[OnceLock<Box<Block>>]>,
}

impl SharedPageSet {
    pub(crate) fn new(bound: PageIndex) -> Self {
        let block_count = bound.get().div_ceil(BLOCK_PAGES) as usize;
        Self {
            bound,
            blocks: (0..block_count).map(|_| OnceLock::new()).collect(),
        }
    }

    /// How many bytes of memory the set takes now.
    pub(crate) fn overhead_bytes(&self) -> usize {
        let blocks = self.blocks.iter().filter_map(OnceLock::get);
        size_of_val(&*self.blocks) + blocks.count() * size_of::<Block>()
    }

    fn add(&self, at: usize, bits: u64) {
        if bits != 0
            && let Some(block) = self.blocks.get(at / BLOCK_WORDS)
        {
            let block = block.get_or_init(|| Box::new(Block::new()));
            block.add(at % BLOCK_WORDS, bits);
        }
    }

    /// Adds the pages of `range`; those at or beyond the bound are left out.
    pub(crate) fn insert_range(&self, range: PageRange) {
        let end = range.end().min(self.bound).get();
        let mut page = range.start().get();
        while page < end {
            let first = page % WORD_PAGES;
            let count = (end - page).min(WORD_PAGES - first);
            let mask = (u64::MAX >> (WORD_PAGES - count)) << first;
            self.add((page / WORD_PAGES) as usize, mask);
            page += count;
        }
    }

    /// Adds this set's pages to `pages`, on all logical processors; costs what was inserted since
    /// it was last done. One thread at a time.
    pub(crate) fn add_to(&self, pages: &mut PageSet) {
        sum_of_parts(pages, |part| {
            let block_of = |page: PageIndex| page.get().div_ceil(BLOCK_PAGES) as usize;
            let first = block_of(part.pages().start());
            let beyond = block_of(part.pages().end());
            let blocks = self.blocks.iter().enumerate().take(beyond).skip(first);
            for (at, block) in blocks {
                let Some(block) = block.get() else {
                    continue;
                };
                let mut marked = block.summary.load(Ordering::SeqCst);
                while marked != 0 {
                    let nth = marked.trailing_zeros() as usize;
                    marked &= marked - 1;
                    let chunk = ChunkIndex::new((at * BLOCK_CHUNKS + nth) as u64);
                    part.insert_chunk(chunk, &block.pages(nth));
                }
            }
            0
        });
    }

    /// Takes pages of `chunk` out.
    pub(crate) fn remove_chunk(&self, chunk: ChunkIndex, pages: &ChunkPages) {
        let (at, nth) = (
            chunk.get() as usize / BLOCK_CHUNKS,
            chunk.get() as usize % BLOCK_CHUNKS,
        );
        let block = self.blocks.get(at).and_then(OnceLock::get);
        let words = block.map_or(&[][..], |block| block.chunk(nth));
        for (word, &pages) in words.iter().zip(pages.words()) {
            if pages != 0 {
                word.fetch_and(!pages, Ordering::SeqCst);
            }
        }
    }

    /// Takes every page out, and keeps the memory: others may have the set meanwhile.
    pub(crate) fn remove_all(&self) {
        for block in self.blocks.iter().filter_map(OnceLock::get) {
            block
                .words
                .iter()
                .for_each(|word| word.store(0, Ordering::Release));
        }
    }

    /// Takes every page out. Nobody else has the set meanwhile.
    pub(crate) fn clear(&mut self) {
        for block in &mut self.blocks {
            block.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, end: u64) -> PageRange {
        PageRange::new(PageIndex::new(start), PageIndex::new(end)).unwrap()
    }

    fn pages_of(set: &SharedPageSet) -> Vec<u64> {
        let mut pages = PageSet::new(set.bound);
        set.add_to(&mut pages);
        pages
            .runs()
            .flat_map(PageRange::iter)
            .map(PageIndex::get)
            .collect()
    }

    #[test]
    fn ranges_land_where_single_pages_would() {
        let bound = 1300;
        for (start, end) in [
            (0, 1),
            (63, 65),
            (0, 64),
            (64, 128),
            (1, 700),
            (1290, 1400),
            (9, 9),
        ] {
            let set = SharedPageSet::new(PageIndex::new(bound));
            set.insert_range(range(start, end));
            assert_eq!(pages_of(&set), (start..end.min(bound)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn removing_takes_only_what_it_names() {
        let mut set = SharedPageSet::new(PageIndex::new(1300));
        set.insert_range(range(500, 600));
        let mut pages = ChunkPages::EMPTY;
        pages.insert_run(0, 80);
        set.remove_chunk(ChunkIndex::new(1), &pages);
        set.remove_chunk(ChunkIndex::new(99), &ChunkPages::FULL);
        assert_eq!(
            pages_of(&set),
            (500..512).chain(592..600).collect::<Vec<_>>()
        );
        set.remove_all();
        assert!(pages_of(&set).is_empty());
        set.insert_range(range(500, 600));
        set.clear();
        assert!(pages_of(&set).is_empty());
    }

    /// Chunks leave the summary while pages come into them, again and again.
    #[test]
    fn a_page_that_is_inserted_while_others_are_removed_is_reported() {
        const CHUNKS: u64 = 6;
        const THREADS: u64 = 8;
        let bound = CHUNKS * CHUNK_PAGES;
        let set = SharedPageSet::new(PageIndex::new(bound));
        let (mut found, mut dirty) = (PageSet::new(set.bound), PageSet::new(set.bound));
        let mut harvest = || {
            dirty.clear();
            set.add_to(&mut dirty);
            for (chunk, pages) in dirty.chunks() {
                set.remove_chunk(chunk, &pages);
                assert!(
                    found
                        .chunk(chunk)
                        .words()
                        .iter()
                        .zip(pages.words())
                        .all(|(a, b)| a & b == 0)
                );
                found.insert_chunk(chunk, &pages);
            }
            found.count().get()
        };
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let set = &set;
                scope.spawn(move || {
                    for page in (thread..bound).step_by(THREADS as usize) {
                        set.insert_range(range(page, page + 1));
                        std::thread::yield_now();
                    }
                });
            }
            for _ in 0..2000 {
                harvest();
            }
        });
        assert_eq!(harvest(), bound);
    }
}
