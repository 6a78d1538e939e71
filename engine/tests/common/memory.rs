//! A guest's memory for tests: plain mappings, with a record of every write. No thread writes here
//! by itself.

use std::sync::Arc;

use limosa_dirty::{Mapping, Presence, WriteRecorder};
use limosa_pages::{
    ChunkIndex, ChunkPages, MemoryMap, PAGE_BYTES, PageCount, PageIndex, PageRange,
};
use limosa_pipeline::{GuestMemory, MemoryError};
use vm_memory::mmap::MmapRegion;
use vm_memory::{VolatileMemory as _, VolatileSlice};

pub(crate) fn range(start: u64, count: u64) -> PageRange {
    PageRange::from_start_count(PageIndex::new(start), PageCount::new(count)).unwrap()
}

pub(crate) fn map_of(regions: &[(u64, u64)]) -> MemoryMap {
    let regions = regions.iter().map(|(start, count)| range(*start, *count));
    MemoryMap::new(regions.collect()).unwrap()
}

/// What a page holds that was filled with `seed`: odd seeds are noise, even ones compress well.
pub(crate) fn pattern(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut page = vec![seed as u8 | 1; PAGE_BYTES];
    let noise_bytes = if seed % 2 == 1 { PAGE_BYTES } else { 64 };
    for word in page[..noise_bytes].chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
    page
}

/// Guest memory whose writers record what they write.
pub(crate) struct TestMemory {
    map: MemoryMap,
    regions: Vec<MmapRegion>,
    presence: Presence,
    pub(crate) recorder: WriteRecorder,
}

impl TestMemory {
    pub(crate) fn new(map: &MemoryMap) -> Arc<Self> {
        let make = |region: &PageRange| MmapRegion::new(region.count().bytes() as usize).unwrap();
        let regions: Vec<MmapRegion> = map.regions().iter().map(make).collect();
        let mappings = regions.iter().zip(map.regions());
        let mappings = mappings.map(|(region, pages)| Mapping {
            host_address: region.as_ptr() as u64,
            pages: *pages,
        });
        Arc::new(Self {
            presence: Presence::new(mappings.collect()),
            regions,
            map: map.clone(),
            recorder: WriteRecorder::new(map),
        })
    }

    /// Writes a page: the bytes first, then the record.
    pub(crate) fn write(&self, page: u64, bytes: &[u8]) {
        self.slice(range(page, 1)).unwrap().copy_from(bytes);
        self.recorder.record(range(page, 1));
    }

    pub(crate) fn zero(&self, page: u64) {
        self.write(page, &[0; PAGE_BYTES]);
    }

    pub(crate) fn read(&self, page: u64) -> Vec<u8> {
        let mut bytes = vec![0; PAGE_BYTES];
        self.slice(range(page, 1)).unwrap().copy_to(&mut bytes[..]);
        bytes
    }

    /// Is the page populated, as far as this kernel tells? Zero pages count as not.
    pub(crate) fn is_populated(&self, page: u64) -> bool {
        let page = PageIndex::new(page);
        self.presence
            .chunk(page.chunk())
            .contains(page.offset_in_chunk())
    }

    /// Pages of the map that are populated.
    pub(crate) fn populated_count(&self) -> u64 {
        let chunks = self.map.chunks().map(|(chunk, part)| {
            let mut present = ChunkPages::of_range(chunk, part);
            present.intersect(&self.presence.chunk(chunk));
            u64::from(present.count())
        });
        chunks.sum()
    }

    /// The first page in which two guests differ.
    pub(crate) fn first_difference(&self, other: &Self) -> Option<u64> {
        let mut pages = self.map.regions().iter().flat_map(|region| region.iter());
        pages
            .find(|page| self.read(page.get()) != other.read(page.get()))
            .map(PageIndex::get)
    }
}

impl GuestMemory for TestMemory {
    fn map(&self) -> &MemoryMap {
        &self.map
    }

    fn slice(&self, pages: PageRange) -> Result<VolatileSlice<'_>, MemoryError> {
        let outside = || MemoryError::OutsideMap { pages };
        let number = self.map.region_of(pages.start()).ok_or_else(outside)?;
        let first = self.map.regions()[number].start();
        let offset = (pages.start().get() - first.get()) as usize * PAGE_BYTES;
        let bytes = pages.count().bytes() as usize;
        self.regions[number]
            .get_slice(offset, bytes)
            .map_err(|_| outside())
    }

    fn present(&self, chunk: ChunkIndex) -> Result<ChunkPages, MemoryError> {
        Ok(self.presence.chunk(chunk))
    }

    /// Nothing: so that what is populated at the target was written there.
    fn populate(&self, _: ChunkIndex) -> Result<(), MemoryError> {
        Ok(())
    }
}
