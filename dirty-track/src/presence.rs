//! Which pages of a guest hold anything at all: the others read as zeros and need not be looked at.
//! It does not read the pages.

use std::fs::{self, File};
use std::io;

use limosa_pages::{
    CHUNK_PAGES, ChunkIndex, ChunkPages, PAGE_BYTES, PageCount, PageIndex, PageRange,
};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::sys::mincore::resident_pages;
use crate::sys::pagemap::{Pagemap, Query, Region};
use crate::{HarvestError, Mapping};

/// Regions that one call of the kernel reports: as many as a chunk can have.
const REGIONS: usize = CHUNK_PAGES as usize / 2;

/// Tells the populated pages of a guest, from many threads at once.
///
/// A page that is not populated was never written, or was given back, and reads as zeros. The
/// answer is of the moment: in a migration, ask after the chunk was
/// [rearmed](crate::DirtySource::rearm), so that a write which comes later is recorded.
///
/// The page tables of *private anonymous* memory tell this. Those of memory that is shared or
/// mapped from a file don't: it may hold bytes that this process never touched. Where that is a
/// [file in memory](Self::with_file), the file's holes tell it. Of any other memory every page
/// counts as populated, and so does everything of which the kernel gives no answer: there may be
/// too many pages in an answer, never too few. The mappings stay in place for as long as this
/// lives.
///
/// Asking chunk by chunk costs 1.3 ms/GiB of populated 4 KiB pages, on the machine of the
/// [crate's page](crate).
pub struct Presence {
    mappings: Vec<Told>,
    pagemap: Option<Pagemap>,
    method: Method,
}

struct Told {
    mapping: Mapping,
    by: Teller,
}

enum Teller {
    PageTable,
    File {
        file: File,
        /// Of the mapping's first page.
        offset: u64,
    },
    Nobody,
}

#[derive(Clone, Copy)]
enum Method {
    /// `PAGEMAP_SCAN`, which knows the page of zeros.
    Scan,
    /// An entry of `/proc/self/pagemap` per page: Linux before 6.7.
    Entries,
}

impl Presence {
    /// The populated pages of `mappings`.
    pub fn new(mappings: Vec<Mapping>) -> Self {
        let private = private_anonymous_memory().unwrap_or_default();
        let mappings: Vec<_> = mappings
            .into_iter()
            .map(|mapping| {
                let by = if mapping.lies_in(&private) {
                    Teller::PageTable
                } else {
                    Teller::Nobody
                };
                Told { mapping, by }
            })
            .collect();
        let pagemap = Pagemap::open().ok();
        let scans = pagemap
            .as_ref()
            .is_some_and(|pagemap| pagemap.can_scan().is_ok());
        Self {
            mappings,
            pagemap,
            method: if scans { Method::Scan } else { Method::Entries },
        }
    }

    /// Adds the pages of `mapping`, whose memory is that of `file` from `offset` bytes on: a file
    /// of a memory file system (`memfd_create`, `/dev/shm`), mapped shared.
    ///
    /// What any process wrote to the file, by whatever way, is then seen: a page counts as
    /// populated unless it lies in a hole of the file.
    #[must_use]
    pub fn with_file(mut self, mapping: Mapping, file: File, offset: u64) -> Self {
        let by = Teller::File { file, offset };
        self.mappings.push(Told { mapping, by });
        self
    }

    /// The populated pages of `chunk`; pages in none of the mappings are not among them.
    pub fn chunk(&self, chunk: ChunkIndex) -> ChunkPages {
        let mut pages = ChunkPages::EMPTY;
        self.each_run(chunk.pages(), &mut |run| {
            pages.union_with(&ChunkPages::of_range(chunk, run));
        });
        pages
    }

    /// Hands the populated ones of `pages` to `each`, in runs. Pages in none of the mappings are
    /// not among them.
    pub fn each_run(&self, pages: PageRange, each: &mut dyn FnMut(PageRange)) {
        for told in &self.mappings {
            let part = pages.intersect(told.mapping.pages);
            if !part.is_empty() && self.ask(told, part, each).is_err() {
                each(part);
            }
        }
    }

    /// How many pages there is an answer for; of the others every one counts as populated.
    pub fn told_count(&self) -> PageCount {
        self.told().map(|pages| pages.count()).sum()
    }

    /// The pages that there is an answer for, mapping by mapping.
    pub(crate) fn told(&self) -> impl Iterator<Item = PageRange> {
        let told = self.mappings.iter();
        let told = told.filter(|told| !matches!(told.by, Teller::Nobody));
        told.map(|told| told.mapping.pages)
    }

    fn ask(&self, told: &Told, part: PageRange, each: &mut dyn FnMut(PageRange)) -> io::Result<()> {
        match (&told.by, &self.pagemap) {
            (Teller::File { file, offset }, _) => {
                let (offset, mapping) = (*offset, &told.mapping);
                let holes = Holes {
                    file,
                    offset,
                    mapping,
                };
                if part.count().get() <= CHUNK_PAGES {
                    holes.ask_few(part, each)
                } else {
                    holes.ask(part, each)
                }
            }
            (Teller::PageTable, Some(pagemap)) => {
                self.ask_page_table(pagemap, &told.mapping, part, each)
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn ask_page_table(
        &self,
        pagemap: &Pagemap,
        mapping: &Mapping,
        part: PageRange,
        each: &mut dyn FnMut(PageRange),
    ) -> io::Result<()> {
        match self.method {
            Method::Scan => {
                let mut buffer = [Region::default(); REGIONS];
                let (start, end) = mapping.addresses(part);
                let report = &mut |region| each(mapping.pages_at(region));
                let reached = pagemap.scan(Query::Populated, start, end, &mut buffer, report)?;
                if reached < end {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Method::Entries => {
                let mut populated = [false; CHUNK_PAGES as usize];
                for (_, part) in part.chunks() {
                    let (start, _) = mapping.addresses(part);
                    let populated = &mut populated[..part.count().get() as usize];
                    pagemap.read_entries(start, populated)?;
                    for (page, _) in part
                        .iter()
                        .zip(populated)
                        .filter(|(_, populated)| **populated)
                    {
                        each(
                            PageRange::from_start_count(page, PageCount::new(1))
                                .unwrap_or(PageRange::empty()),
                        );
                    }
                }
            }
        }
        Ok(())
    }
}

/// A file in memory, and where the first page of a mapping is in it.
struct Holes<'a> {
    file: &'a File,
    offset: u64,
    mapping: &'a Mapping,
}

impl Holes<'_> {
    fn offset_of(&self, page: PageIndex) -> u64 {
        let skipped = page.get() - self.mapping.pages.start().get();
        self.offset + PageCount::new(skipped).bytes()
    }

    /// The first page from `page` on that lies in no hole; `None` where there is none.
    fn next_data(&self, page: PageIndex) -> io::Result<Option<PageIndex>> {
        match seek(self.file, SeekFrom::Data(self.offset_of(page))) {
            Err(Errno::NXIO) => Ok(None),
            found => Ok(Some(self.page_at(found?))),
        }
    }

    /// The first page from `page` on that lies in a hole.
    fn next_hole(&self, page: PageIndex) -> io::Result<PageIndex> {
        let found = seek(self.file, SeekFrom::Hole(self.offset_of(page)))?;
        Ok(self.page_at(found.next_multiple_of(PAGE_BYTES as u64)))
    }

    fn page_at(&self, offset: u64) -> PageIndex {
        let pages = (offset - self.offset) / PAGE_BYTES as u64;
        self.mapping
            .pages
            .start()
            .saturating_add(PageCount::new(pages))
    }

    /// Hands those of `part` to `each` that lie in no hole, in runs.
    fn ask(&self, part: PageRange, each: &mut dyn FnMut(PageRange)) -> io::Result<()> {
        let mut from = part.start();
        while from < part.end()
            && let Some(data) = self.next_data(from)?.filter(|data| *data < part.end())
        {
            let beyond = self.next_hole(data)?.min(part.end());
            each(PageRange::new(data, beyond).unwrap_or(PageRange::empty()));
            from = beyond.max(data.saturating_add(PageCount::new(1)));
        }
        Ok(())
    }

    /// The same for few pages: the kernel looks for a hole page by page, however far it is, and
    /// would do so once for each chunk.
    fn ask_few(&self, part: PageRange, each: &mut dyn FnMut(PageRange)) -> io::Result<()> {
        let mut resident = [false; CHUNK_PAGES as usize];
        let resident = &mut resident[..part.count().get() as usize];
        let (start, _) = self.mapping.addresses(part);
        resident_pages(start, resident)?;
        let mut from = part.start();
        while from < part.end() {
            let at = (from.get() - part.start().get()) as usize;
            let count = resident[at..]
                .iter()
                .take_while(|resident| **resident)
                .count();
            let mut beyond = from.saturating_add(PageCount::new(count as u64));
            if count == 0 {
                // In no memory: swapped out, or in a hole.
                let Some(data) = self.next_data(from)?.filter(|data| *data < part.end()) else {
                    break;
                };
                if data > from {
                    from = data;
                    continue;
                }
                beyond = from.saturating_add(PageCount::new(1));
            }
            each(PageRange::new(from, beyond).unwrap_or(PageRange::empty()));
            from = beyond;
        }
        Ok(())
    }
}

/// Hands the populated ones of `pages`, which lie at `host_address`, to `each`, in runs.
///
/// For one question; [`Presence`] is for many, and says what the answer means.
pub fn present_pages(host_address: u64, pages: PageRange, each: &mut dyn FnMut(PageRange)) {
    Presence::new(vec![Mapping {
        host_address,
        pages,
    }])
    .each_run(pages, each);
}

/// How much of some memory lies under huge page table entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HugeUse {
    /// Pages that hold anything.
    pub populated: PageCount,
    /// Those of them that a huge page table entry maps.
    pub huge: PageCount,
}

impl HugeUse {
    /// The huge share, from 0 to 1; 0 of memory that holds nothing.
    pub fn share(&self) -> f64 {
        self.huge.get() as f64 / self.populated.get().max(1) as f64
    }
}

/// How much of the memory at `host_address` lies under huge page table entries, in this process.
///
/// # Errors
/// When the kernel has no `PAGEMAP_SCAN`.
pub fn huge_use(host_address: u64, pages: PageRange) -> Result<HugeUse, HarvestError> {
    let pagemap = Pagemap::open_scanning()?;
    let mapping = Mapping {
        host_address,
        pages,
    };
    let (start, end) = mapping.addresses(pages);
    let mut buffer = [Region::default(); REGIONS];
    let mut count = |query| {
        let mut total = PageCount::ZERO;
        let add = &mut |region| total += mapping.pages_at(region).count();
        match pagemap.scan(query, start, end, &mut buffer, add) {
            Ok(_) => Ok(total),
            Err(error) => Err(HarvestError::kernel("PAGEMAP_SCAN", pages, error)),
        }
    };
    Ok(HugeUse {
        populated: count(Query::Populated)?,
        huge: count(Query::Huge)?,
    })
}

/// The address ranges of this process that are private and have no file behind them; in order, with
/// touching ones joined.
// Source: Linux Documentation/filesystems/proc.rst, /proc/PID/maps:
// `start-end perms offset dev inode path`, where no file means inode 0.
pub(crate) fn private_anonymous_memory() -> io::Result<Vec<(u64, u64)>> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for (start, end) in maps.lines().filter_map(private_anonymous_range) {
        match ranges.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => ranges.push((start, end)),
        }
    }
    Ok(ranges)
}

fn private_anonymous_range(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_private = fields.next()?.ends_with('p');
    let is_anonymous = fields.nth(2)? == "0";
    let address = |text| u64::from_str_radix(text, 16).ok();
    (is_private && is_anonymous).then_some((address(start)?, address(end)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;
    use limosa_pages::{CHUNK_BYTES, PageSet};

    /// What older kernels tell is a superset of what `PAGEMAP_SCAN` tells.
    #[test]
    fn the_entries_name_every_page_that_the_scan_names() {
        let mut memory = vec![0_u8; 64 * CHUNK_BYTES];
        let written = [5, 6, 7, 3 * CHUNK_BYTES, 40 * CHUNK_BYTES + 123];
        written.iter().for_each(|&offset| memory[offset] = 1);
        let page_bytes = PAGE_BYTES as u64;
        let host_address = (memory.as_ptr().addr() as u64).next_multiple_of(page_bytes);
        let count = PageCount::new(memory.len() as u64 / page_bytes - 1);
        let pages = PageRange::from_start_count(PageIndex::new(77), count).unwrap();
        let mut presence = Presence::new(vec![Mapping {
            host_address,
            pages,
        }]);
        let populated = |presence: &Presence| {
            let mut set = PageSet::new(pages.end());
            presence.each_run(pages, &mut |run| set.insert_range(run));
            set
        };
        let scanned = populated(&presence);
        presence.method = Method::Entries;
        let entries = populated(&presence);
        assert!(entries.is_superset(&scanned));
        for offset in written {
            let address = memory.as_ptr().addr() as u64 + offset as u64;
            let Some(offset) = address.checked_sub(host_address) else {
                continue;
            };
            let page = PageIndex::new(77 + offset / page_bytes);
            assert!(scanned.contains(page) && entries.contains(page), "{page}");
        }
        assert!(entries.count() < count, "untouched memory is not populated");

        presence.pagemap = None;
        assert_eq!(
            populated(&presence).count(),
            count,
            "without an answer, all of it is"
        );
    }

    /// A memory file that begins ahead of the mapping, with data at either end of it.
    #[test]
    fn a_files_holes_are_not_present() {
        let file = File::from(memfd_create("presence", MemfdFlags::CLOEXEC).unwrap());
        let (skipped, count) = (3, 2 * CHUNK_PAGES);
        let page_bytes = PAGE_BYTES as u64;
        file.set_len((skipped + count + 5) * page_bytes).unwrap();
        for page in [0, 3, 4, 700, skipped + count - 1, skipped + count + 1] {
            file.write_all_at(b"!", page * page_bytes + 17).unwrap();
        }
        let start = PageIndex::new(100);
        let mapping = Mapping {
            host_address: 0,
            pages: PageRange::from_start_count(start, PageCount::new(count)).unwrap(),
        };
        let presence = Presence::new(vec![]).with_file(mapping, file, skipped * page_bytes);
        assert_eq!(presence.told_count().get(), count);
        let mut present = Vec::new();
        presence.each_run(mapping.pages, &mut |run| {
            present.extend(run.iter().map(PageIndex::get));
        });
        assert_eq!(present, [100, 101, 797, 100 + count - 1]);
        // Few pages are asked for through the mapping, which isn't there: all count as populated.
        assert_eq!(presence.chunk(ChunkIndex::new(1)), ChunkPages::FULL);
    }

    #[test]
    fn only_private_memory_without_a_file_is_told_by_page_tables() {
        let range = private_anonymous_range;
        assert_eq!(
            range("7f00-7f80 rw-p 00000000 00:00 0 "),
            Some((0x7f00, 0x7f80))
        );
        assert_eq!(
            range("7f00-7f80 rw-p 00000000 00:00 0      [heap]"),
            Some((0x7f00, 0x7f80))
        );
        assert_eq!(
            range("7f00-7f80 rw-s 00000000 00:01 77 /dev/zero (deleted)"),
            None
        );
        assert_eq!(
            range("7f00-7f80 rw-p 00000000 fd:00 99 /usr/lib/libc.so"),
            None
        );
        assert_eq!(range(""), None);
    }
}
