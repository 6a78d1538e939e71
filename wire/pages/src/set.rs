//! Sets of pages over the whole guest, one bit each, worked on a word at a time. A set does not say
//! what its pages have in common, nor which pages the guest has.

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use crate::bits::{Runs, WORD_BITS};
use crate::chunk::{CHUNK_PAGES, CHUNK_WORDS, ChunkIndex, ChunkPages};
use crate::index::{PageCount, PageIndex};
use crate::part::{BLOCK_CHUNKS, BLOCK_PAGES, BLOCK_WORDS, SetPart, ones};
use crate::range::PageRange;

/// A set of the pages below a bound, one bit each.
///
/// The bound is the end of the guest's memory map, so a set costs an eighth of a byte per page: 32
/// MiB for a guest of 1 TiB. A page at or beyond the bound is never in the set; inserting it does
/// nothing.
///
/// Every operation works on 64 pages or more at a time, and costs what is in the set rather than
/// what could be: a summary has a bit for each chunk, set just where the chunk has a page, and
/// there is a count for each block of 64 chunks. Words that no page needs are not touched, and
/// take no memory of the host.
///
/// One thread changes a set, or one thread each of its [parts](Self::parts_mut).
pub struct PageSet {
    bound: PageIndex,
    /// Whole chunks of words; bits from `bound` on are clear.
    words: Vec<u64>,
    /// One bit for each chunk, set just where one of its words is not zero.
    summary: Vec<u64>,
    /// For each word of the summary, how many pages its chunks have.
    counts: Vec<u32>,
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
            summary: vec![0; chunks.div_ceil(BLOCK_CHUNKS)],
            counts: vec![0; chunks.div_ceil(BLOCK_CHUNKS)],
        }
    }

    /// How many bytes of memory the set takes.
    pub fn overhead_bytes(&self) -> usize {
        (self.words.capacity() + self.summary.capacity()) * size_of::<u64>()
            + self.counts.capacity() * size_of::<u32>()
    }

    /// The page after the last that the set can hold.
    pub const fn bound(&self) -> PageIndex {
        self.bound
    }

    /// Adds `page`.
    pub fn insert(&mut self, page: PageIndex) {
        self.whole().insert(page);
    }

    /// Takes `page` out.
    pub fn remove(&mut self, page: PageIndex) {
        self.whole().remove(page);
    }

    /// Whether `page` is in the set.
    pub fn contains(&self, page: PageIndex) -> bool {
        let word = self.words.get((page.get() / WORD_BITS as u64) as usize);
        word.is_some_and(|word| word >> (page.get() % WORD_BITS as u64) & 1 == 1)
    }

    /// Adds the pages of `range`.
    pub fn insert_range(&mut self, range: PageRange) {
        self.whole().insert_range(range);
    }

    /// Takes the pages of `range` out.
    pub fn remove_range(&mut self, range: PageRange) {
        self.whole().remove_range(range);
    }

    /// Adds page `first + i` for each bit `i` set in `bits`, bit 0 of the first word being `first`:
    /// the shape in which kernels report written pages.
    pub fn insert_bits(&mut self, first: PageIndex, bits: &[u64]) {
        if first >= self.bound {
            return;
        }
        let at = first.get() as usize / WORD_BITS;
        let shift = first.get() as usize % WORD_BITS;
        let mut part = self.whole();
        for (word, bits) in (at..).zip(bits).filter(|(_, bits)| **bits != 0) {
            part.insert_word(word, bits << shift);
            if shift != 0 {
                part.insert_word(word + 1, bits >> (WORD_BITS - shift));
            }
        }
    }

    /// How many pages are in the set. Costs one addition for each 128 MiB below the bound.
    pub fn count(&self) -> PageCount {
        PageCount::new(self.counts.iter().map(|&count| u64::from(count)).sum())
    }

    /// Whether no page is in the set.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|&count| count == 0)
    }

    /// Takes every page out; costs what is in the set.
    pub fn clear(&mut self) {
        self.whole().clear();
    }

    /// The set in parts, in the order of memory, each for a thread of its own to change.
    ///
    /// They are the pages of [`part_ranges`](Self::part_ranges).
    pub fn parts_mut(&mut self) -> impl Iterator<Item = SetPart<'_>> {
        let ranges = part_ranges(self.bound);
        let block_count = (part_pages(self.bound) / BLOCK_PAGES) as usize;
        let words = self.words.chunks_mut(block_count * BLOCK_WORDS);
        let summary = self.summary.chunks_mut(block_count);
        let counts = self.counts.chunks_mut(block_count);
        let memory = words.zip(summary).zip(counts);
        ranges
            .zip(memory)
            .map(|(pages, ((words, summary), counts))| SetPart {
                pages,
                words,
                summary,
                counts,
            })
    }

    /// How work on a set of this bound is divided among threads: at most 256 ranges of pages, in
    /// order, which hold all pages below the bound. Each but the last has at least 16 GiB, whose
    /// bits take about as long to read as another thread takes to wake; so that smaller sets are
    /// one part.
    pub fn part_ranges(&self) -> impl ExactSizeIterator<Item = PageRange> + use<> {
        part_ranges(self.bound)
    }

    fn whole(&mut self) -> SetPart<'_> {
        SetPart {
            pages: PageRange::ordered(PageIndex::ZERO, self.bound),
            words: &mut self.words,
            summary: &mut self.summary,
            counts: &mut self.counts,
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
            for chunk in ones(self.summary[at]) {
                let chunk = ChunkIndex::new((at * BLOCK_CHUNKS + chunk) as u64);
                let mut rest = self.chunk(chunk);
                rest.subtract(&other.chunk(chunk));
                self.remove_chunk(chunk, &rest);
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
            pages.words_mut().copy_from_slice(self.words_of(chunk));
        }
        pages
    }

    /// Adds pages of `chunk`, but for those beyond the bound.
    pub fn insert_chunk(&mut self, chunk: ChunkIndex, pages: &ChunkPages) {
        self.whole().insert_chunk(chunk, pages);
    }

    /// Takes pages of `chunk` out.
    pub fn remove_chunk(&mut self, chunk: ChunkIndex, pages: &ChunkPages) {
        self.whole().remove_chunk(chunk, pages);
    }

    /// Takes all pages of `chunk` out, and returns those that were in the set.
    pub fn take_chunk(&mut self, chunk: ChunkIndex) -> ChunkPages {
        let taken = self.chunk(chunk);
        self.remove_chunk(chunk, &taken);
        taken
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
        let chunks = self.chunk_indices_within(pages);
        chunks.map(|chunk| (chunk, self.chunk(chunk)))
    }

    /// The numbers of the chunks that begin within `pages` and have a page in the set; in order.
    /// Found by the summary alone.
    pub fn chunk_indices_within(
        &self,
        pages: PageRange,
    ) -> impl Iterator<Item = ChunkIndex> + Clone {
        let first_of = |page: PageIndex| page.get().div_ceil(CHUNK_PAGES) as usize;
        let (first, beyond) = (first_of(pages.start()), first_of(pages.end()));
        let words = first / BLOCK_CHUNKS..beyond.div_ceil(BLOCK_CHUNKS).min(self.summary.len());
        let marked = words.flat_map(move |at| {
            let start = at * BLOCK_CHUNKS;
            let head = u64::MAX << first.saturating_sub(start);
            let tail = u64::MAX >> (start + BLOCK_CHUNKS).saturating_sub(beyond);
            ones(self.summary[at] & head & tail).map(move |chunk| start + chunk)
        });
        marked.map(|chunk| ChunkIndex::new(chunk as u64))
    }

    /// The words of bits: bit *i* of word *w* for page `64 w + i`. Their number is a multiple of
    /// eight, so that a chunk is eight words of the set; bits from the bound on are clear.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    fn all(&self) -> PageRange {
        PageRange::ordered(PageIndex::ZERO, self.bound)
    }

    fn is_marked(&self, chunk: ChunkIndex) -> bool {
        let chunk = chunk.get() as usize;
        let word = self.summary.get(chunk / BLOCK_CHUNKS);
        word.is_some_and(|word| word >> (chunk % BLOCK_CHUNKS) & 1 == 1)
    }

    fn words_of(&self, chunk: ChunkIndex) -> &[u64] {
        let first = chunk.get() as usize * CHUNK_WORDS;
        &self.words[first..first + CHUNK_WORDS]
    }
}

/// Fewest pages of a part, but for the last: 16 GiB.
const PART_PAGES_MIN: u64 = 128 * BLOCK_PAGES;

/// Most parts of a set.
const PARTS_MAX: u64 = 256;

/// How many pages a part has, but for the last: whole blocks.
fn part_pages(bound: PageIndex) -> u64 {
    let share = bound.get().div_ceil(PARTS_MAX);
    share.next_multiple_of(BLOCK_PAGES).max(PART_PAGES_MIN)
}

fn part_ranges(bound: PageIndex) -> impl ExactSizeIterator<Item = PageRange> {
    let page_count = part_pages(bound);
    let part_count = bound.get().div_ceil(page_count) as usize;
    (0..part_count).map(move |nth| {
        let start = PageIndex::new(nth as u64 * page_count);
        let end = start.saturating_add(PageCount::new(page_count));
        PageRange::ordered(start, end.min(bound))
    })
}

impl Clone for PageSet {
    /// The same pages; costs what is in the set, and takes as much memory.
    fn clone(&self) -> Self {
        let mut clone = Self::new(self.bound);
        for chunk in self.chunk_indices_within(self.all()) {
            let first = chunk.get() as usize * CHUNK_WORDS;
            clone.words[first..first + CHUNK_WORDS].copy_from_slice(self.words_of(chunk));
        }
        clone.summary.copy_from_slice(&self.summary);
        clone.counts.copy_from_slice(&self.counts);
        clone
    }
}

impl PartialEq for PageSet {
    /// The same bound and the same pages.
    fn eq(&self, other: &Self) -> bool {
        self.bound == other.bound && self.chunks().eq(other.chunks())
    }
}

impl Eq for PageSet {}

impl fmt::Debug for PageSet {
    /// The bound and the count: a set of millions of pages does not belong in a log line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageSet")
            .field("bound", &self.bound)
            .field("count", &self.count())
            .finish()
    }
}
