//! From a set of pages to the work of each stream, over all logical processors. It touches bits, no
//! pages.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use limosa_pages::{ChunkIndex, ChunkPages, MemoryMap, PageRange, PageSet, SetPart};
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
    /// In the order of memory; as they were found, for in the first round this is every chunk of
    /// the guest, of which a copy would be too much.
    parts: Vec<Vec<ChunkIndex>>,
    /// For each part how many chunks there are up to its end.
    ends: Vec<usize>,
    /// How many were taken, or more.
    taken_count: AtomicUsize,
}

impl FreeChunks {
    fn new(mut parts: Vec<Vec<ChunkIndex>>) -> Self {
        parts.retain(|part| !part.is_empty());
        let ends = parts.iter().scan(0, |end, part| {
            *end += part.len();
            Some(*end)
        });
        Self {
            ends: ends.collect(),
            parts,
            taken_count: AtomicUsize::new(0),
        }
    }

    /// The next of them, for the stream that asks; `None` once all are taken.
    pub fn take(&self) -> Option<ChunkIndex> {
        let nth = self.taken_count.fetch_add(1, Ordering::Relaxed);
        (nth < self.count()).then(|| *self.nth(nth))
    }

    /// All of them, whether taken or not.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &ChunkIndex> {
        (0..self.count()).map(|nth| self.nth(nth))
    }

    fn count(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// `nth` is below the count.
    fn nth(&self, nth: usize) -> &ChunkIndex {
        let part = self.ends.partition_point(|end| *end <= nth);
        let start = part.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.parts[part][nth - start]
    }
}

/// Divides `pages` among the streams by who owns their chunks.
///
/// Chunks without pages are left out, and so are pages that `map` does not have. Costs the chunks
/// that have pages: of those that lie within a region not even the bits are read.
pub fn share_out(pages: &PageSet, map: &MemoryMap, owners: &ChunkOwners) -> Shares {
    let stream_count = usize::from(owners.stream_count());
    let mut lists = divide(pages, map, stream_count + 1, |chunk, fit| {
        let is_work = fit == Fit::Inside || work_of(chunk, pages, map).is_some();
        let owner = owners.of(chunk).map(|stream| usize::from(stream.get()));
        is_work.then_some((owner.unwrap_or(stream_count), chunk))
    });
    let free = FreeChunks::new(lists.pop().unwrap_or_default());
    let owned = joined(lists);
    Shares { owned, free }
}

/// Divides `pages` into one work list per stream, each in the order of memory, and each chunk in
/// turn: the same in each round, for whoever has no use for [`share_out`].
///
/// Chunks without pages are left out, and so are pages that `map` does not have. `stream_count` is
/// brought into 1 to [`STREAMS_MAX`]; there are as many lists.
///
/// The lists take eighteen times the memory of [`Shares`].
pub fn scan(pages: &PageSet, map: &MemoryMap, stream_count: u16) -> Vec<Vec<ChunkWork>> {
    let stream_count = stream_count.clamp(1, STREAMS_MAX);
    let lists = divide(pages, map, stream_count.into(), |chunk, fit| {
        let work = match fit {
            Fit::Inside => ChunkWork {
                chunk,
                pages: pages.chunk(chunk),
            },
            Fit::AtAnEdge => work_of(chunk, pages, map)?,
        };
        let stream = chunk.get() % u64::from(stream_count);
        Some((stream as usize, work))
    });
    joined(lists)
}

/// Takes every page out of `pages`, on all logical processors; costs what is in it.
pub fn clear_set(pages: &mut PageSet) {
    match pages.part_ranges().len() {
        0 | 1 => pages.clear(),
        _ => {
            let mut parts: Vec<SetPart<'_>> = pages.parts_mut().collect();
            parts.par_iter_mut().for_each(SetPart::clear);
        }
    }
}

/// How a chunk lies in a guest's memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// One region has the whole of it.
    Inside,
    /// The guest may not have all of its pages, or none.
    AtAnEdge,
}

/// Up to so many pages a set is walked by the calling thread alone. A chunk takes some 20 ns, and
/// to wake a thread 50 µs and more.
const SHORT_PAGES: u64 = 4096;

/// Makes `list_count` lists of the chunks with a page in `pages`, each in the order of memory, by
/// what `place` says: in which list a chunk is, and as what. Those of the last list and beyond are
/// in the last. A list comes in the parts in which it was found.
fn divide<T: Copy + Send + Sync>(
    pages: &PageSet,
    map: &MemoryMap,
    list_count: usize,
    place: impl Fn(ChunkIndex, Fit) -> Option<(usize, T)> + Sync,
) -> Vec<Vec<Vec<T>>> {
    let lists_of = |part: PageRange| {
        let mut lists: Vec<Vec<T>> = (0..list_count).map(|_| Vec::new()).collect();
        let mut inside = 0..0;
        for chunk in pages.chunk_indices_within(part) {
            if !inside.contains(&chunk.get()) {
                inside = whole_chunks_from(chunk, map);
            }
            let fit = if inside.is_empty() {
                Fit::AtAnEdge
            } else {
                Fit::Inside
            };
            if let Some((list, item)) = place(chunk, fit) {
                lists[list.min(list_count - 1)].push(item);
            }
        }
        lists
    };
    let parts: Vec<PageRange> = pages.part_ranges().collect();
    let found: Vec<Vec<Vec<T>>> = match parts[..] {
        [] => Vec::new(),
        // No other thread is needed.
        [only] => vec![lists_of(only)],
        // In a pause the list is short, and waking threads takes longer than walking it.
        _ if pages.count().get() <= SHORT_PAGES => parts.into_iter().map(lists_of).collect(),
        _ => parts.into_par_iter().map(lists_of).collect(),
    };
    let mut lists: Vec<Vec<Vec<T>>> = (0..list_count).map(|_| Vec::new()).collect();
    for found in found {
        for (list, part) in lists.iter_mut().zip(found) {
            list.push(part);
        }
    }
    lists
}

/// Each list in one piece. A list's parts are freed once it is, so that all of them together take
/// little memory besides.
fn joined<T: Copy + Send + Sync>(lists: Vec<Vec<Vec<T>>>) -> Vec<Vec<T>> {
    let join = |mut parts: Vec<Vec<T>>| match parts.len() {
        0 | 1 => parts.pop().unwrap_or_default(),
        _ => parts.concat(),
    };
    if lists.iter().all(|parts| parts.len() <= 1) {
        return lists.into_iter().map(join).collect();
    }
    lists.into_par_iter().map(join).collect()
}

/// The chunks from `chunk` on that the region of its first page has as a whole; none where it does
/// not have this one.
fn whole_chunks_from(chunk: ChunkIndex, map: &MemoryMap) -> Range<u64> {
    let region = map.region_of(chunk.pages().start());
    let region = region.and_then(|region| map.regions().get(region));
    let beyond = region.map_or(0, |region| region.end().chunk().get());
    chunk.get()..beyond
}

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
