//! A small guest's memory inside this process, which knows what was ever touched. It is not a
//! guest: who writes what, and when, is `guest.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use limosa_pages::{
    CHUNK_PAGES, CHUNK_WORDS, ChunkIndex, ChunkPages, MemoryMap, PAGE_BYTES, PageCount, PageIndex,
    PageRange,
};
use limosa_pipeline::{GuestMemory, MemoryError};
use vm_memory::mmap::MmapRegion;
use vm_memory::{VolatileMemory, VolatileSlice};

/// The bytes of one page.
pub(crate) type PageBytes = [u8; PAGE_BYTES];

/// Memory as its guest and the source's pipeline see it.
#[derive(Debug)]
pub(crate) struct SimMemory {
    map: MemoryMap,
    regions: Vec<MmapRegion>,
    touched: Vec<AtomicU64>,
    populated: Vec<AtomicU64>,
}

/// The host of the simulation itself has no memory for a simulated guest.
#[derive(Debug, thiserror::Error)]
#[error("no memory for a simulated guest: {0}")]
pub struct NoMemory(#[from] vm_memory::mmap::MmapRegionError);

impl SimMemory {
    /// Untouched memory: all of it reads as zero.
    ///
    /// # Errors
    /// When this process gets no memory.
    pub(crate) fn new(map: &MemoryMap) -> Result<Arc<Self>, NoMemory> {
        let chunk_count = map.end().get().div_ceil(CHUNK_PAGES) as usize;
        let words = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        let regions: Result<_, _> = map
            .regions()
            .iter()
            .map(|region| MmapRegion::new(region.count().bytes() as usize))
            .collect();
        Ok(Arc::new(Self {
            map: map.clone(),
            regions: regions?,
            touched: words(chunk_count * CHUNK_WORDS),
            populated: words(chunk_count),
        }))
    }

    /// Writes a page, as its guest does. A page outside the map is left out.
    pub(crate) fn write(&self, page: PageIndex, bytes: &PageBytes) {
        let pages = one(page);
        if let Ok(slice) = self.bytes(pages) {
            slice.copy_from(&bytes[..]);
            self.touch(pages);
        }
    }

    /// Reads a page for a checker. A page outside the map is left as `bytes` are.
    pub(crate) fn read(&self, page: PageIndex, bytes: &mut PageBytes) {
        if let Ok(slice) = self.bytes(one(page)) {
            slice.copy_to(&mut bytes[..]);
        }
    }

    /// Which pages of `chunk` were written, or handed out to be written.
    pub(crate) fn touched(&self, chunk: ChunkIndex) -> ChunkPages {
        let mut pages = ChunkPages::EMPTY;
        let first = chunk.get() as usize * CHUNK_WORDS;
        for (word, into) in self.touched.iter().skip(first).zip(pages.words_mut()) {
            *into = word.load(Ordering::Relaxed);
        }
        pages
    }

    /// Was all of `chunk` made ready for writing at once?
    pub(crate) fn is_populated(&self, chunk: ChunkIndex) -> bool {
        let count = self.populated.get(chunk.get() as usize);
        count.is_some_and(|count| count.load(Ordering::Relaxed) > 0)
    }

    fn bytes(&self, pages: PageRange) -> Result<VolatileSlice<'_>, MemoryError> {
        let outside = MemoryError::OutsideMap { pages };
        let region = self
            .map
            .region_of(pages.start())
            .filter(|_| self.map.contains_range(pages));
        let found = region.and_then(|region| {
            let first = self.map.regions().get(region)?.start();
            let offset = (pages.start().get() - first.get()) as usize * PAGE_BYTES;
            let byte_count = pages.count().bytes() as usize;
            self.regions.get(region)?.get_slice(offset, byte_count).ok()
        });
        found.ok_or(outside)
    }

    fn touch(&self, pages: PageRange) {
        for page in pages.iter().map(PageIndex::get) {
            if let Some(word) = self.touched.get((page / 64) as usize) {
                word.fetch_or(1 << (page % 64), Ordering::Relaxed);
            }
        }
    }
}

fn one(page: PageIndex) -> PageRange {
    PageRange::from_start_count(page, PageCount::new(1)).unwrap_or(PageRange::empty())
}

impl GuestMemory for SimMemory {
    fn map(&self) -> &MemoryMap {
        &self.map
    }

    fn slice(&self, pages: PageRange) -> Result<VolatileSlice<'_>, MemoryError> {
        self.bytes(pages)
    }

    fn present(&self, chunk: ChunkIndex) -> Result<ChunkPages, MemoryError> {
        Ok(if self.is_populated(chunk) {
            ChunkPages::FULL
        } else {
            self.touched(chunk)
        })
    }

    fn populate(&self, chunk: ChunkIndex) -> Result<(), MemoryError> {
        if let Some(count) = self.populated.get(chunk.get() as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Memory as the target's pipeline sees it: what is handed out counts as touched.
#[derive(Debug)]
pub(crate) struct Landing {
    memory: Arc<SimMemory>,
    /// Where pages go that a planted bug loses: memory that is no guest's.
    nowhere: Option<Arc<SimMemory>>,
    handed_out: AtomicU64,
}

impl Landing {
    /// Lands pages where they belong.
    pub(crate) fn new(memory: Arc<SimMemory>) -> Self {
        Self {
            memory,
            nowhere: None,
            handed_out: AtomicU64::new(0),
        }
    }

    /// Lands pages where they belong, but for a few: the planted bug of a target that skips a
    /// frame.
    ///
    /// # Errors
    /// When this process gets no memory.
    pub(crate) fn losing_some(memory: Arc<SimMemory>) -> Result<Self, NoMemory> {
        let nowhere = SimMemory::new(&memory.map)?;
        Ok(Self {
            memory,
            nowhere: Some(nowhere),
            handed_out: AtomicU64::new(0),
        })
    }
}

impl GuestMemory for Landing {
    fn map(&self) -> &MemoryMap {
        &self.memory.map
    }

    fn slice(&self, pages: PageRange) -> Result<VolatileSlice<'_>, MemoryError> {
        let number = self.handed_out.fetch_add(1, Ordering::Relaxed);
        if let Some(nowhere) = self.nowhere.as_ref().filter(|_| number % 16 == 15) {
            return nowhere.bytes(pages);
        }
        self.memory.touch(pages);
        self.memory.bytes(pages)
    }

    fn present(&self, chunk: ChunkIndex) -> Result<ChunkPages, MemoryError> {
        self.memory.present(chunk)
    }

    fn populate(&self, chunk: ChunkIndex) -> Result<(), MemoryError> {
        self.memory.populate(chunk)
    }
}
