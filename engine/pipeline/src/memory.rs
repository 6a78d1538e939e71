//! What the pipeline asks of a guest's memory. Mapping, backing and protecting it are the
//! embedder's.

use limosa_pages::{ChunkIndex, ChunkPages, MemoryMap, PageCount, PageRange};
use vm_memory::VolatileSlice;

/// The memory of one guest, on either host.
///
/// On the source it is read while the guest writes it. On the target it must read as zero wherever
/// nothing was placed yet, and nobody else touches it until the guest resumes.
pub trait GuestMemory: Send + Sync {
    /// Which pages the guest has. Always the same answer.
    fn map(&self) -> &MemoryMap;

    /// The bytes of `pages`, which lie inside one region of the map.
    ///
    /// The slice is as long as the pages, and should begin at a host page: the fast loops need it.
    ///
    /// # Errors
    /// [`MemoryError::OutsideMap`] where the pages are not inside one region.
    fn slice(&self, pages: PageRange) -> Result<VolatileSlice<'_>, MemoryError>;

    /// Which pages of `chunk` may hold something. Every other page of it reads as zero, and did so
    /// at some moment after the call began.
    ///
    /// An implementation that cannot tell answers [`ChunkPages::FULL`].
    ///
    /// # Errors
    /// [`MemoryError::Host`] where the kernel does not say.
    fn present(&self, chunk: ChunkIndex) -> Result<ChunkPages, MemoryError>;

    /// Hands those of `pages`, which lie inside one region, to `each` that may hold something, in
    /// runs and in order; as [`present`](Self::present), but for much memory at once.
    ///
    /// An implementation that can tell without looking at every chunk should: much of a guest's
    /// memory may never have been touched.
    ///
    /// # Errors
    /// [`MemoryError::Host`] where the kernel does not say.
    fn each_present(
        &self,
        pages: PageRange,
        each: &mut dyn FnMut(PageRange),
    ) -> Result<(), MemoryError> {
        for (chunk, part) in pages.chunks() {
            let mut present = ChunkPages::of_range(chunk, part);
            present.intersect(&self.present(chunk)?);
            for (first, count) in present.runs() {
                each(run_of(chunk, first, count));
            }
        }
        Ok(())
    }

    /// Makes the pages of `chunk` ready to be written without a fault each, in huge pages where the
    /// host has them. What they hold stays.
    ///
    /// # Errors
    /// [`MemoryError::Host`] where the host has no memory for them.
    fn populate(&self, chunk: ChunkIndex) -> Result<(), MemoryError>;
}

/// What went wrong with the guest's memory on this host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// Pages were asked for that are not inside one region of the map.
    #[error(
        "pages {} to {} are not inside one region of the memory map",
        pages.start(),
        pages.end()
    )]
    OutsideMap {
        /// The pages.
        pages: PageRange,
    },
    /// The memory handed out is not as long as its pages.
    #[error("{found} bytes of memory stand for {pages} pages")]
    WrongLength {
        /// How many pages were asked for.
        pages: u64,
        /// How many bytes came.
        found: usize,
    },
    /// The host's kernel refused.
    #[error("the host could not {what} chunk {chunk}")]
    Host {
        /// What was asked of it, such as "populate".
        what: &'static str,
        /// The chunk in question.
        chunk: ChunkIndex,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// The bytes of `pages`, known to be as long as they.
pub(crate) fn checked_slice(
    memory: &dyn GuestMemory,
    pages: PageRange,
) -> Result<VolatileSlice<'_>, MemoryError> {
    let slice = memory.slice(pages)?;
    if slice.len() as u64 == pages.count().bytes() {
        return Ok(slice);
    }
    Err(MemoryError::WrongLength {
        pages: pages.count().get(),
        found: slice.len(),
    })
}

/// The `count` pages of `chunk` from `first` on.
pub(crate) fn run_of(chunk: ChunkIndex, first: u16, count: u16) -> PageRange {
    PageRange::from_start_count(chunk.page(first), PageCount::new(count.into()))
        .unwrap_or(PageRange::empty())
}

/// The parts of `chunk` that the guest has, each inside one region.
pub(crate) fn regions_of(map: &MemoryMap, chunk: ChunkIndex) -> impl Iterator<Item = PageRange> {
    let pages = chunk.pages();
    let regions = map.regions();
    let first = regions.partition_point(|region| region.end() <= pages.start());
    regions
        .iter()
        .skip(first)
        .map(move |region| region.intersect(pages))
        .take_while(|part| !part.is_empty())
}
