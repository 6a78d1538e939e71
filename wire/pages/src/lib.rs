//! What a page is: indices, ranges, sets of pages and the memory map. It knows no bytes of a page,
//! no kernel and no wire.
//!
//! A *page* is [`PAGE_BYTES`] bytes of guest physical memory, named by its [`PageIndex`]. A *chunk*
//! is [`CHUNK_PAGES`] pages, aligned: the unit in which work is handed out, and the size of a huge
//! page. Every set of pages in Limosa (written, present, arrived) is a [`PageSet`], and a part of
//! one that concerns a single chunk is a [`ChunkPages`]. Which pages a guest has at all is said
//! once, by its [`MemoryMap`].
//!
//! Pages are never counted in bytes: a number of pages is a [`PageCount`], and only
//! [`PageCount::bytes`] turns it into bytes.
//!
//! ```
//! use limosa_pages::{ChunkIndex, MemoryMap, PageIndex, PageRange, PageSet};
//!
//! let low = PageRange::new(PageIndex::new(0), PageIndex::new(0x400)).unwrap();
//! let high = PageRange::new(PageIndex::new(0x1000), PageIndex::new(0x1100)).unwrap();
//! let map = MemoryMap::new(vec![low, high])?;
//! assert_eq!(map.page_count().bytes(), 5 << 20);
//!
//! let mut written = PageSet::new(map.end());
//! written.insert_range(PageRange::new(PageIndex::new(0x1fe), PageIndex::new(0x203)).unwrap());
//! let shares: Vec<_> = written.chunks().map(|(chunk, pages)| (chunk, pages.count())).collect();
//! assert_eq!(shares, [(ChunkIndex::new(0), 2), (ChunkIndex::new(1), 3)]);
//! # Ok::<(), limosa_pages::MapError>(())
//! ```
//!
//! # What this crate relies on
//!
//! A host has 64-bit addresses, and base pages of 4 KiB. The first is checked when this crate is
//! compiled; the second is a fact of every x86-64 host.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bits;
mod chunk;
mod index;
mod map;
mod part;
mod range;
mod set;

pub use chunk::{CHUNK_BYTES, CHUNK_PAGES, CHUNK_WORDS, ChunkIndex, ChunkPages};
pub use index::{GuestAddress, PAGE_BYTES, PageCount, PageIndex};
pub use map::{HOLE_SLACK_PAGES, MapError, MemoryMap, PAGE_END_MAX, REGIONS_MAX};
pub use part::SetPart;
pub use range::PageRange;
pub use set::PageSet;

const _: () = assert!(
    usize::BITS == 64,
    "Limosa addresses guest memory with 64-bit numbers"
);
