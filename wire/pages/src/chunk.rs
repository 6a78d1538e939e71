//! Chunks of 512 pages: their number, and the set of pages of one chunk. Sets over the whole guest
//! are `set.rs`.

use core::fmt;

use crate::bits::{self, Runs, WORD_BITS};
use crate::index::{PAGE_BYTES, PageCount, PageIndex};
use crate::range::PageRange;

/// Pages in a chunk: as many as one huge page of x86-64 has.
pub const CHUNK_PAGES: u64 = 512;

/// Size of a chunk, in bytes: 2 MiB.
pub const CHUNK_BYTES: usize = CHUNK_PAGES as usize * PAGE_BYTES;

/// Words of 64 pages in a chunk.
pub const CHUNK_WORDS: usize = CHUNK_PAGES as usize / WORD_BITS;

/// The number of a chunk: the [`PageIndex`] of its first page, divided by [`CHUNK_PAGES`].
///
/// It takes four bytes, so that lists of a guest's chunks are small. That is enough for 8 EiB, far
/// beyond [`PAGE_END_MAX`](crate::PAGE_END_MAX); all chunks behind that are the one with the last
/// number, which no guest has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ChunkIndex(u32);

impl ChunkIndex {
    /// The chunk numbered `index`, or the last.
    pub const fn new(index: u64) -> Self {
        if index > u32::MAX as u64 {
            return Self(u32::MAX);
        }
        Self(index as u32)
    }

    /// The chunk's number.
    pub const fn get(self) -> u64 {
        self.0 as u64
    }

    /// The chunk's pages, all 512 of them whether the guest has them or not.
    pub const fn pages(self) -> PageRange {
        let start = PageIndex::new(self.get() * CHUNK_PAGES);
        PageRange::ordered(start, start.saturating_add(PageCount::new(CHUNK_PAGES)))
    }

    /// The page `offset` pages into this chunk.
    pub const fn page(self, offset: u16) -> PageIndex {
        self.pages()
            .start()
            .saturating_add(PageCount::new(offset as u64))
    }
}

impl fmt::Display for ChunkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Some pages of one chunk: one bit each, bit *i* of word *w* for page `64 w + i` of the chunk.
///
/// Offsets of 512 and more name no page of the chunk: they are never contained, and inserting or
/// removing them does nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ChunkPages([u64; CHUNK_WORDS]);

impl ChunkPages {
    /// No page.
    pub const EMPTY: Self = Self([0; CHUNK_WORDS]);

    /// Every page of the chunk.
    pub const FULL: Self = Self([u64::MAX; CHUNK_WORDS]);

    /// The pages whose bits are set in `words`.
    pub const fn from_words(words: [u64; CHUNK_WORDS]) -> Self {
        Self(words)
    }

    /// The pages of `range` that lie in `chunk`.
    pub fn of_range(chunk: ChunkIndex, range: PageRange) -> Self {
        let part = range.intersect(chunk.pages());
        let mut pages = Self::EMPTY;
        let first = usize::from(part.start().offset_in_chunk());
        bits::set_run(&mut pages.0, first, first + part.count().get() as usize);
        pages
    }

    /// Adds the page at `offset`.
    pub fn insert(&mut self, offset: u16) {
        self.insert_run(offset, 1);
    }

    /// Takes the page at `offset` out.
    pub fn remove(&mut self, offset: u16) {
        self.remove_run(offset, 1);
    }

    /// Whether the page at `offset` is in the set.
    pub fn contains(&self, offset: u16) -> bool {
        let (word, bit) = (
            usize::from(offset) / WORD_BITS,
            usize::from(offset) % WORD_BITS,
        );
        self.0.get(word).is_some_and(|word| word >> bit & 1 == 1)
    }

    /// Adds the `count` pages from `first` on.
    pub fn insert_run(&mut self, first: u16, count: u16) {
        bits::set_run(
            &mut self.0,
            first.into(),
            usize::from(first) + usize::from(count),
        );
    }

    /// Takes the `count` pages from `first` on out.
    pub fn remove_run(&mut self, first: u16, count: u16) {
        bits::clear_run(
            &mut self.0,
            first.into(),
            usize::from(first) + usize::from(count),
        );
    }

    /// How many pages are in the set: `0..=512`.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether no page is in the set.
    pub fn is_empty(&self) -> bool {
        // Not by `==`, which is a call of the C library's.
        self.0.iter().fold(0, |all, word| all | word) == 0
    }

    /// Adds the pages of `other`.
    pub fn union_with(&mut self, other: &Self) {
        self.change(other, |word, other| word | other);
    }

    /// Takes the pages of `other` out.
    pub fn subtract(&mut self, other: &Self) {
        self.change(other, |word, other| word & !other);
    }

    /// Keeps only the pages that `other` has too.
    pub fn intersect(&mut self, other: &Self) {
        self.change(other, |word, other| word & other);
    }

    fn change(&mut self, other: &Self, new: impl Fn(u64, u64) -> u64) {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word = new(*word, other);
        }
    }

    /// The runs of pages in the set, each as (first offset, count): in order, none empty, no two of
    /// them touching.
    pub fn runs(&self) -> impl Iterator<Item = (u16, u16)> + Clone {
        // Both numbers are at most 512.
        Runs::new(&self.0).map(|(first, count)| (first as u16, count as u16))
    }

    /// The words of bits.
    pub const fn words(&self) -> &[u64; CHUNK_WORDS] {
        &self.0
    }

    /// The words of bits, to be changed.
    pub const fn words_mut(&mut self) -> &mut [u64; CHUNK_WORDS] {
        &mut self.0
    }
}

impl fmt::Debug for ChunkPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.runs().map(|(first, count)| first..first + count))
            .finish()
    }
}
