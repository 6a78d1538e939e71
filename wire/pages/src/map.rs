//! Which pages a guest has, validated once. The map does not know where in a host process they lie.

use alloc::vec::Vec;

use crate::chunk::ChunkIndex;
use crate::index::{PageCount, PageIndex};
use crate::range::PageRange;
use crate::set::PageSet;

/// Most regions in a map. A guest of a few gigabytes has two or three; each hot-plugged module of
/// memory adds one.
pub const REGIONS_MAX: usize = 64;

/// The furthest that a map may reach, in pages: 16 TiB of guest physical addresses, so that every
/// page index fits 32 bits on the wire.
pub const PAGE_END_MAX: PageIndex = PageIndex::new(1 << 32);

/// How many pages the holes of a map may have beyond as many as the guest has: 4 GiB, the range in
/// which a small guest of a PC keeps its devices.
///
/// With it a [`PageSet`] over the map costs at most a fixed share of the guest's memory, whatever
/// a peer says.
pub const HOLE_SLACK_PAGES: PageCount = PageCount::new(1 << 20);

/// Which pages a guest has: regions in order, none empty, none overlapping. Two regions may touch:
/// they are then different mappings of the host.
///
/// A map is checked when it is made, and cannot be changed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MemoryMap {
    regions: Vec<PageRange>,
    page_count: PageCount,
    end: PageIndex,
}

/// Why some regions are no [`MemoryMap`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// There is no region: a guest has memory.
    #[error("the memory map has no region")]
    NoRegion,
    /// There are more than [`REGIONS_MAX`] regions.
    #[error("the memory map has {count} regions, more than {REGIONS_MAX}")]
    TooManyRegions {
        /// How many regions there are.
        count: usize,
    },
    /// A region has no page.
    #[error("region {region} of the memory map is empty")]
    EmptyRegion {
        /// Which region, counted from 0.
        region: usize,
    },
    /// A region begins before the one ahead of it ends.
    #[error("region {region} of the memory map begins before the region ahead of it ends")]
    OutOfOrder {
        /// Which region, counted from 0.
        region: usize,
    },
    /// A region ends beyond [`PAGE_END_MAX`].
    #[error("the memory map ends at page {end}, beyond page {PAGE_END_MAX}")]
    TooFar {
        /// The page after the last.
        end: PageIndex,
    },
    /// The holes have more pages than the guest has and [`HOLE_SLACK_PAGES`] together.
    #[error("the memory map has {hole_pages} pages of holes around {page_count} pages of memory")]
    TooSparse {
        /// Pages below the end that are in no region.
        hole_pages: PageCount,
        /// Pages that are in a region.
        page_count: PageCount,
    },
}

impl MemoryMap {
    /// A map of `regions`, which are in order.
    ///
    /// # Errors
    ///
    /// The first rule that the regions break, as a [`MapError`].
    pub fn new(regions: Vec<PageRange>) -> Result<Self, MapError> {
        if regions.len() > REGIONS_MAX {
            return Err(MapError::TooManyRegions {
                count: regions.len(),
            });
        }
        let mut end = PageIndex::ZERO;
        for (region, pages) in regions.iter().enumerate() {
            if pages.is_empty() {
                return Err(MapError::EmptyRegion { region });
            }
            if pages.start() < end {
                return Err(MapError::OutOfOrder { region });
            }
            end = pages.end();
        }
        if regions.is_empty() {
            return Err(MapError::NoRegion);
        }
        if end > PAGE_END_MAX {
            return Err(MapError::TooFar { end });
        }
        let page_count: PageCount = regions.iter().map(|pages| pages.count()).sum();
        let hole_pages = PageCount::new(end.get()).saturating_sub(page_count);
        if hole_pages > page_count + HOLE_SLACK_PAGES {
            return Err(MapError::TooSparse {
                hole_pages,
                page_count,
            });
        }
        Ok(Self {
            regions,
            page_count,
            end,
        })
    }

    /// The regions, in order.
    pub fn regions(&self) -> &[PageRange] {
        &self.regions
    }

    /// How many pages the guest has.
    pub const fn page_count(&self) -> PageCount {
        self.page_count
    }

    /// The page after the guest's last: the bound of every [`PageSet`] over this map. At most
    /// [`PAGE_END_MAX`].
    pub const fn end(&self) -> PageIndex {
        self.end
    }

    /// Whether all of `range` lies inside one region. A range without pages does wherever its start
    /// is a page of the guest, or the end of a region.
    pub fn contains_range(&self, range: PageRange) -> bool {
        let next = self
            .regions
            .partition_point(|region| region.start() <= range.start());
        let region = next
            .checked_sub(1)
            .and_then(|region| self.regions.get(region));
        region.is_some_and(|region| range.end() <= region.end())
    }

    /// Which of [`regions`](Self::regions) holds `page`; `None` for a page that the guest has not.
    pub fn region_of(&self, page: PageIndex) -> Option<usize> {
        let region = self
            .regions
            .partition_point(|region| region.start() <= page)
            .checked_sub(1)?;
        self.regions
            .get(region)
            .is_some_and(|pages| pages.contains(page))
            .then_some(region)
    }

    /// The chunks that hold a page of the guest, each with the part of a region inside it; in
    /// order. A chunk in which several regions have a part comes once for each.
    pub fn chunks(&self) -> impl Iterator<Item = (ChunkIndex, PageRange)> + Clone {
        self.regions.iter().flat_map(|region| region.chunks())
    }

    /// Every page of the guest.
    pub fn full_set(&self) -> PageSet {
        let mut pages = PageSet::new(self.end);
        for region in &self.regions {
            pages.insert_range(*region);
        }
        pages
    }
}
