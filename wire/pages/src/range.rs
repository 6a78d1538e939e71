//! Runs of consecutive pages, half-open, and their split into chunks. A range does not know whether
//! the guest has its pages: that is the memory map's.

use core::fmt;

use crate::chunk::ChunkIndex;
use crate::index::{PageCount, PageIndex};

/// The pages from `start` up to, not including, `end`. `start` is never behind `end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageRange {
    start: PageIndex,
    end: PageIndex,
}

impl PageRange {
    /// The pages `start..end`, or `None` where `end` lies before `start`.
    pub const fn new(start: PageIndex, end: PageIndex) -> Option<Self> {
        if start.get() <= end.get() {
            Some(Self { start, end })
        } else {
            None
        }
    }

    /// A range without a page.
    pub const fn empty() -> Self {
        Self {
            start: PageIndex::ZERO,
            end: PageIndex::ZERO,
        }
    }

    /// The `count` pages from `start` on, or `None` where the end has no number.
    pub const fn from_start_count(start: PageIndex, count: PageCount) -> Option<Self> {
        match start.checked_add(count) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// The range between two pages of which the first is known not to be behind the second.
    pub(crate) const fn ordered(start: PageIndex, end: PageIndex) -> Self {
        debug_assert!(start.get() <= end.get());
        Self { start, end }
    }

    /// The first page.
    pub const fn start(self) -> PageIndex {
        self.start
    }

    /// The page after the last.
    pub const fn end(self) -> PageIndex {
        self.end
    }

    /// How many pages there are.
    pub const fn count(self) -> PageCount {
        PageCount::new(self.end.get() - self.start.get())
    }

    /// Whether there is no page.
    pub const fn is_empty(self) -> bool {
        self.start.get() == self.end.get()
    }

    /// Whether `page` is one of these.
    pub const fn contains(self, page: PageIndex) -> bool {
        self.start.get() <= page.get() && page.get() < self.end.get()
    }

    /// Whether every page of `other` is one of these. True of an `other` without pages.
    pub const fn contains_range(self, other: Self) -> bool {
        other.is_empty()
            || (self.start.get() <= other.start.get() && other.end.get() <= self.end.get())
    }

    /// The pages that both ranges have; [`PageRange::empty`] where there are none.
    pub fn intersect(self, other: Self) -> Self {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        if start < end {
            Self { start, end }
        } else {
            Self::empty()
        }
    }

    /// The chunks that hold a page of this range, each with the part of the range inside it; in
    /// order, no part empty. Pages behind the last chunk are left out.
    pub fn chunks(self) -> impl Iterator<Item = (ChunkIndex, Self)> + Clone {
        let first = self.start.chunk().get();
        let end = match self.end.get().checked_sub(1) {
            Some(last) if !self.is_empty() => PageIndex::new(last).chunk().get() + 1,
            _ => first,
        };
        let parts = (first..end).map(move |number| {
            let chunk = ChunkIndex::new(number);
            (chunk, self.intersect(chunk.pages()))
        });
        parts.filter(|(_, part)| !part.is_empty())
    }

    /// The pages, in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = PageIndex> + Clone {
        (self.start.get()..self.end.get()).map(PageIndex::new)
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}
