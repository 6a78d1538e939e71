//! From a set of pages to the work of each stream, over all logical processors. It touches bits, no
//! pages.

use limosa_pages::{
    CHUNK_PAGES, ChunkIndex, ChunkPages, MemoryMap, PageCount, PageIndex, PageRange, PageSet,
};
use limosa_wire::{STREAMS_MAX, StreamIndex};
use rayon::prelude::*;

use crate::memory::regions_of;

/// Some pages of one chunk, to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkWork {
    /// The chunk.
    pub chunk: ChunkIndex,
    /// Its pages; never none.
    pub pages: ChunkPages,
}

/// Divides `pages` into one work list per stream, each in the order of memory.
///
/// A chunk goes to the stream that [owns](limosa_wire::StreamIndex::of_chunk) it, in every round.
/// Chunks without pages are left out, and so are pages that `map` does not have. `stream_count` is
/// brought into 1 to [`STREAMS_MAX`]; there are as many lists.
///
/// The lists take more memory than `pages`; [`chunks_by_stream`] has the same in an eighth of it.
pub fn scan(pages: &PageSet, map: &MemoryMap, stream_count: u16) -> Vec<Vec<ChunkWork>> {
    let lists = chunks_by_stream(pages, map, stream_count);
    let work = |chunk: &ChunkIndex| work_of(*chunk, pages, map);
    lists
        .iter()
        .map(|list| list.iter().filter_map(work).collect())
        .collect()
}

/// The chunks of [`scan`]'s lists; [`work_of`] has the pages.
pub fn chunks_by_stream(
    pages: &PageSet,
    map: &MemoryMap,
    stream_count: u16,
) -> Vec<Vec<ChunkIndex>> {
    let stream_count = stream_count.clamp(1, STREAMS_MAX);
    let end = pages.bound().min(map.end()).get();
    let tasks = (0..end.div_ceil(TASK_PAGES)).into_par_iter();
    let found: Vec<Vec<ChunkIndex>> = tasks
        .map(|task| {
            let start = PageIndex::new(task * TASK_PAGES);
            let part = PageRange::from_start_count(start, PageCount::new(TASK_PAGES));
            let chunks = pages.chunks_within(part.unwrap_or(PageRange::empty()));
            let chunks = chunks.map(|(chunk, _)| chunk);
            let owned = chunks.filter(|chunk| work_of(*chunk, pages, map).is_some());
            owned.collect()
        })
        .collect();
    let total: usize = found.iter().map(Vec::len).sum();
    let each = total.div_ceil(usize::from(stream_count));
    let mut lists: Vec<_> = (0..stream_count)
        .map(|_| Vec::with_capacity(each))
        .collect();
    for chunk in found.into_iter().flatten() {
        let stream = StreamIndex::of_chunk(chunk, stream_count);
        if let Some(list) = lists.get_mut(usize::from(stream.get())) {
            list.push(chunk);
        }
    }
    lists
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
