//! From a bitmap to work lists: the scan of a large guest's dirty pages.

use core::hint::black_box;

use limosa_pages::{CHUNK_PAGES, MemoryMap, PageCount, PageIndex, PageRange, PageSet};
use limosa_pipeline::scan;

use crate::kernel::{KernelError, Pass};

/// Bits are so much cheaper than pages that a pass takes as many chunks more.
pub(crate) const CHUNKS_FOR_ONE: u64 = 2048;

/// Streams of the scan.
const STREAM_COUNT: u16 = 4;

/// How many pages are in the set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Density {
    /// All of them.
    Full,
    /// Two pages of each 64th chunk.
    Sparse,
}

/// A set of so many chunks' pages.
pub(crate) fn set_of(chunk_count: u64, density: Density) -> PageSet {
    let page_count = chunk_count * CHUNK_PAGES;
    let mut pages = PageSet::new(PageIndex::new(page_count));
    match density {
        Density::Full => pages.insert_range(first_pages(page_count)),
        Density::Sparse => {
            for chunk in (0..chunk_count).step_by(64) {
                pages.insert(PageIndex::new(chunk * CHUNK_PAGES + 7));
                pages.insert(PageIndex::new(chunk * CHUNK_PAGES + 300));
            }
        }
    }
    pages
}

fn first_pages(count: u64) -> PageRange {
    PageRange::from_start_count(PageIndex::ZERO, PageCount::new(count))
        .unwrap_or(PageRange::empty())
}

/// Makes work lists of a set in each pass, on one thread: what a machine's other processors do
/// beside it is not what is counted.
pub(crate) fn scanned(chunk_count: u64, density: Density) -> Result<(Pass, u64), KernelError> {
    let chunk_count = chunk_count * CHUNKS_FOR_ONE;
    let pages = set_of(chunk_count, density);
    let map = MemoryMap::new(vec![first_pages(chunk_count * CHUNK_PAGES)]).map_err(|error| {
        KernelError::NoMemory {
            chunk_count,
            why: error.to_string(),
        }
    })?;
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .map_err(|error| KernelError::Threads(error.to_string()))?;
    let pass = move || {
        black_box(threads.install(|| scan(black_box(&pages), &map, STREAM_COUNT)));
        Ok(())
    };
    Ok((Box::new(pass), chunk_count))
}
