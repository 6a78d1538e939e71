//! A guest's memory as mappings of this process, region by region. It does not know who writes it:
//! recording writes is `ram.rs`'s and the kernel's.
//!
//! Safety rules: a region is a reservation that owns a range of addresses, and a view of the memory
//! mapped over a part of it. The view is dropped with the reservation and never without it, and
//! slices borrow the region: so no slice outlives its mapping. Guest and host write at the same
//! time, therefore every access goes through `VolatileSlice` or atomics, never through a reference.
#![expect(
    unsafe_code,
    reason = "mapping guest memory at an aligned address inside a reservation"
)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU8, Ordering};

use limosa_pages::{CHUNK_BYTES, ChunkIndex, MemoryMap, PAGE_BYTES, PageRange};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use vm_memory::mmap::MmapRegion;
use vm_memory::{VolatileMemory, VolatileSlice};

use crate::spec::{Backing, HugePages, Room};
use crate::sys::{self, Advice};

/// Why a guest can't have its memory.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// More memory than the host has left.
    #[error(
        "the guest needs {wanted_bytes} bytes of memory and the host has {available_bytes} \
         available: give it less, or stop something"
    )]
    NoRoom {
        /// What the guest needs.
        wanted_bytes: u64,
        /// `MemAvailable` of the host.
        available_bytes: u64,
    },
    /// More bytes than addresses of this process.
    #[error("the memory map has {bytes} bytes, more than this process can address")]
    TooLarge {
        /// What was asked for.
        bytes: u64,
    },
    /// The kernel refused a mapping.
    #[error("the host can't map {bytes} bytes of guest memory: {source}")]
    Map {
        /// Size of the region.
        bytes: u64,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel has no pages for a mapping.
    #[error("the host can't populate {bytes} bytes of guest memory: {source}")]
    Populate {
        /// Size of all guest memory.
        bytes: u64,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// One region of guest memory and its place in this process.
#[derive(Debug)]
pub(crate) struct RamRegion {
    pages: PageRange,
    view: MmapRegion,
    /// What the view is of, and where it begins there; none of anonymous memory.
    file: Option<(File, u64)>,
    /// Owns the addresses of `view`, and unmaps them.
    _reservation: MmapRegion,
}

impl RamRegion {
    pub(crate) const fn pages(&self) -> PageRange {
        self.pages
    }

    /// Address in this process of the region's first byte.
    pub(crate) fn host_address(&self) -> u64 {
        self.view.as_ptr().addr() as u64
    }

    /// The memory file behind the region, and the offset of its first byte there.
    pub(crate) const fn file(&self) -> Option<&(File, u64)> {
        self.file.as_ref()
    }
}

/// All memory of one guest: zeros, until somebody writes.
#[derive(Debug)]
pub struct GuestRam {
    map: MemoryMap,
    regions: Vec<RamRegion>,
}

impl GuestRam {
    /// Maps memory for every region of `map`. No page is populated.
    ///
    /// Host addresses are a multiple of 2 MiB away from guest addresses, so that a huge page of the
    /// host can be a huge page of the guest. Children of this process don't inherit the mapping,
    /// and core dumps leave it out.
    ///
    /// # Errors
    /// [`RamError`]; nothing stays mapped then.
    pub fn new(map: MemoryMap, backing: Backing, huge_pages: HugePages) -> Result<Self, RamError> {
        Self::with_room(map, backing, huge_pages, Room::All)
    }

    /// The same for a guest that may be known to touch less than it has.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_room(
        map: MemoryMap,
        backing: Backing,
        huge_pages: HugePages,
        room: Room,
    ) -> Result<Self, RamError> {
        let all_bytes = map.page_count().bytes();
        let wanted_bytes = match room {
            Room::All => all_bytes,
            Room::Bytes(bytes) => bytes.min(all_bytes),
        };
        if let Some(available_bytes) = available_bytes()
            && available_bytes < wanted_bytes
        {
            return Err(RamError::NoRoom {
                wanted_bytes,
                available_bytes,
            });
        }
        let regions = map.regions().iter();
        let regions = regions
            .map(|pages| region(*pages, backing, huge_pages))
            .collect::<Result<_, _>>()?;
        Ok(Self { map, regions })
    }

    /// Which pages there are.
    #[must_use]
    pub const fn map(&self) -> &MemoryMap {
        &self.map
    }

    pub(crate) fn regions(&self) -> &[RamRegion] {
        &self.regions
    }

    /// The bytes of `pages`; `None` where they are not inside one region.
    #[must_use]
    pub fn slice(&self, pages: PageRange) -> Option<VolatileSlice<'_>> {
        let region = self.regions.get(self.map.region_of(pages.start())?)?;
        if !region.pages.contains_range(pages) {
            return None;
        }
        let skipped = pages.start().get() - region.pages.start().get();
        let offset = usize::try_from(skipped).ok()?.checked_mul(PAGE_BYTES)?;
        let bytes = usize::try_from(pages.count().bytes()).ok()?;
        region.view.get_slice(offset, bytes).ok()
    }

    /// The bytes `address..address + bytes`; `None` where they are not inside one region.
    #[must_use]
    pub fn bytes(&self, address: u64, bytes: usize) -> Option<VolatileSlice<'_>> {
        let page = PAGE_BYTES as u64;
        let end = address.checked_add(bytes as u64)?.div_ceil(page);
        let pages = PageRange::new(
            limosa_pages::PageIndex::new(address / page),
            limosa_pages::PageIndex::new(end),
        )?;
        let whole = self.slice(pages)?;
        whole.subslice((address % page) as usize, bytes).ok()
    }

    /// Makes all pages ready for writing, on all processors; what they hold stays.
    ///
    /// # Errors
    /// [`RamError::Populate`], where the kernel has no memory for them.
    pub fn populate_all(&self) -> Result<(), RamError> {
        let chunks: Vec<_> = self.map.chunks().map(|(chunk, _)| chunk).collect();
        let done = chunks
            .into_par_iter()
            .try_for_each(|chunk| self.populate(chunk));
        done.map_err(|source| RamError::Populate {
            bytes: self.map.page_count().bytes(),
            source,
        })
    }

    /// Makes the pages of `chunk` ready for writing; what they hold stays.
    ///
    /// # Errors
    /// The kernel's answer, where it has no memory for them.
    pub fn populate(&self, chunk: ChunkIndex) -> io::Result<()> {
        let parts = self.map.regions().iter();
        for part in parts.map(|region| region.intersect(chunk.pages())) {
            if let Some(memory) = self.slice(part).filter(|memory| !memory.is_empty()) {
                populate(&memory)?;
            }
        }
        Ok(())
    }
}

/// `MADV_POPULATE_WRITE` came with Linux 5.14; before that every page is written as it is.
fn populate(memory: &VolatileSlice<'_>) -> io::Result<()> {
    match sys::advise(memory, Advice::PopulateForWriting) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            for offset in (0..memory.len()).step_by(PAGE_BYTES) {
                let byte = memory.get_atomic_ref::<AtomicU8>(offset);
                let byte = byte.map_err(io::Error::other)?;
                byte.fetch_or(0, Ordering::Relaxed);
            }
            Ok(())
        }
        answer => answer,
    }
}

fn region(
    pages: PageRange,
    backing: Backing,
    huge_pages: HugePages,
) -> Result<RamRegion, RamError> {
    let bytes = pages.count().bytes();
    let too_large = RamError::TooLarge { bytes };
    let Some(size) = usize::try_from(bytes).ok().filter(|size| *size > 0) else {
        return Err(too_large);
    };
    let Some(reserved) = size.checked_add(CHUNK_BYTES) else {
        return Err(too_large);
    };
    let refused = |source| RamError::Map { bytes, source };
    let no_access = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let reservation = MmapRegion::<()>::build(None, reserved, libc::PROT_NONE, no_access)
        .map_err(|error| refused(io::Error::other(error)))?;
    let offset_in_chunk = usize::from(pages.start().offset_in_chunk()) * PAGE_BYTES;
    let base = reservation.as_ptr();
    let skipped = offset_in_chunk.wrapping_sub(base.addr()) % CHUNK_BYTES;
    let file = match backing {
        Backing::Anonymous => None,
        // The file's offsets are as far from a huge page's start as the guest's addresses are.
        Backing::Memfd => Some(sys::memory_file(bytes + offset_in_chunk as u64).map_err(refused)?),
    };
    let view = map_over(&reservation, skipped, size, file.as_ref(), offset_in_chunk);
    let view = view.map_err(refused)?;
    let memory = view.as_volatile_slice();
    // Advice may be unknown to a kernel without huge pages; the guest runs all the same.
    let size_of_pages = match huge_pages {
        HugePages::Advised => Advice::HugePages,
        HugePages::Avoided => Advice::SmallPages,
    };
    for advice in [size_of_pages, Advice::NotInChildren, Advice::NotInCoreDumps] {
        sys::advise(&memory, advice).ok();
    }
    Ok(RamRegion {
        pages,
        view,
        file: file.map(|file| (file, offset_in_chunk as u64)),
        _reservation: reservation,
    })
}

/// Maps memory over `size` bytes of the reservation, from `skipped` on.
fn map_over(
    reservation: &MmapRegion,
    skipped: usize,
    size: usize,
    file: Option<&File>,
    file_offset: usize,
) -> io::Result<MmapRegion> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let place = reservation
        .get_slice(skipped, size)
        .map_err(io::Error::other)?;
    let guard = place.ptr_guard_mut();
    let flags = libc::MAP_FIXED | libc::MAP_NORESERVE;
    let (flags, fd, offset) = match file {
        None => (flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0),
        Some(file) => (
            flags | libc::MAP_SHARED,
            file.as_raw_fd(),
            libc::off_t::try_from(file_offset).map_err(io::Error::other)?,
        ),
    };
    // SAFETY: the range lies inside the reservation, which nobody else uses and nobody can access:
    // replacing its mapping takes memory away from no one.
    let address = unsafe { libc::mmap(guard.as_ptr().cast(), size, access, flags, fd, offset) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `size` bytes were just mapped there, readable and writable, and they stay mapped as
    // long as the reservation, beside which the view is kept.
    unsafe { MmapRegion::build_raw(address.cast(), size, access, flags & !libc::MAP_FIXED) }
        .map_err(io::Error::other)
}

/// What the host could give away without swapping: `MemAvailable`. `None` where it doesn't say.
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use limosa_pages::{PageCount, PageIndex};
    use vm_memory::Bytes;

    use super::*;

    fn ram(start: u64, pages: u64, backing: Backing) -> GuestRam {
        let range = PageRange::from_start_count(PageIndex::new(start), PageCount::new(pages));
        let map = MemoryMap::new(vec![range.expect("range")]).expect("map");
        GuestRam::new(map, backing, HugePages::Advised).expect("memory")
    }

    #[test]
    fn regions_keep_the_guests_distance_to_huge_pages() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            for start in [0, 3, 511, 512] {
                let ram = ram(start, 1024, backing);
                let host = ram.regions()[0].host_address();
                let guest = start * PAGE_BYTES as u64;
                assert_eq!(host.wrapping_sub(guest) % CHUNK_BYTES as u64, 0);
            }
        }
    }

    #[test]
    fn bytes_written_are_read_back_and_survive_populating() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let ram = ram(3, 600, backing);
            let memory = ram.bytes(5 * 4096 + 8, 16).expect("inside");
            memory.write_slice(&[7; 16], 0).expect("room");
            ram.populate(ChunkIndex::new(0)).expect("populate");
            ram.populate(ChunkIndex::new(1)).expect("populate");
            ram.populate(ChunkIndex::new(9))
                .expect("a chunk without pages");
            let mut bytes = [0; 20];
            let memory = ram.bytes(5 * 4096 + 6, 20).expect("inside");
            memory.read_slice(&mut bytes, 0).expect("room");
            assert_eq!(bytes[..2], [0; 2]);
            assert_eq!(bytes[2..18], [7; 16]);
            assert!(ram.bytes(2 * 4096, 1).is_none());
            assert!(ram.bytes(603 * 4096 - 1, 2).is_none());
            assert!(ram.bytes(u64::MAX - 1, 8).is_none());
        }
    }

    #[test]
    fn more_than_the_host_has_is_refused_with_numbers() {
        let range = PageRange::new(PageIndex::ZERO, PageIndex::new(1 << 31)).expect("range");
        let map = MemoryMap::new(vec![range]).expect("map");
        let refused = GuestRam::new(map, Backing::Anonymous, HugePages::Advised);
        let words = refused.expect_err("8 TiB").to_string();
        assert!(words.contains("8796093022208"), "{words}");
        let range = PageRange::new(PageIndex::ZERO, PageIndex::new(1 << 31)).expect("range");
        let map = MemoryMap::new(vec![range]).expect("map");
        let (backing, huge_pages) = (Backing::Memfd, HugePages::Avoided);
        GuestRam::with_room(map, backing, huge_pages, Room::Bytes(1 << 20)).expect("sparse memory");
    }
}
