//! Sets of pages over the whole guest, one bit each, worked on a word at a time. A set does not say
//! what its pages have in common, nor which pages the guest has.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::{Deref, DerefMut};

use crate::bits::{self, Runs, WORD_BITS};
use crate::chunk::{CHUNK_PAGES, CHUNK_WORDS, ChunkIndex, ChunkPages};
use crate::index::{PageCount, PageIndex};
use crate::range::PageRange;

/// A set of the pages below a bound, one bit each.
///
/// The bound is the end of the guest's memory map, so a set costs an eighth of a byte per page: 32
/// MiB for a guest of 1 TiB. A page at or beyond the bound is never in the set; inserting it does
/// nothing. Every whole-set operation works on 64 pages at a time, and [`runs`](Self::runs) and
/// [`chunks`](Self::chunks) pass over empty words without looking at their bits.
#[derive(Clone, PartialEq, Eq)]
pub struct PageSet {
    bound: PageIndex,
    /// Whole chunks of words; bits from `bound` on are clear.
    words: Vec<u64>,
}

impl PageSet {
    /// A set of none of the pages below `bound`.
    ///
    /// `bound` decides how much memory the set takes: use [`MemoryMap::end`], which is bounded,
    /// never a number from a peer as it came.
    ///
    /// [`MemoryMap::end`]: crate::MemoryMap::end
    pub fn new(bound: PageIndex) -> Self {
        let chunks = bound.get().div_ceil(CHUNK_PAGES) as usize;
        Self {
            bound,
            words: vec![0; chunks * CHUNK_WORDS],
        }
    }

    /// The page after the last that the set can hold.
    pub const fn bound(&self) -> PageIndex {
        self.bound
    }

    /// Adds `page`.
    pub fn insert(&mut self, page: PageIndex) {
        if page < self.bound {
            let (word, bit) = place(page);
            self.words[word] |= 1 << bit;
        }
    }

    /// Takes `page` out.
    pub fn remove(&mut self, page: PageIndex) {
        if page < self.bound {
            let (word, bit) = place(page);
            self.words[word] &= !(1 << bit);
        }
    }

    /// Whether `page` is in the set.
    pub fn contains(&self, page: PageIndex) -> bool {
        let (word, bit) = place(page);
        page < self.bound && self.words[word] >> bit & 1 == 1
    }

    /// Adds the pages of `range`.
    pub fn insert_range(&mut self, range: PageRange) {
        let range = range.intersect(self.all());
        bits::set_run(
            &mut self.words,
            range.start().get() as usize,
            range.end().get() as usize,
        );
    }

    /// Takes the pages of `range` out.
    pub fn remove_range(&mut self, range: PageRange) {
        let range = range.intersect(self.all());
        bits::clear_run(
            &mut self.words,
            range.start().get() as usize,
            range.end().get() as usize,
        );
    }

    /// Adds page `first + i` for each bit `i` set in `bits`, bit 0 of the first word being `first`:
    /// the shape in which kernels report written pages.
    pub fn insert_bits(&mut self, first: PageIndex, bits: &[u64]) {
        if first >= self.bound {
            return;
        }
        let (at, shift) = place(first);
        let targets = &mut self.words[at..];
        for (target, bits) in targets.iter_mut().zip(bits) {
            *target |= bits << shift;
        }
        if shift != 0 {
            for (target, bits) in targets.iter_mut().skip(1).zip(bits) {
                *target |= bits >> (WORD_BITS - shift);
            }
        }
        self.clear_beyond_bound();
    }

    /// How many pages are in the set.
    pub fn count(&self) -> PageCount {
        PageCount::new(bits::count(&self.words))
    }

    /// Whether no page is in the set.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// Takes every page out.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Adds the pages of `other`, but for those beyond this set's bound.
    pub fn union_with(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word |= other;
        }
        self.clear_beyond_bound();
    }

    /// Takes the pages of `other` out.
    pub fn subtract(&mut self, other: &Self) {
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= !other;
        }
    }

    /// Keeps only the pages that `other` has too.
    pub fn intersect(&mut self, other: &Self) {
        let shared = self.words.len().min(other.words.len());
        self.words[shared..].fill(0);
        for (word, other) in self.words.iter_mut().zip(&other.words) {
            *word &= other;
        }
    }

    /// Whether every page of `other` is in this set.
    pub fn is_superset(&self, other: &Self) -> bool {
        let own = self.words.iter().copied().chain(core::iter::repeat(0));
        other
            .words
            .iter()
            .zip(own)
            .all(|(other, own)| other & !own == 0)
    }

    /// The pages of `chunk` that are in the set.
    pub fn chunk(&self, chunk: ChunkIndex) -> ChunkPages {
        let mut pages = ChunkPages::EMPTY;
        if let Some(words) = self
            .words
            .chunks_exact(CHUNK_WORDS)
            .nth(chunk.get() as usize)
        {
            pages.words_mut().copy_from_slice(words);
        }
        pages
    }

    /// Adds pages of `chunk`, but for those beyond the bound.
    pub fn insert_chunk(&mut self, chunk: ChunkIndex, pages: &ChunkPages) {
        let inside = ChunkPages::of_range(chunk, self.all());
        if let Some(words) = self.chunk_words(chunk) {
            for ((word, pages), inside) in words.iter_mut().zip(pages.words()).zip(inside.words()) {
                *word |= pages & inside;
            }
        }
    }

    /// Takes pages of `chunk` out.
    pub fn remove_chunk(&mut self, chunk: ChunkIndex, pages: &ChunkPages) {
        if let Some(words) = self.chunk_words(chunk) {
            for (word, pages) in words.iter_mut().zip(pages.words()) {
                *word &= !pages;
            }
        }
    }

    /// Takes all pages of `chunk` out, and returns those that were in the set.
    pub fn take_chunk(&mut self, chunk: ChunkIndex) -> ChunkPages {
        let taken = self.chunk(chunk);
        if let Some(words) = self.chunk_words(chunk) {
            words.fill(0);
        }
        taken
    }

    fn chunk_words(&mut self, chunk: ChunkIndex) -> Option<&mut [u64]> {
        self.words
            .chunks_exact_mut(CHUNK_WORDS)
            .nth(chunk.get() as usize)
    }

    /// The runs of pages in the set: in order, none empty, no two of them touching.
    pub fn runs(&self) -> impl Iterator<Item = PageRange> + Clone {
        Runs::new(&self.words).map(|(first, count)| {
            let first = PageIndex::new(first as u64);
            PageRange::ordered(first, first.saturating_add(PageCount::new(count as u64)))
        })
    }

    /// The chunks with a page in the set, each with those pages; in order.
    pub fn chunks(&self) -> impl Iterator<Item = (ChunkIndex, ChunkPages)> + Clone {
        self.words
            .as_chunks::<CHUNK_WORDS>()
            .0
            .iter()
            .enumerate()
            .filter_map(|(chunk, words)| {
                let pages = ChunkPages::from_words(*words);
                (!pages.is_empty()).then_some((ChunkIndex::new(chunk as u64), pages))
            })
    }

    /// The words of bits: bit *i* of word *w* for page `64 w + i`. Their number is a multiple of
    /// eight, so that a chunk is eight words of the set; bits from the bound on are clear.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words of bits, to be changed. Bits from the bound on are cleared again when the returned
    /// handle is dropped.
    pub fn words_mut(&mut self) -> WordsMut<'_> {
        WordsMut(self)
    }

    fn all(&self) -> PageRange {
        PageRange::ordered(PageIndex::ZERO, self.bound)
    }

    fn clear_beyond_bound(&mut self) {
        let end = self.words.len() * WORD_BITS;
        bits::clear_run(&mut self.words, self.bound.get() as usize, end);
    }
}

/// Which word holds the bit of `page`, and which bit of it that is.
fn place(page: PageIndex) -> (usize, usize) {
    (
        page.get() as usize / WORD_BITS,
        page.get() as usize % WORD_BITS,
    )
}

impl fmt::Debug for PageSet {
    /// The bound and the count: a set of millions of pages does not belong in a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageSet")
            .field("bound", &self.bound)
            .field("count", &self.count())
            .finish()
    }
}

/// The words of a [`PageSet`], to be changed in place; see [`PageSet::words_mut`].
#[derive(Debug)]
pub struct WordsMut<'a>(&'a mut PageSet);

impl Deref for WordsMut<'_> {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        &self.0.words
    }
}

impl DerefMut for WordsMut<'_> {
    fn deref_mut(&mut self) -> &mut [u64] {
        &mut self.0.words
    }
}

impl Drop for WordsMut<'_> {
    fn drop(&mut self) {
        self.0.clear_beyond_bound();
    }
}
