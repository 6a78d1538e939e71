//! A set of pages that many threads change at once, one atomic bit per page. It does not know what
//! its pages have in common.

use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use limosa_pages::{
    CHUNK_PAGES, CHUNK_WORDS, ChunkIndex, ChunkPages, PageIndex, PageRange, PageSet,
};

const WORD_PAGES: u64 = u64::BITS as u64;
/// Chunks of a block, which takes a page of memory: 128 MiB of the guest's.
const BLOCK_CHUNKS: usize = 64;
const BLOCK_WORDS: usize = BLOCK_CHUNKS * CHUNK_WORDS;

type Block = [AtomicU64; BLOCK_WORDS];

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
        let block_pages = CHUNK_PAGES * BLOCK_CHUNKS as u64;
        let block_count = bound.get().div_ceil(block_pages) as usize;
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

    /// The word of so many, with memory for it.
    fn word(&self, at: usize) -> Option<&AtomicU64> {
        let block = self.blocks.get(at / BLOCK_WORDS)?;
        let words = block.get_or_init(|| Box::new(array::from_fn(|_| AtomicU64::new(0))));
        words.get(at % BLOCK_WORDS)
    }

    fn add(&self, at: usize, bits: u64) {
        if bits != 0
            && let Some(word) = self.word(at)
        {
            // Always a locked operation, even where a look would find the bits set: on x86 the
            // look could be done before the caller's own store is visible, and a remove in
            // between would then lose that store.
            word.fetch_or(bits, Ordering::AcqRel);
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

    /// Adds page `first + i` for each bit `i` set in `bits`.
    pub(crate) fn insert_bits(&self, first: PageIndex, bits: &[u64]) {
        let start = (first.get() / WORD_PAGES) as usize;
        let shift = (first.get() % WORD_PAGES) as u32;
        for (at, bits) in (start..).zip(bits).filter(|(_, bits)| **bits != 0) {
            self.add(at, bits << shift);
            if shift != 0 {
                self.add(at + 1, bits >> (u64::BITS - shift));
            }
        }
    }

    /// Adds this set's pages to `pages`.
    pub(crate) fn add_to(&self, pages: &mut PageSet) {
        for (at, block) in self.blocks.iter().enumerate() {
            let Some(block) = block.get() else {
                continue;
            };
            for (nth, own) in block.as_chunks::<CHUNK_WORDS>().0.iter().enumerate() {
                let words = own.each_ref().map(|word| word.load(Ordering::Acquire));
                let chunk = ChunkIndex::new((at * BLOCK_CHUNKS + nth) as u64);
                pages.insert_chunk(chunk, &ChunkPages::from_words(words));
            }
        }
    }

    /// Takes pages of `chunk` out.
    pub(crate) fn remove_chunk(&self, chunk: ChunkIndex, pages: &ChunkPages) {
        let (at, nth) = (
            chunk.get() as usize / BLOCK_CHUNKS,
            chunk.get() as usize % BLOCK_CHUNKS,
        );
        let block = self.blocks.get(at).and_then(OnceLock::get);
        let Some(words) = block.and_then(|block| block.as_chunks::<CHUNK_WORDS>().0.get(nth))
        else {
            return;
        };
        for (word, &pages) in words.iter().zip(pages.words()) {
            if pages != 0 {
                word.fetch_and(!pages, Ordering::AcqRel);
            }
        }
    }

    /// Takes every page out, and keeps the memory: others may have the set meanwhile.
    pub(crate) fn remove_all(&self) {
        for block in self.blocks.iter().filter_map(OnceLock::get) {
            block
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
    fn ranges_and_bits_land_where_single_pages_would() {
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
        for first in [0, 1, 63, 64, 100, 1250] {
            let set = SharedPageSet::new(PageIndex::new(bound));
            set.insert_bits(PageIndex::new(first), &[1 << 63 | 1, 0b10]);
            let expected: Vec<_> = [first, first + 63, first + 65]
                .into_iter()
                .filter(|&page| page < bound)
                .collect();
            assert_eq!(pages_of(&set), expected, "first {first}");
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
}
