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
/// nothing. Every whole-set operation works on 64 pages at a time, and only on chunks in which a
/// page was ever inserted since the set was [cleared](Self::clear): memory that is large and
/// sparsely used costs what is used, and words that no page needs are not touched.
#[derive(Clone)]
pub struct PageSet {
    bound: PageIndex,
    /// Whole chunks of words; bits from `bound` on are clear.
    words: Vec<u64>,
    /// One bit for each chunk; clear only where all words of the chunk are zero.
    summary: Vec<u64>,
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
            summary: vec![0; chunks.div_ceil(WORD_BITS)],
        }
    }

    /// How many bytes of memory the set takes.
    pub fn overhead_bytes(&self) -> usize {
        (self.words.capacity() + self.summary.capacity()) * size_of::<u64>()
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
            self.mark(word / CHUNK_WORDS);
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
        let (start, end) = (range.start().get() as usize, range.end().get() as usize);
        bits::set_run(&mut self.words, start, end);
        if start < end {
            let chunk_pages = CHUNK_PAGES as usize;
            let last = end.div_ceil(chunk_pages);
            bits::set_run(&mut self.summary, start / chunk_pages, last);
        }
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
        for (word, bits) in (at..).zip(bits).filter(|(_, bits)| **bits != 0) {
            self.add_word(word, bits << shift);
            if shift != 0 {
                self.add_word(word + 1, bits >> (WORD_BITS - shift));
            }
        }
        self.clear_beyond_bound();
    }

    fn add_word(&mut self, at: usize, bits: u64) {
        if let Some(word) = self.words.get_mut(at).filter(|_| bits != 0) {
            *word |= bits;
            self.mark(at / CHUNK_WORDS);
        }
    }

    /// How many pages are in the set.
    pub fn count(&self) -> PageCount {
        let marked = self.marked();
        PageCount::new(marked.map(|chunk| bits::count(self.words_of(chunk))).sum())
    }

    /// Whether no page is in the set.
    pub fn is_empty(&self) -> bool {
        self.marked()
            .all(|chunk| self.words_of(chunk).iter().all(|&word| word == 0))
    }

    /// Takes every page out.
    pub fn clear(&mut self) {
        for at in 0..self.summary.len() {
            for chunk in ones(at, core::mem::take(&mut self.summary[at])) {
                self.words[chunk * CHUNK_WORDS..][..CHUNK_WORDS].fill(0);
            }
        }
    }

    /// Adds the pages of `other`, but for those beyond this set's bound.
    pub fn union_with(&mut self, other: &Self) {
        for (chunk, pages) in other.chunks() {
            self.insert_chunk(chunk, &pages);
        }
    }

    /// Takes the pages of `other` out.
    pub fn subtract(&mut self, other: &Self) {
        for (chunk, pages) in other.chunks() {
            self.remove_chunk(chunk, &pages);
        }
    }

    /// Keeps only the pages that `other` has too.
    pub fn intersect(&mut self, other: &Self) {
        for at in 0..self.summary.len() {
            for chunk in ones(at, self.summary[at]) {
                let other = other.chunk(ChunkIndex::new(chunk as u64));
                let words = &mut self.words[chunk * CHUNK_WORDS..][..CHUNK_WORDS];
                for (word, other) in words.iter_mut().zip(other.words()) {
                    *word &= other;
                }
            }
        }
    }

    /// Whether every page of `other` is in this set.
    pub fn is_superset(&self, other: &Self) -> bool {
        other.chunks().all(|(chunk, mut pages)| {
            pages.subtract(&self.chunk(chunk));
            pages.is_empty()
        })
    }

    /// The pages of `chunk` that are in the set.
    pub fn chunk(&self, chunk: ChunkIndex) -> ChunkPages {
        let mut pages = ChunkPages::EMPTY;
        if self.is_marked(chunk) {
            pages
                .words_mut()
                .copy_from_slice(self.words_of(chunk.get() as usize));
        }
        pages
    }

    /// Adds pages of `chunk`, but for those beyond the bound.
    pub fn insert_chunk(&mut self, chunk: ChunkIndex, pages: &ChunkPages) {
        let mut inside = ChunkPages::of_range(chunk, self.all());
        inside.intersect(pages);
        if inside.is_empty() {
            return;
        }
        // Not empty: the chunk begins below the bound.
        let chunk = chunk.get() as usize;
        self.mark(chunk);
        let words = &mut self.words[chunk * CHUNK_WORDS..][..CHUNK_WORDS];
        for (word, pages) in words.iter_mut().zip(inside.words()) {
            *word |= pages;
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

    /// The words of a chunk that may have a page in the set.
    fn chunk_words(&mut self, chunk: ChunkIndex) -> Option<&mut [u64]> {
        if !self.is_marked(chunk) {
            return None;
        }
        let first = chunk.get() as usize * CHUNK_WORDS;
        self.words.get_mut(first..first + CHUNK_WORDS)
    }

    /// The runs of pages in the set: in order, none empty, no two of them touching.
    pub fn runs(&self) -> impl Iterator<Item = PageRange> + Clone {
        self.runs_from(PageIndex::ZERO)
    }

    fn runs_from(&self, start: PageIndex) -> impl Iterator<Item = PageRange> + Clone {
        let start = start.min(self.bound).get() as usize;
        Runs::from(start, &self.words, &self.summary, CHUNK_WORDS).map(|(first, count)| {
            let first = PageIndex::new(first as u64);
            PageRange::ordered(first, first.saturating_add(PageCount::new(count as u64)))
        })
    }

    /// The runs of pages of `within` that are not in the set: in order, none empty, no two of them
    /// touching. Pages at or beyond the bound are not in the set.
    pub fn gaps(&self, within: PageRange) -> impl Iterator<Item = PageRange> + Clone {
        let mut runs = self.runs_from(within.start());
        let mut from = within.start();
        core::iter::from_fn(move || {
            while from < within.end() {
                let end = PageRange::ordered(within.end(), within.end());
                let run = runs.next().unwrap_or(end);
                let until = run.start().min(within.end());
                let gap = PageRange::ordered(from, until);
                from = run.end().max(until);
                if !gap.is_empty() {
                    return Some(gap);
                }
            }
            None
        })
    }

    /// The chunks with a page in the set, each with those pages; in order.
    pub fn chunks(&self) -> impl Iterator<Item = (ChunkIndex, ChunkPages)> + Clone {
        self.chunks_within(self.all())
    }

    /// Those of [`chunks`](Self::chunks) that begin within `pages`.
    pub fn chunks_within(
        &self,
        pages: PageRange,
    ) -> impl Iterator<Item = (ChunkIndex, ChunkPages)> + Clone {
        let first_of = |page: PageIndex| page.get().div_ceil(CHUNK_PAGES) as usize;
        let (first, beyond) = (first_of(pages.start()), first_of(pages.end()));
        let words = first / WORD_BITS..beyond.div_ceil(WORD_BITS).min(self.summary.len());
        let marked = words.flat_map(|at| ones(at, self.summary[at]));
        let marked = marked.filter(move |chunk| (first..beyond).contains(chunk));
        marked.filter_map(|chunk| {
            let chunk = ChunkIndex::new(chunk as u64);
            let pages = self.chunk(chunk);
            (!pages.is_empty()).then_some((chunk, pages))
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
        let chunk_count = self.words.len() / CHUNK_WORDS;
        bits::set_run(&mut self.summary, 0, chunk_count);
        WordsMut(self)
    }

    fn all(&self) -> PageRange {
        PageRange::ordered(PageIndex::ZERO, self.bound)
    }

    fn mark(&mut self, chunk: usize) {
        self.summary[chunk / WORD_BITS] |= 1 << (chunk % WORD_BITS);
    }

    fn is_marked(&self, chunk: ChunkIndex) -> bool {
        let chunk = chunk.get() as usize;
        let word = self.summary.get(chunk / WORD_BITS);
        word.is_some_and(|word| word >> (chunk % WORD_BITS) & 1 == 1)
    }

    /// The chunks that may have a page in the set, in order.
    fn marked(&self) -> impl Iterator<Item = usize> + Clone {
        let words = self.summary.iter().copied().enumerate();
        words.flat_map(|(at, word)| ones(at, word))
    }

    fn words_of(&self, chunk: usize) -> &[u64] {
        let first = chunk * CHUNK_WORDS;
        self.words
            .get(first..first + CHUNK_WORDS)
            .unwrap_or_default()
    }

    fn clear_beyond_bound(&mut self) {
        let end = self.words.len() * WORD_BITS;
        bits::clear_run(&mut self.words, self.bound.get() as usize, end);
    }
}

impl PartialEq for PageSet {
    /// The same bound and the same pages.
    fn eq(&self, other: &Self) -> bool {
        self.bound == other.bound && self.chunks().eq(other.chunks())
    }
}

impl Eq for PageSet {}

/// The numbers of the bits that are set in `word`, the one at `at`.
fn ones(at: usize, mut word: u64) -> impl Iterator<Item = usize> + Clone {
    core::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.trailing_zeros() as usize;
        word &= word - 1;
        Some(at * WORD_BITS + bit)
    })
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
