//! One bit for each page of a guest, set and cleared by many threads at once; memory is taken where
//! a bit was ever set. It does not know what a bit stands for.

use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use limosa_pages::{CHUNK_PAGES, CHUNK_WORDS, ChunkIndex, ChunkPages, PageIndex};

/// Chunks of a block, which takes a page of memory: 128 MiB of the guest's.
const BLOCK_CHUNKS: usize = 64;

type Block = [[AtomicU64; CHUNK_WORDS]; BLOCK_CHUNKS];

/// The bits of all pages below a bound. Chunks beyond it have none.
#[derive(Debug)]
pub(crate) struct ChunkBits(Box<[OnceLock<Box<Block>>]>);

impl ChunkBits {
    pub(crate) fn new(bound: PageIndex) -> Self {
        let block_pages = CHUNK_PAGES * BLOCK_CHUNKS as u64;
        let blocks = 0..bound.get().div_ceil(block_pages);
        Self(blocks.map(|_| OnceLock::new()).collect())
    }

    /// Sets the bits of `pages`; says which of the chunk's are set then.
    pub(crate) fn set(&self, chunk: ChunkIndex, pages: &ChunkPages) -> ChunkPages {
        let (block, nth) = place(chunk);
        let Some(block) = self.0.get(block) else {
            return ChunkPages::EMPTY;
        };
        let zeros = || array::from_fn(|_| array::from_fn(|_| AtomicU64::new(0)));
        let words = &block.get_or_init(|| Box::new(zeros()))[nth];
        let mut after = ChunkPages::EMPTY;
        for ((word, bits), after) in words.iter().zip(pages.words()).zip(after.words_mut()) {
            *after = match bits {
                0 => word.load(Ordering::Relaxed),
                bits => word.fetch_or(*bits, Ordering::Relaxed) | bits,
            };
        }
        after
    }

    /// Clears the bits of `pages`.
    pub(crate) fn clear(&self, chunk: ChunkIndex, pages: &ChunkPages) {
        let words = self.words(chunk).into_iter().flatten();
        for (word, bits) in words.zip(pages.words()).filter(|(_, bits)| **bits != 0) {
            word.fetch_and(!bits, Ordering::Relaxed);
        }
    }

    /// The pages of `chunk` whose bits are set.
    pub(crate) fn get(&self, chunk: ChunkIndex) -> ChunkPages {
        let words = self.words(chunk);
        words.map_or(ChunkPages::EMPTY, |words| {
            ChunkPages::from_words(words.each_ref().map(|word| word.load(Ordering::Relaxed)))
        })
    }

    /// How many bytes of memory the bits take now.
    pub(crate) fn overhead_bytes(&self) -> usize {
        let blocks = self.0.iter().filter_map(OnceLock::get);
        size_of_val(&*self.0) + blocks.count() * size_of::<Block>()
    }

    fn words(&self, chunk: ChunkIndex) -> Option<&[AtomicU64; CHUNK_WORDS]> {
        let (block, nth) = place(chunk);
        self.0.get(block)?.get()?.get(nth)
    }
}

/// Which block holds the bits of `chunk`, and where in it they are.
fn place(chunk: ChunkIndex) -> (usize, usize) {
    let chunk = usize::try_from(chunk.get()).unwrap_or(usize::MAX);
    (chunk / BLOCK_CHUNKS, chunk % BLOCK_CHUNKS)
}
