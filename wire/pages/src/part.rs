//! A stretch of a page set: its words with their summary and counts, which one thread changes while
//! others change theirs. How the three fit together is told here alone.

use core::fmt;

use crate::bits::WORD_BITS;
use crate::chunk::{CHUNK_PAGES, CHUNK_WORDS, ChunkIndex, ChunkPages};
use crate::index::{PageCount, PageIndex};
use crate::range::PageRange;

/// Chunks of a block, which has one word of the summary and one count: 128 MiB of the guest's.
pub(crate) const BLOCK_CHUNKS: usize = WORD_BITS;
pub(crate) const BLOCK_WORDS: usize = BLOCK_CHUNKS * CHUNK_WORDS;
pub(crate) const BLOCK_PAGES: u64 = BLOCK_CHUNKS as u64 * CHUNK_PAGES;

/// Some of a [`PageSet`](crate::PageSet)'s pages, for a thread of their own to change; see
/// [`PageSet::parts_mut`](crate::PageSet::parts_mut).
///
/// A page that is not among [`pages`](Self::pages) is never in the part: inserting or removing it
/// does nothing.
pub struct SetPart<'a> {
    /// Begins with a block.
    pub(crate) pages: PageRange,
    /// A bit for each page; whole chunks, of which the bits beyond `pages` are clear.
    pub(crate) words: &'a mut [u64],
    /// A word for each block, with a bit for each chunk: set just where the chunk has a page.
    pub(crate) summary: &'a mut [u64],
    /// For each block, how many pages it has.
    pub(crate) counts: &'a mut [u32],
}

/// A piece of a range, as large as it can be changed at once.
enum Piece {
    /// A whole block, by its place in the part.
    Block(usize),
    /// A chunk, or some of it.
    Chunk(ChunkIndex),
}

impl SetPart<'_> {
    /// The pages that the part can hold.
    pub fn pages(&self) -> PageRange {
        self.pages
    }

    /// How many pages are in the part. Costs one addition for each 128 MiB that it can hold.
    pub fn count(&self) -> PageCount {
        PageCount::new(self.counts.iter().map(|&count| u64::from(count)).sum())
    }

    /// Adds `page`.
    pub fn insert(&mut self, page: PageIndex) {
        if self.pages.contains(page) {
            let at = self.place(page);
            self.add_word(at, 1 << (page.get() % WORD_BITS as u64));
        }
    }

    /// Takes `page` out.
    pub fn remove(&mut self, page: PageIndex) {
        let mut only = ChunkPages::EMPTY;
        only.insert(page.offset_in_chunk());
        self.remove_chunk(page.chunk(), &only);
    }

    /// Adds the pages of `range`.
    pub fn insert_range(&mut self, range: PageRange) {
        let range = range.intersect(self.pages);
        for piece in self.pieces(range) {
            match piece {
                Piece::Block(block) => {
                    self.words[block * BLOCK_WORDS..][..BLOCK_WORDS].fill(u64::MAX);
                    self.summary[block] = u64::MAX;
                    self.counts[block] = BLOCK_PAGES as u32;
                }
                Piece::Chunk(chunk) => self.add(chunk, &ChunkPages::of_range(chunk, range)),
            }
        }
    }

    /// Takes the pages of `range` out.
    pub fn remove_range(&mut self, range: PageRange) {
        let range = range.intersect(self.pages);
        for piece in self.pieces(range) {
            match piece {
                Piece::Block(block) => self.clear_block(block),
                Piece::Chunk(chunk) => {
                    self.remove_chunk(chunk, &ChunkPages::of_range(chunk, range));
                }
            }
        }
    }

    /// Adds pages of `chunk`, but for those that the part cannot hold.
    pub fn insert_chunk(&mut self, chunk: ChunkIndex, pages: &ChunkPages) {
        let whole = chunk.pages();
        if self.pages.start() <= whole.start() && whole.end() <= self.pages.end() {
            self.add(chunk, pages);
        } else if !self.pages.intersect(whole).is_empty() {
            let mut inside = ChunkPages::of_range(chunk, self.pages);
            inside.intersect(pages);
            self.add(chunk, &inside);
        }
    }

    /// Takes pages of `chunk` out.
    pub fn remove_chunk(&mut self, chunk: ChunkIndex, pages: &ChunkPages) {
        let Some(nth) = self.marked(chunk) else {
            return;
        };
        let words = &mut self.words[nth * CHUNK_WORDS..][..CHUNK_WORDS];
        let (mut lost, mut left) = (0, 0);
        for (word, pages) in words.iter_mut().zip(pages.words()) {
            lost += (*word & pages).count_ones();
            *word &= !pages;
            left |= *word;
        }
        self.counts[nth / BLOCK_CHUNKS] -= lost;
        if left == 0 {
            self.summary[nth / BLOCK_CHUNKS] &= !(1 << (nth % BLOCK_CHUNKS));
        }
    }

    /// Takes every page out; costs what is in the part.
    pub fn clear(&mut self) {
        (0..self.counts.len()).for_each(|block| self.clear_block(block));
    }

    /// Adds the page `64 word + i` of the set for each bit `i` set in `bits`.
    pub(crate) fn insert_word(&mut self, word: usize, bits: u64) {
        let first = self.pages.start().get() as usize / WORD_BITS;
        let end = self.pages.end().get() as usize;
        let start = word.saturating_mul(WORD_BITS);
        if word < first || start >= end {
            return;
        }
        let inside = u64::MAX >> (WORD_BITS - (end - start).min(WORD_BITS));
        self.add_word(word - first, bits & inside);
    }

    /// Adds bits to the word `at` of the part, which may have them all.
    fn add_word(&mut self, at: usize, bits: u64) {
        let gained = bits & !self.words[at];
        if gained != 0 {
            self.words[at] |= gained;
            self.counts[at / BLOCK_WORDS] += gained.count_ones();
            self.summary[at / BLOCK_WORDS] |= 1 << (at / CHUNK_WORDS % BLOCK_CHUNKS);
        }
    }

    /// Adds pages of a chunk, which may have them all.
    fn add(&mut self, chunk: ChunkIndex, pages: &ChunkPages) {
        if pages.is_empty() {
            return;
        }
        let nth = self.place(chunk.pages().start()) / CHUNK_WORDS;
        let words = &mut self.words[nth * CHUNK_WORDS..][..CHUNK_WORDS];
        let (block, mark) = (nth / BLOCK_CHUNKS, 1 << (nth % BLOCK_CHUNKS));
        if self.summary[block] & mark == 0 {
            // None of the words has a bit.
            words.copy_from_slice(pages.words());
            self.summary[block] |= mark;
            self.counts[block] += pages.count();
            return;
        }
        let mut gained = ChunkPages::EMPTY;
        for ((gained, word), pages) in gained.words_mut().iter_mut().zip(words).zip(pages.words()) {
            *gained = pages & !*word;
            *word |= pages;
        }
        self.counts[block] += gained.count();
    }

    fn clear_block(&mut self, block: usize) {
        if core::mem::take(&mut self.counts[block]) == 0 {
            return;
        }
        let end = self.words.len().min((block + 1) * BLOCK_WORDS);
        let words = &mut self.words[block * BLOCK_WORDS..end];
        let marked = core::mem::take(&mut self.summary[block]);
        if marked == u64::MAX {
            words.fill(0);
            return;
        }
        for chunk in ones(marked) {
            words[chunk * CHUNK_WORDS..][..CHUNK_WORDS].fill(0);
        }
    }

    /// Which chunk of the part that is, where it has a page.
    fn marked(&self, chunk: ChunkIndex) -> Option<usize> {
        let first = self.pages.start().chunk().get();
        let nth = chunk.get().checked_sub(first)? as usize;
        let word = self.summary.get(nth / BLOCK_CHUNKS)?;
        (word >> (nth % BLOCK_CHUNKS) & 1 == 1).then_some(nth)
    }

    /// Which word of the part holds the bit of `page`.
    fn place(&self, page: PageIndex) -> usize {
        (page.get() - self.pages.start().get()) as usize / WORD_BITS
    }

    /// The pieces of `range`, which lies in the part.
    fn pieces(&self, range: PageRange) -> impl Iterator<Item = Piece> + use<> {
        let first_block = self.pages.start().get() / BLOCK_PAGES;
        let (mut from, end) = (range.start().get(), range.end().get());
        core::iter::from_fn(move || {
            if from >= end {
                return None;
            }
            if from % BLOCK_PAGES == 0 && end - from >= BLOCK_PAGES {
                let block = from / BLOCK_PAGES - first_block;
                from += BLOCK_PAGES;
                return Some(Piece::Block(block as usize));
            }
            let chunk = PageIndex::new(from).chunk();
            from = chunk.pages().end().get();
            Some(Piece::Chunk(chunk))
        })
    }
}

impl fmt::Debug for SetPart<'_> {
    /// What it can hold and the count, as for a whole set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetPart")
            .field("pages", &self.pages)
            .field("count", &self.count())
            .finish()
    }
}

/// The numbers of the bits that are set in `word`.
pub(crate) fn ones(mut word: u64) -> impl Iterator<Item = usize> + Clone {
    core::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let bit = word.trailing_zeros() as usize;
        word &= word - 1;
        Some(bit)
    })
}
