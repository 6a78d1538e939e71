//! From a set of pages to the work of each stream, over all logical processors. It touches bits, no
//! pages.

use std::sync::atomic::{AtomicUsize, Ordering};

use limosa_pages::{
    CHUNK_PAGES, ChunkIndex, ChunkPages, MemoryMap, PageCount, PageIndex, PageRange, PageSet,
};
use limosa_wire::STREAMS_MAX;
use rayon::prelude::*;

use crate::memory::regions_of;
use crate::owners::ChunkOwners;

/// Some pages of one chunk, to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkWork {
    /// The chunk.
    pub chunk: ChunkIndex,
    /// Its pages; never none.
    pub pages: ChunkPages,
}

/// The chunks of a round, as [`share_out`] divides them; [`work_of`] has their pages.
#[derive(Debug, Default)]
pub struct Shares {
    /// The chunks of each stream, in the order of memory.
    pub owned: Vec<Vec<ChunkIndex>>,
    /// Those that no stream has ever sent.
    pub free: FreeChunks,
}

/// Chunks that go to whichever stream asks first, in the order of memory.
#[derive(Debug, Default)]
pub struct FreeChunks {
    chunks: Vec<ChunkIndex>,
    /// How many were taken, or more.
    taken_count: AtomicUsize,
}

impl FreeChunks {
    /// The next of them, for the stream that asks; `None` once all are taken.
    pub fn take(&self) -> Option<ChunkIndex> {
        let nth = self.taken_count.fetch_add(1, Ordering::Relaxed);
        self.chunks.get(nth).copied()
    }

    /// All of them, whether taken or not.
    pub fn all(&self) -> &[ChunkIndex] {
        &self.chunks
    }
}

/// Divides `pages` among the streams by who owns their chunks.
///
/// Chunks without pages are left out, and so are pages that `map` does not have.
pub fn share_out(pages: &PageSet, map: &MemoryMap, owners: &ChunkOwners) -> Shares {
    let chunks = chunks_of(pages, map);
    let mut owned = vec![Vec::new(); owners.stream_count().into()];
    let mut free = Vec::new();
    for chunk in chunks.into_iter().flatten() {
        let owner = owners.of(chunk).map(|stream| usize::from(stream.get()));
        owner
            .and_then(|owner| owned.get_mut(owner))
            .unwrap_or(&mut free)
            .push(chunk);
    }
    let free = FreeChunks {
        chunks: free,
        taken_count: AtomicUsize::new(0),
    };
    Shares { owned, free }
}

/// Divides `pages` into one work list per stream, each in the order of memory, and each chunk in
/// turn: the same in each round, for whoever has no use for [`share_out`].
///
/// Chunks without pages are left out, and so are pages that `map` does not have. `stream_count` is
/// brought into 1 to [`STREAMS_MAX`]; there are as many lists.
///
/// The lists take eight times the memory of [`Shares`].
pub fn scan(pages: &PageSet, map: &MemoryMap, stream_count: u16) -> Vec<Vec<ChunkWork>> {
    let stream_count = stream_count.clamp(1, STREAMS_MAX);
    let mut lists = vec![Vec::new(); stream_count.into()];
    for chunk in chunks_of(pages, map).into_iter().flatten() {
        let stream = chunk.get() % u64::from(stream_count);
        if let Some(list) = lists.get_mut(stream as usize) {
            list.extend(work_of(chunk, pages, map));
        }
    }
    lists
}

/// The chunks that have pages in `pages` and in `map`, task by task.
fn chunks_of(pages: &PageSet, map: &MemoryMap) -> Vec<Vec<ChunkIndex>> {
    let end = pages.bound().min(map.end()).get();
    let tasks = (0..end.div_ceil(TASK_PAGES)).into_par_iter();
    tasks
        .map(|task| {
            let start = PageIndex::new(task * TASK_PAGES);
            let part = PageRange::from_start_count(start, PageCount::new(TASK_PAGES));
            let chunks = pages.chunks_within(part.unwrap_or(PageRange::empty()));
            let chunks = chunks.map(|(chunk, _)| chunk);
            let owned = chunks.filter(|chunk| work_of(*chunk, pages, map).is_some());
            owned.collect()
        })
        .collect()
}

/// Pages that are worth a task of their own: 64 KiB of bits, 2 GiB of the guest's memory.
const TASK_PAGES: u64 = 1024 * CHUNK_PAGES;

/// The pages of `chunk` that are in `pages` and that the guest has; `None` where there are none.
pub fn work_of(chunk: ChunkIndex, pages: &PageSet, map: &MemoryMap) -> Option<ChunkWork> {
    let mut pages = pages.chunk(chunk);
    if pages.is_empty() {
        return None;
    }
    pages.intersect(&pages_of(map, chunk));
    (!pages.is_empty()).then_some(ChunkWork { chunk, pages })
}

/// The pages of `chunk` that the guest has.
fn pages_of(map: &MemoryMap, chunk: ChunkIndex) -> ChunkPages {
    let mut all = ChunkPages::EMPTY;
    for part in regions_of(map, chunk) {
        all.union_with(&ChunkPages::of_range(chunk, part));
    }
    all
}
