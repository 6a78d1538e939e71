//! The numbers that name and count pages, and the conversions between them that lose no bits. What
//! lies between two indices is `range.rs`.

use core::fmt;
use core::iter::Sum;
use core::ops::{Add, AddAssign};

use crate::chunk::{CHUNK_PAGES, ChunkIndex};

/// Size of a page, in bytes: the base page of x86-64, and the grain of every dirty log.
pub const PAGE_BYTES: usize = 4096;

const PAGE_SHIFT: u32 = PAGE_BYTES.trailing_zeros();

/// A byte address in the guest's physical memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GuestAddress(u64);

impl GuestAddress {
    /// The address `address`, in bytes.
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The address in bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for GuestAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// The number of a page of the guest: its guest physical address divided by [`PAGE_BYTES`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageIndex(u64);

impl PageIndex {
    /// The first page.
    pub const ZERO: Self = Self(0);

    /// The page numbered `index`.
    pub const fn new(index: u64) -> Self {
        Self(index)
    }

    /// The page that holds `address`.
    pub const fn from_address(address: GuestAddress) -> Self {
        Self(address.0 >> PAGE_SHIFT)
    }

    /// The page's number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The address of the page's first byte.
    ///
    /// An index of 2^52 or more names no page of a 64-bit address space; it gets the address of
    /// the last page. No index within a [`MemoryMap`](crate::MemoryMap) is that large.
    pub const fn address(self) -> GuestAddress {
        let last = u64::MAX >> PAGE_SHIFT;
        let index = if self.0 > last { last } else { self.0 };
        GuestAddress(index << PAGE_SHIFT)
    }

    /// The chunk that holds this page.
    pub const fn chunk(self) -> ChunkIndex {
        ChunkIndex::new(self.0 / CHUNK_PAGES)
    }

    /// Which page of its chunk this is: `0..512`.
    pub const fn offset_in_chunk(self) -> u16 {
        // The remainder is below 512.
        (self.0 % CHUNK_PAGES) as u16
    }

    /// The page `count` pages further, or `None` where no number names it.
    pub const fn checked_add(self, count: PageCount) -> Option<Self> {
        match self.0.checked_add(count.0) {
            Some(index) => Some(Self(index)),
            None => None,
        }
    }

    /// The page `count` pages further, or the last number there is.
    pub const fn saturating_add(self, count: PageCount) -> Self {
        Self(self.0.saturating_add(count.0))
    }
}

impl fmt::Display for PageIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// A number of pages. Sums stop at the largest number instead of wrapping around.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PageCount(u64);

impl PageCount {
    /// No pages.
    pub const ZERO: Self = Self(0);

    /// `count` pages.
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// How many whole pages `bytes` holds, rounded up.
    pub const fn covering_bytes(bytes: u64) -> Self {
        Self(bytes.div_ceil(PAGE_BYTES as u64))
    }

    /// The number of pages.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The size of so many pages in bytes; `u64::MAX` where it is larger than that.
    pub const fn bytes(self) -> u64 {
        self.0.saturating_mul(PAGE_BYTES as u64)
    }

    /// The sum, or the largest number.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or zero.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add for PageCount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

impl AddAssign for PageCount {
    fn add_assign(&mut self, other: Self) {
        *self = self.saturating_add(other);
    }
}

impl Sum for PageCount {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::ZERO, Self::saturating_add)
    }
}

impl fmt::Display for PageCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
