//! Writes to memory of this process, by the kernel's page tables: userfaultfd protects pages
//! without a handler, and `PAGEMAP_SCAN` tells which protection was lifted. For guests without KVM,
//! and for hosts whose KVM has no log.

use limosa_pages::{ChunkIndex, ChunkPages, PAGE_BYTES, PageCount, PageIndex, PageRange, PageSet};

use crate::asleep::Asleep;
use crate::presence::private_anonymous_memory;
use crate::shared_set::SharedPageSet;
use crate::sys::pagemap::{Pagemap, Query, Region};
use crate::sys::uffd::AsyncWriteProtection;
use crate::{DirtySource, HarvestError, Presence, probe};

/// Where some of the guest's pages lie in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Address of the first page; a multiple of the page size, and of the huge page size (relative
    /// to the guest's chunks) where the memory is of huge pages by reservation.
    pub host_address: u64,
    /// The guest's pages there.
    pub pages: PageRange,
}

impl Mapping {
    fn address_of(&self, page: PageIndex) -> u64 {
        let offset = page.get().saturating_sub(self.pages.start().get());
        self.host_address
            .saturating_add(PageCount::new(offset).bytes())
    }

    /// The guest's pages at the addresses of `region`.
    pub(crate) fn pages_at(&self, region: Region) -> PageRange {
        let page_at = |address: u64| {
            let offset = address.saturating_sub(self.host_address) / PAGE_BYTES as u64;
            self.pages.start().saturating_add(PageCount::new(offset))
        };
        let pages = PageRange::new(page_at(region.start), page_at(region.end));
        pages.unwrap_or(PageRange::empty()).intersect(self.pages)
    }

    /// The addresses of those of `pages` that lie in this mapping.
    pub(crate) fn addresses(&self, pages: PageRange) -> (u64, u64) {
        let part = pages.intersect(self.pages);
        if part.is_empty() {
            return (self.host_address, self.host_address);
        }
        (self.address_of(part.start()), self.address_of(part.end()))
    }

    /// Whether all of it lies in one of `ranges` of addresses.
    pub(crate) fn lies_in(&self, ranges: &[(u64, u64)]) -> bool {
        let (start, end) = self.addresses(self.pages);
        ranges.iter().any(|&(from, to)| from <= start && end <= to)
    }
}

/// Regions that one call of the kernel reports: 96 KiB of buffer, four to ten calls per GiB in
/// which every other page was written.
const HARVEST_REGIONS: usize = 4096;

/// Regions that one call reports when a chunk is rearmed: as many as a chunk can have.
const REARM_REGIONS: usize = 256;

/// All writes through the given mappings: by threads of this process, by its vCPUs, and by the
/// kernel on its behalf (`read(2)`, `process_vm_writev`).
///
/// Not seen are writes through another mapping of the same memory, here or in another process, and
/// `write(2)` to a file that is mapped. The mappings stay in place from start to stop, and no other
/// userfaultfd watches them meanwhile. Needs Linux 6.7, and no privilege.
///
/// Starting costs under 0.1 ms: what was never protected counts as written, and a page is protected
/// when it is rearmed for the first time. A rearm protects every written page of the chunk and
/// reports those it was not asked for. In private anonymous memory it passes over pages that hold
/// nothing: the first write to one makes it a written page, and neither harvest nor rearm costs
/// anything for memory that nobody touches; a page that is read for the first time counts as
/// written once. Of other memory the page tables don't know everything that it holds, so there each
/// page is protected, with page tables made for it, unless a [presence](Self::with_presence) tells
/// that the chunk holds nothing. Huge pages of anonymous memory are reported
/// whole until the first write after a rearm splits them; those of hugetlbfs are always reported
/// whole, and a chunk must not end within one. Stopping takes all protection away again, at 55-120
/// ms/GiB.
pub struct PagemapScan {
    mappings: Vec<Mapping>,
    /// Reported by no write, but because recording began; until it is rearmed.
    unseen: SharedPageSet,
    asleep: Option<Asleep>,
    regions: Vec<Region>,
    recording: Option<Recording>,
}

/// How the pages of a mapping are asked for.
#[derive(Clone, Copy)]
struct Queries {
    written: Query,
    protect: Query,
}

impl Queries {
    /// Where every page that holds anything has a page table entry.
    const OF_CONTENT: Self = Self {
        written: Query::WrittenContent,
        protect: Query::WrittenContentProtect,
    };

    const OF_ALL: Self = Self {
        written: Query::Written,
        protect: Query::WrittenProtect,
    };
}

struct Recording {
    pagemap: Pagemap,
    /// One for each mapping.
    queries: Vec<Queries>,
    /// Protection lasts as long as this lives.
    _protection: AsyncWriteProtection,
}

impl PagemapScan {
    /// The writes to `mappings`, which share no page of the guest.
    ///
    /// # Errors
    /// When mappings are empty or share pages of the guest.
    pub fn new(mut mappings: Vec<Mapping>) -> Result<Self, HarvestError> {
        mappings.sort_by_key(|mapping| mapping.pages.start());
        crate::check_ranges(mappings.iter().map(|mapping| mapping.pages))?;
        let end = mappings
            .last()
            .map_or(PageIndex::ZERO, |mapping| mapping.pages.end());
        Ok(Self {
            mappings,
            unseen: SharedPageSet::new(end),
            asleep: None,
            regions: vec![Region::default(); HARVEST_REGIONS],
            recording: None,
        })
    }

    /// Leaves chunks of memory out that page tables don't tell of, but by what `presence` says hold
    /// nothing: neither reported nor protected, until a page of theirs is populated. Then the whole
    /// chunk counts as written.
    #[must_use]
    pub fn with_presence(mut self, presence: Presence) -> Self {
        self.asleep = Some(Asleep::new(presence));
        self
    }
}

/// Asks for the written ones of `pages` in `mapping`.
fn scan(
    pagemap: &Pagemap,
    query: Query,
    mapping: &Mapping,
    pages: PageRange,
    buffer: &mut [Region],
    each: &mut dyn FnMut(PageRange),
) -> Result<(), HarvestError> {
    let (start, end) = mapping.addresses(pages);
    let reached = pagemap
        .scan(query, start, end, buffer, &mut |region| {
            each(mapping.pages_at(region));
        })
        .map_err(|error| HarvestError::kernel("PAGEMAP_SCAN", pages, error))?;
    if reached < end {
        return Err(HarvestError::WithinHugePage { pages });
    }
    Ok(())
}

impl DirtySource for PagemapScan {
    fn start(&mut self) -> Result<(), HarvestError> {
        self.stop()?;
        let (protection, pagemap) = probe::open_pagemap_scan()?;
        for mapping in &self.mappings {
            protection
                .register(mapping.host_address, mapping.pages.count().bytes())
                .map_err(|error| HarvestError::kernel("UFFDIO_REGISTER", mapping.pages, error))?;
        }
        // What cannot be found out counts as memory that page tables don't tell of.
        let private = private_anonymous_memory().unwrap_or_default();
        let queries = self.mappings.iter().map(|mapping| {
            if mapping.lies_in(&private) {
                // Whatever is there was never protected, and counts as written by that.
                return Queries::OF_CONTENT;
            }
            match &mut self.asleep {
                Some(asleep) => {
                    asleep.lay_down(mapping.pages);
                    let awake = asleep.awake(mapping.pages);
                    awake.for_each(|pages| self.unseen.insert_range(pages));
                }
                None => self.unseen.insert_range(mapping.pages),
            }
            Queries::OF_ALL
        });
        self.recording = Some(Recording {
            pagemap,
            queries: queries.collect(),
            _protection: protection,
        });
        Ok(())
    }

    fn harvest(&mut self, dirty: &mut PageSet) -> Result<PageCount, HarvestError> {
        let recording = self.recording.as_ref().ok_or(HarvestError::NotRecording)?;
        let before = dirty.count();
        if let Some(asleep) = &mut self.asleep {
            asleep.wake(&mut |woken| self.unseen.insert_range(woken));
        }
        self.unseen.add_to(dirty);
        for (mapping, queries) in self.mappings.iter().zip(&recording.queries) {
            let mut ask = |pages| {
                let add = &mut |written| dirty.insert_range(written);
                let (pagemap, regions) = (&recording.pagemap, &mut self.regions);
                scan(pagemap, queries.written, mapping, pages, regions, add)
            };
            match &self.asleep {
                Some(asleep) => asleep.awake(mapping.pages).try_for_each(ask)?,
                None => ask(mapping.pages)?,
            }
        }
        Ok(dirty.count().saturating_sub(before))
    }

    fn rearm(&self, chunk: ChunkIndex, pages: &mut ChunkPages) -> Result<(), HarvestError> {
        let recording = self.recording.as_ref().ok_or(HarvestError::NotRecording)?;
        let mut buffer = [Region::default(); REARM_REGIONS];
        for (mapping, queries) in self.mappings.iter().zip(&recording.queries) {
            let part = mapping.pages.intersect(chunk.pages());
            if part.is_empty() {
                continue;
            }
            let add = &mut |written| pages.union_with(&ChunkPages::of_range(chunk, written));
            scan(
                &recording.pagemap,
                queries.protect,
                mapping,
                part,
                &mut buffer,
                add,
            )?;
        }
        self.unseen.remove_chunk(chunk, pages);
        Ok(())
    }

    fn stop(&mut self) -> Result<(), HarvestError> {
        self.recording = None;
        self.unseen.clear();
        if let Some(asleep) = &mut self.asleep {
            asleep.clear();
        }
        Ok(())
    }

    fn describe(&self) -> &'static str {
        "pagemap-scan"
    }

    fn overhead_bytes(&self) -> usize {
        let asleep = self.asleep.as_ref().map_or(0, Asleep::overhead_bytes);
        self.unseen.overhead_bytes() + size_of_val(self.regions.as_slice()) + asleep
    }
}
