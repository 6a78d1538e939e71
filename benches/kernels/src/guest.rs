//! A guest's memory that nobody runs in, and what it can be filled with.

use std::sync::Arc;

use limosa_pages::{
    CHUNK_PAGES, ChunkIndex, ChunkPages, MemoryMap, PAGE_BYTES, PageCount, PageIndex, PageRange,
};
use limosa_pipeline::{GuestMemory, MemoryError};
use vm_memory::mmap::MmapRegion;
use vm_memory::{VolatileMemory, VolatileSlice};

use crate::kernel::KernelError;

/// What a guest's pages hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fill {
    /// Nothing but zeros, written.
    Zeros,
    /// Bytes that no codec makes shorter.
    Noise,
    /// One word over and over, another in each page.
    Words,
    /// Half noise, half text: about 2:1.
    Text,
    /// Noise, with every third page zero.
    Mixed,
}

impl Fill {
    fn page(self, page: u64, into: &mut [u8; PAGE_BYTES]) {
        match self {
            Self::Zeros => into.fill(0),
            Self::Mixed if page.is_multiple_of(3) => into.fill(0),
            Self::Words => {
                for word in into.chunks_exact_mut(8) {
                    word.copy_from_slice(&(page + 1).to_le_bytes());
                }
            }
            Self::Noise | Self::Mixed => noise(page, into),
            Self::Text => text(page, into),
        }
    }
}

fn noise(page: u64, into: &mut [u8]) {
    let mut state = (page + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for word in into.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}

fn text(page: u64, into: &mut [u8]) {
    let (random, readable) = into.split_at_mut(PAGE_BYTES / 2 - 256);
    noise(page, random);
    let line = format!("{page} godwits fly without a stop; ");
    for (byte, letter) in readable.iter_mut().zip(line.bytes().cycle()) {
        *byte = letter;
    }
}

/// One region of whole chunks, all of it present.
pub(crate) struct Guest {
    map: MemoryMap,
    region: MmapRegion,
}

impl Guest {
    /// Makes the memory and writes every page of it.
    pub(crate) fn new(chunk_count: u64, fill: Fill) -> Result<Arc<Self>, KernelError> {
        let no_memory = |why: String| KernelError::NoMemory { chunk_count, why };
        let page_count = chunk_count.saturating_mul(CHUNK_PAGES);
        let pages = PageRange::from_start_count(PageIndex::ZERO, PageCount::new(page_count));
        let pages = pages.ok_or_else(|| no_memory("there are not so many pages".into()))?;
        let map = MemoryMap::new(vec![pages]).map_err(|error| no_memory(error.to_string()))?;
        let region = MmapRegion::new(map.page_count().bytes() as usize)
            .map_err(|error| no_memory(error.to_string()))?;
        let guest = Self { map, region };
        let mut bytes = [0; PAGE_BYTES];
        for page in 0..page_count {
            fill.page(page, &mut bytes);
            guest.page(page)?.copy_from(&bytes);
        }
        Ok(Arc::new(guest))
    }

    pub(crate) fn page_count(&self) -> u64 {
        self.map.page_count().get()
    }

    /// One page by its number.
    pub(crate) fn page(&self, page: u64) -> Result<VolatileSlice<'_>, MemoryError> {
        self.run(page, 1)
    }

    /// Writes a word in the middle of each page from `first` on.
    pub(crate) fn write_words(
        &self,
        (first, count): (u64, u64),
        word: u64,
    ) -> Result<(), MemoryError> {
        for page in first..first + count {
            let bytes = self.page(page)?;
            if let Ok(middle) = bytes.offset(PAGE_BYTES / 2) {
                middle.copy_from(&[word]);
            }
        }
        Ok(())
    }

    /// `count` pages from `first` on.
    pub(crate) fn run(&self, first: u64, count: u64) -> Result<VolatileSlice<'_>, MemoryError> {
        let pages = PageRange::from_start_count(PageIndex::new(first), PageCount::new(count));
        self.slice(pages.unwrap_or(PageRange::empty()))
    }
}

impl GuestMemory for Guest {
    fn map(&self) -> &MemoryMap {
        &self.map
    }

    fn slice(&self, pages: PageRange) -> Result<VolatileSlice<'_>, MemoryError> {
        let offset = pages.start().get() as usize * PAGE_BYTES;
        let slice = self
            .region
            .get_slice(offset, pages.count().bytes() as usize);
        slice.map_err(|_| MemoryError::OutsideMap { pages })
    }

    fn present(&self, _: ChunkIndex) -> Result<ChunkPages, MemoryError> {
        Ok(ChunkPages::FULL)
    }

    fn populate(&self, _: ChunkIndex) -> Result<(), MemoryError> {
        Ok(())
    }
}
