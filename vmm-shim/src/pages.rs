//! A guest's memory as a migration sees it: pages by chunk, which of them hold anything, and one
//! number that stands for them all. It records no writes.

use std::sync::Arc;

use limosa_dirty::{HugeUse, Mapping, Presence, huge_use};
use limosa_pages::{ChunkIndex, ChunkPages, MemoryMap, PAGE_BYTES, PageCount, PageRange, PageSet};
use limosa_pipeline::{GuestMemory, MemoryError};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use vm_memory::VolatileSlice;

use crate::memory::{GuestRam, RamRegion};

/// The memory of one guest, with what the page tables say about it.
pub struct GuestPages {
    presence: Presence,
    ram: Arc<GuestRam>,
}

impl GuestPages {
    pub(crate) fn new(ram: Arc<GuestRam>) -> Self {
        Self {
            presence: presence(&ram),
            ram,
        }
    }

    /// The memory itself.
    #[must_use]
    pub const fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }

    /// A number that two guests share if their memories hold the same, apart from a chance of one
    /// in 2^64. Reads every page that is populated, on all processors; pages of zeros count for
    /// nothing, populated or not. The guest must stand still.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let mut present = PageSet::new(self.ram.map().end());
        for region in self.ram.map().regions() {
            self.presence
                .each_run(*region, &mut |run| present.insert_range(run));
        }
        let chunks: Vec<_> = present.chunks().collect();
        let chunks = chunks.into_par_iter();
        let digests = chunks.map(|(chunk, pages)| self.digest_chunk(chunk, &pages));
        // Addition: the order in which chunks are finished does not matter.
        digests.reduce(|| 0, u64::wrapping_add)
    }

    fn digest_chunk(&self, chunk: ChunkIndex, present: &ChunkPages) -> u64 {
        let mut page = [0; PAGE_BYTES];
        let mut digest = 0u64;
        let offsets = present
            .runs()
            .flat_map(|(first, count)| first..first + count);
        for index in offsets.map(|offset| chunk.page(offset)) {
            let range = PageRange::from_start_count(index, PageCount::new(1));
            if let Some(memory) = range.and_then(|range| self.ram.slice(range)) {
                memory.copy_to(&mut page);
                digest = digest.wrapping_add(digest_page(index.get(), &page));
            }
        }
        digest
    }

    /// How much of the memory lies in huge pages of the host. `None` where the kernel can't tell.
    #[must_use]
    pub fn huge_use(&self) -> Option<HugeUse> {
        let mut total = HugeUse {
            populated: PageCount::ZERO,
            huge: PageCount::ZERO,
        };
        for region in self.ram.regions() {
            let part = huge_use(region.host_address(), region.pages()).ok()?;
            total.populated += part.populated;
            total.huge += part.huge;
        }
        Some(total)
    }
}

/// Where each region lies in this process.
pub(crate) fn mappings(ram: &GuestRam) -> Vec<Mapping> {
    ram.regions().iter().map(mapping).collect()
}

fn mapping(region: &RamRegion) -> Mapping {
    Mapping {
        host_address: region.host_address(),
        pages: region.pages(),
    }
}

/// Of a region whose file can't be named twice every page counts as present.
pub(crate) fn presence(ram: &GuestRam) -> Presence {
    let files = ram.regions().iter().filter_map(|region| {
        let (file, offset) = region.file()?;
        Some((mapping(region), file.try_clone().ok()?, *offset))
    });
    let files: Vec<_> = files.collect();
    let of_file = |mapping: &Mapping| files.iter().any(|(other, ..)| other == mapping);
    let mut others = mappings(ram);
    others.retain(|mapping| !of_file(mapping));
    let presence = Presence::new(others);
    files
        .into_iter()
        .fold(presence, |presence, (mapping, file, offset)| {
            presence.with_file(mapping, file, offset)
        })
}

impl GuestMemory for GuestPages {
    fn map(&self) -> &MemoryMap {
        self.ram.map()
    }

    fn slice(&self, pages: PageRange) -> Result<VolatileSlice<'_>, MemoryError> {
        self.ram
            .slice(pages)
            .ok_or(MemoryError::OutsideMap { pages })
    }

    fn present(&self, chunk: ChunkIndex) -> Result<ChunkPages, MemoryError> {
        Ok(self.presence.chunk(chunk))
    }

    fn each_present(
        &self,
        pages: PageRange,
        each: &mut dyn FnMut(PageRange),
    ) -> Result<(), MemoryError> {
        self.presence.each_run(pages, each);
        Ok(())
    }

    fn populate(&self, chunk: ChunkIndex) -> Result<(), MemoryError> {
        self.ram
            .populate(chunk)
            .map_err(|source| MemoryError::Host {
                what: "populate",
                chunk,
                source,
            })
    }
}

/// 0 for a page of zeros; else a number in which each of its bits, and the page's place, count.
fn digest_page(index: u64, page: &[u8; PAGE_BYTES]) -> u64 {
    const PRIME: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, _) = page.as_chunks::<8>();
    let mut lanes = [PRIME, PRIME ^ 1, PRIME ^ 2, PRIME ^ 3];
    let mut any = 0;
    let (rows, _) = words.as_chunks::<4>();
    for row in rows {
        for (lane, word) in lanes.iter_mut().zip(row) {
            let word = u64::from_le_bytes(*word);
            any |= word;
            *lane = (*lane ^ word).wrapping_mul(PRIME).rotate_left(29);
        }
    }
    if any == 0 {
        return 0;
    }
    let mixed = lanes.iter().fold(index, |mixed, lane| {
        (mixed ^ lane).wrapping_mul(PRIME).rotate_left(31)
    });
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use limosa_pages::PageIndex;
    use vm_memory::Bytes;

    use super::*;
    use crate::layout::memory_map;
    use crate::spec::{Backing, HugePages};

    fn pages(backing: Backing) -> GuestPages {
        let map = memory_map(8 << 20).expect("map");
        let ram = GuestRam::new(map, backing, HugePages::Avoided).expect("memory");
        GuestPages::new(Arc::new(ram))
    }

    #[test]
    fn the_digest_is_of_content_not_of_presence() {
        let (one, other) = (pages(Backing::Anonymous), pages(Backing::Memfd));
        assert_eq!(one.digest(), 0);
        one.populate(ChunkIndex::new(1)).expect("populate");
        assert_eq!(one.digest(), 0);
        let write = |pages: &GuestPages, address, byte| {
            let memory = pages.ram().bytes(address, 1).expect("inside");
            memory.write_slice(&[byte], 0).expect("room");
        };
        write(&one, 5000, 7);
        write(&other, 5000, 7);
        assert_ne!(one.digest(), 0);
        assert_eq!(one.digest(), other.digest());
        // Another bit, another place in the page, another page.
        for address in [5000, 5001, 5000 + 4096] {
            write(&other, address, 6);
            assert_ne!(one.digest(), other.digest(), "{address}");
            write(&other, address, if address == 5000 { 7 } else { 0 });
            assert_eq!(one.digest(), other.digest(), "{address}");
        }
    }

    #[test]
    fn pages_never_written_are_not_present() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            never_written_is_not_present(&pages(backing));
        }
    }

    fn never_written_is_not_present(pages: &GuestPages) {
        let present = pages.present(ChunkIndex::new(0)).expect("present");
        if present == ChunkPages::FULL {
            println!("SKIPPED: this kernel doesn't tell which pages are populated");
            return;
        }
        assert!(present.is_empty());
        let memory = pages.ram().bytes(5 * 4096, 1).expect("inside");
        memory.write_slice(&[7], 0).expect("room");
        let present = pages.present(ChunkIndex::new(0)).expect("present");
        assert_eq!(present.runs().collect::<Vec<_>>(), [(5, 1)]);
        let mut runs = Vec::new();
        let all = pages.ram().map().regions()[0];
        pages
            .each_present(all, &mut |run| runs.push(run))
            .expect("present");
        let page = PageRange::from_start_count(PageIndex::new(5), PageCount::new(1));
        assert_eq!(runs, [page.expect("range")]);
        pages.populate(ChunkIndex::new(0)).expect("populate");
        assert_eq!(
            pages.present(ChunkIndex::new(0)).expect("present").count(),
            512
        );
    }
}
