//! The kernel's answers about page table entries of this process: `PAGEMAP_SCAN`, and reading
//! `/proc/self/pagemap` where that is not to be had. It does not touch the pages.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use limosa_pages::PAGE_BYTES;

use super::{Direction, ioctl, request};
use crate::Unavailable;

const PATH: &str = "/proc/self/pagemap";

// Source for all below: Linux include/uapi/linux/fs.h and Documentation/admin-guide/mm/pagemap.rst.
/// Written since it was last protected. A page that was never protected counts as written.
pub(crate) const PAGE_IS_WRITTEN: u64 = 1 << 1;
/// In memory.
pub(crate) const PAGE_IS_PRESENT: u64 = 1 << 3;
/// Swapped out, or marked although nothing is there.
pub(crate) const PAGE_IS_SWAPPED: u64 = 1 << 4;
/// The shared page of zeros.
pub(crate) const PAGE_IS_PFNZERO: u64 = 1 << 5;
/// Mapped by a huge page table entry.
pub(crate) const PAGE_IS_HUGE: u64 = 1 << 6;

const PM_SCAN_WP_MATCHING: u64 = 1;
const PM_SCAN_CHECK_WPASYNC: u64 = 1 << 1;

/// `struct page_region`: addresses with the same answer.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) categories: u64,
}

/// `struct pm_scan_arg`
#[repr(C)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: *mut Region,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// Which pages are asked for, and what is done to them.
#[derive(Clone, Copy)]
pub(crate) enum Query {
    /// Pages written since they were protected, and all of which no page table entry tells. Memory
    /// that is not registered is an error.
    Written,
    /// The same, and each of them is protected in the same instant.
    WrittenProtect,
    /// Pages in memory or swapped out that were written since they were protected. Memory that is
    /// not registered is an error.
    WrittenContent,
    /// The same, and each of them is protected in the same instant.
    WrittenContentProtect,
    /// Pages with content of their own: in memory or swapped out, but not the page of zeros.
    Populated,
    /// Pages in memory under huge page table entries.
    Huge,
}

impl Query {
    fn fill(self, argument: &mut ScanArgument) {
        match self {
            // These masks and no others: the kernel has a path of its own for them, on which an
            // empty page table entry counts as written. That errs on the right side.
            Self::Written | Self::WrittenProtect => {
                argument.category_mask = PAGE_IS_WRITTEN;
                argument.return_mask = PAGE_IS_WRITTEN;
                argument.flags = PM_SCAN_CHECK_WPASYNC;
                if matches!(self, Self::WrittenProtect) {
                    argument.flags |= PM_SCAN_WP_MATCHING;
                }
            }
            Self::WrittenContent | Self::WrittenContentProtect => {
                // The page of zeros too: the kernel may have put it in the place of a page that was
                // written with zeros.
                argument.category_mask = PAGE_IS_WRITTEN;
                argument.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
                argument.flags = PM_SCAN_CHECK_WPASYNC;
                if matches!(self, Self::WrittenContentProtect) {
                    argument.flags |= PM_SCAN_WP_MATCHING;
                }
            }
            Self::Populated => {
                argument.category_inverted = PAGE_IS_PFNZERO;
                argument.category_mask = PAGE_IS_PFNZERO;
                argument.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
            }
            Self::Huge => argument.category_mask = PAGE_IS_PRESENT | PAGE_IS_HUGE,
        }
    }
}

/// The page table of this process.
pub(crate) struct Pagemap(File);

impl Pagemap {
    pub(crate) fn open() -> io::Result<Self> {
        File::open(PATH).map(Self)
    }

    /// The same, where it can be scanned.
    pub(crate) fn open_scanning() -> Result<Self, Unavailable> {
        let remedy = "mount /proc";
        let pagemap = Self::open().map_err(|error| Unavailable::NoFile {
            path: PATH,
            error,
            remedy,
        })?;
        match pagemap.can_scan() {
            Ok(()) => Ok(pagemap),
            Err(_) => Err(Unavailable::NoFeature {
                feature: "PAGEMAP_SCAN",
                since: "6.7",
            }),
        }
    }

    /// Whether the kernel has `PAGEMAP_SCAN`, found out on a page that lies in this process.
    pub(crate) fn can_scan(&self) -> io::Result<()> {
        let probed = 0_u8;
        let start =
            std::ptr::from_ref(&probed).addr() as u64 / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        let end = start + PAGE_BYTES as u64;
        let mut buffer = [Region::default()];
        self.scan(Query::Populated, start, end, &mut buffer, &mut |_| ())
            .map(drop)
    }

    /// Asks about the addresses `start..end`, and hands each region of the answer to `each`;
    /// `buffer` holds the regions of one call. Returns where the kernel got no further, which is
    /// `end` unless it would have to protect a part of a huge page.
    pub(crate) fn scan(
        &self,
        query: Query,
        start: u64,
        end: u64,
        buffer: &mut [Region],
        each: &mut dyn FnMut(Region),
    ) -> io::Result<u64> {
        let mut cursor = start;
        while cursor < end {
            let mut argument = ScanArgument {
                size: size_of::<ScanArgument>() as u64,
                flags: 0,
                start: cursor,
                end,
                walk_end: 0,
                vec: buffer.as_mut_ptr(),
                vec_len: buffer.len() as u64,
                max_pages: 0,
                category_inverted: 0,
                category_mask: 0,
                category_anyof_mask: 0,
                return_mask: 0,
            };
            query.fill(&mut argument);
            const PAGEMAP_SCAN: u64 = request::<ScanArgument>(Direction::Both, b'f', 16);
            // SAFETY: the argument is of the request's type, and the kernel writes at most
            // `vec_len` regions to `vec`, which is what `buffer` holds.
            let count = unsafe { ioctl(self.0.as_fd(), PAGEMAP_SCAN, &mut argument) }?;
            buffer.iter().take(count).copied().for_each(&mut *each);
            if argument.walk_end <= cursor {
                break;
            }
            cursor = argument.walk_end;
        }
        Ok(cursor.min(end))
    }

    /// Whether the pages from the one at `start` on are populated; the entries of the old kind know
    /// no page of zeros, so it counts as populated.
    pub(crate) fn read_entries(&self, start: u64, populated: &mut [bool]) -> io::Result<()> {
        const ENTRY_BYTES: usize = 8;
        const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
        let mut entries = vec![0; populated.len() * ENTRY_BYTES];
        let offset = start / PAGE_BYTES as u64 * ENTRY_BYTES as u64;
        self.0.read_exact_at(&mut entries, offset)?;
        for (populated, entry) in populated
            .iter_mut()
            .zip(entries.as_chunks::<ENTRY_BYTES>().0)
        {
            *populated = u64::from_ne_bytes(*entry) & PRESENT_OR_SWAPPED != 0;
        }
        Ok(())
    }
}
