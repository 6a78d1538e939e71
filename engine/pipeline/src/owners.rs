//! Which stream a chunk belongs to, on either side. It knows no pages.

use std::sync::atomic::{AtomicU16, Ordering};

use limosa_pages::{CHUNK_PAGES, ChunkIndex, MemoryMap};
use limosa_wire::{STREAMS_MAX, StreamIndex};

/// The owner of each chunk of a guest: the stream that was the first to send it, for the whole
/// migration.
///
/// So the versions of a page arrive in order, and a stream sends as much as it is fast: where each
/// had its share from the start, all would wait for the slowest at the end of the round, with
/// processors idle.
///
/// It takes two bytes for each chunk of 2 MiB.
#[derive(Debug)]
pub struct ChunkOwners {
    stream_count: u16,
    /// For each chunk its owner's number and one, and in the lower byte the turn; or [`FREE`].
    claims: Box<[AtomicU16]>,
}

/// The claim of nobody.
const FREE: u16 = 0;

const _: () = assert!(STREAMS_MAX < 255, "a stream's number and one fit in a byte");

impl ChunkOwners {
    /// No chunk of the guest with this map has an owner. There are `stream_count` streams: brought
    /// into 1 to [`STREAMS_MAX`].
    pub fn new(map: &MemoryMap, stream_count: u16) -> Self {
        let chunk_count = map.end().get().div_ceil(CHUNK_PAGES);
        Self {
            stream_count: stream_count.clamp(1, STREAMS_MAX),
            claims: (0..chunk_count).map(|_| AtomicU16::new(FREE)).collect(),
        }
    }

    /// How many streams there are.
    pub fn stream_count(&self) -> u16 {
        self.stream_count
    }

    /// How many bytes of memory it takes.
    pub fn overhead_bytes(&self) -> usize {
        size_of_val(&*self.claims)
    }

    /// The stream that `chunk` belongs to, where there is one.
    pub fn of(&self, chunk: ChunkIndex) -> Option<StreamIndex> {
        let claim = self.claim(chunk)?.load(Ordering::Relaxed);
        let [stream, _] = claim.to_be_bytes();
        stream.checked_sub(1).map(|it| StreamIndex::new(it.into()))
    }

    /// Makes `chunk` belong to `stream` unless it is another's, and tells the turn with which it
    /// was taken: `turn` is noted beside a chunk that was free. `None` where it is another's.
    ///
    /// A chunk that the map does not have belongs to whoever asks: it has no pages.
    pub fn take(&self, chunk: ChunkIndex, stream: StreamIndex, turn: u8) -> Option<u8> {
        let Some(claim) = self.claim(chunk) else {
            return Some(turn);
        };
        let mine = u8::try_from(stream.get()).ok()?.checked_add(1)?;
        let ours = u16::from_be_bytes([mine, turn]);
        // Read first: neighbours share a cache line, which a look leaves to all of them.
        let found = match claim.load(Ordering::Relaxed) {
            FREE => claim.compare_exchange(FREE, ours, Ordering::Relaxed, Ordering::Relaxed),
            taken => Err(taken),
        };
        let [owner, turn] = found.map_or_else(u16::to_be_bytes, |_| ours.to_be_bytes());
        (owner == mine).then_some(turn)
    }

    fn claim(&self, chunk: ChunkIndex) -> Option<&AtomicU16> {
        self.claims.get(usize::try_from(chunk.get()).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use limosa_pages::{PageCount, PageIndex, PageRange};
    use rayon::prelude::*;

    use super::*;

    const CHUNKS: u64 = 10_000;

    fn owners(stream_count: u16) -> ChunkOwners {
        let pages = PageCount::new(CHUNKS * CHUNK_PAGES - 1);
        let pages = PageRange::from_start_count(PageIndex::ZERO, pages).unwrap();
        ChunkOwners::new(&MemoryMap::new(vec![pages]).unwrap(), stream_count)
    }

    #[test]
    fn a_chunk_stays_with_the_first_that_took_it() {
        let owners = owners(64);
        let chunk = ChunkIndex::new(CHUNKS - 1);
        let [first, last] = [0, 63].map(StreamIndex::new);
        assert_eq!(owners.of(chunk), None);
        assert_eq!(owners.take(chunk, last, 255), Some(255));
        assert_eq!(owners.take(chunk, last, 7), Some(255));
        assert_eq!(owners.take(chunk, first, 7), None);
        assert_eq!(owners.of(chunk), Some(last));
        assert_eq!(owners.of(ChunkIndex::new(0)), None);
        assert_eq!(owners.overhead_bytes(), 2 * CHUNKS as usize);
    }

    #[test]
    fn a_chunk_beyond_the_map_belongs_to_whoever_asks() {
        let owners = owners(2);
        for chunk in [CHUNKS, u64::MAX].map(ChunkIndex::new) {
            for stream in [0, 1].map(StreamIndex::new) {
                assert_eq!(owners.take(chunk, stream, 3), Some(3));
            }
            assert_eq!(owners.of(chunk), None);
        }
        assert_eq!(
            owners.take(ChunkIndex::new(0), StreamIndex::new(u16::MAX - 1), 0),
            None
        );
    }

    #[test]
    fn each_chunk_has_one_owner_whoever_asks_at_once() {
        let owners = owners(8);
        let taken: Vec<u64> = (0..8_u16)
            .into_par_iter()
            .map(|stream| {
                let take = |chunk| owners.take(ChunkIndex::new(chunk), StreamIndex::new(stream), 0);
                (0..CHUNKS).filter(|chunk| take(*chunk).is_some()).count() as u64
            })
            .collect();
        assert_eq!(taken.iter().sum::<u64>(), CHUNKS);
        assert!((0..CHUNKS).all(|chunk| owners.of(ChunkIndex::new(chunk)).is_some()));
    }
}
