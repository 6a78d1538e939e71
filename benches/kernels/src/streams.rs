//! The streams of one guest: how many, and which chunks are whose.

use limosa_wire::{STREAMS_MAX, StreamIndex};

/// How many streams there are: 1 to [`STREAMS_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StreamCount(u16);

impl StreamCount {
    pub(crate) fn new(count: u16) -> Self {
        Self(count.clamp(1, STREAMS_MAX))
    }

    pub(crate) fn get(self) -> u16 {
        self.0
    }

    /// Each of them.
    pub(crate) fn indices(self) -> impl Iterator<Item = StreamIndex> {
        (0..self.0).map(StreamIndex::new)
    }

    /// Size of a guest in which each stream owns so many chunks.
    pub(crate) fn chunks_of_all(self, chunk_count: u64) -> u64 {
        chunk_count.saturating_mul(self.0.into())
    }
}
