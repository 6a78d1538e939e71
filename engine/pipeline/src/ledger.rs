//! What has arrived at the target. It answers whether the guest may resume; it touches no memory.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use limosa_pages::{
    CHUNK_PAGES, ChunkIndex, ChunkPages, MemoryMap, PageCount, PageIndex, PageRange,
};
use limosa_wire::{EncodingCounts, Round, StreamIndex};

use crate::chunk_bits::ChunkBits;
use crate::owners::ChunkOwners;

const WORD_BITS: u64 = u64::BITS as u64;

/// What the target counted of a round, once every stream passed its barrier.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RoundTotals {
    /// Frames of each stream, without barriers.
    pub frame_counts: Vec<u64>,
    /// Pages of all streams, by encoding.
    pub pages: EncodingCounts,
}

/// Why the guest must not resume here yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Gap {
    /// Some pages of the guest never arrived, in any encoding.
    #[error("{count} pages never arrived, the first of them page {first}")]
    PagesMissing {
        /// The first of them.
        first: PageIndex,
        /// How many there are.
        count: PageCount,
    },
    /// A stream ended, or was given up, for an error.
    #[error("stream {stream} broke in round {round}")]
    StreamBroken {
        /// The stream.
        stream: StreamIndex,
        /// The round it was in.
        round: Round,
    },
    /// A stream has not passed the barrier of a round.
    #[error("stream {stream} has not passed the barrier of round {round}")]
    BarrierMissing {
        /// The first such stream.
        stream: StreamIndex,
        /// The round.
        round: Round,
    },
    /// The source never said what its last round had.
    #[error("the source's totals of round {round} are missing")]
    TotalsMissing {
        /// The round.
        round: Round,
    },
    /// The source speaks of another number of streams.
    #[error("the source counted {claimed} streams, there are {expected}")]
    StreamsDiffer {
        /// How many there are.
        expected: usize,
        /// How many the source speaks of.
        claimed: usize,
    },
    /// A stream brought another number of frames than the source sent.
    #[error("stream {stream} brought {counted} frames in round {round}, {claimed} were sent")]
    FramesDiffer {
        /// The stream.
        stream: StreamIndex,
        /// The round.
        round: Round,
        /// How many came.
        counted: u64,
        /// How many the source sent.
        claimed: u64,
    },
    /// A round brought another number of pages than the source sent.
    #[error("{counted} pages came in round {round}, {claimed} were sent")]
    PagesDiffer {
        /// The round.
        round: Round,
        /// How many came.
        counted: u64,
        /// How many the source sent.
        claimed: u64,
    },
}

/// What has arrived, of which rounds, on which streams.
///
/// Landers mark pages without a lock: a stream owns its chunks, and a chunk's bits have words of
/// their own. Only a round's first frame and its barrier take the lock. A bit set before a barrier
/// is seen by whoever sees the barrier.
#[derive(Debug)]
pub struct Ledger {
    map: MemoryMap,
    owners: ChunkOwners,
    /// Pages that arrived, but for those of chunks that are whole.
    arrived: ChunkBits,
    /// One bit for each chunk: all its pages have arrived.
    whole: Box<[AtomicU64]>,
    holds_data: ChunkBits,
    /// One bit for each chunk.
    populated: Box<[AtomicU64]>,
    /// The round that is open: how many are complete.
    round: AtomicU32,
    rounds: Mutex<Rounds>,
}

#[derive(Debug)]
struct Rounds {
    /// The open round, stream by stream.
    open: Vec<Progress>,
    /// The last complete round, and whether the source's totals agree.
    last: Option<(Round, RoundTotals)>,
    confirmed: Option<Round>,
    broken: Option<(StreamIndex, Round)>,
    /// No round may begin any more.
    closed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Progress {
    Idle,
    Begun,
    Passed(u64, EncodingCounts),
}

impl Ledger {
    /// Nothing has arrived of the guest with this map, which comes on `stream_count` streams.
    pub fn new(map: &MemoryMap, stream_count: u16) -> Self {
        let word_count = map.end().get().div_ceil(CHUNK_PAGES).div_ceil(WORD_BITS);
        let words = || (0..word_count).map(|_| AtomicU64::new(0)).collect();
        Self {
            map: map.clone(),
            owners: ChunkOwners::new(map, stream_count),
            arrived: ChunkBits::new(map.end()),
            whole: words(),
            holds_data: ChunkBits::new(map.end()),
            populated: words(),
            round: AtomicU32::new(0),
            rounds: Mutex::new(Rounds {
                open: vec![Progress::Idle; stream_count.into()],
                last: None,
                confirmed: None,
                broken: None,
                closed: false,
            }),
        }
    }

    /// How many streams there are.
    pub fn stream_count(&self) -> u16 {
        self.owners.stream_count()
    }

    /// How many bytes of memory the ledger takes now: at most two bits per page, and two
    /// bits and two bytes per chunk.
    pub fn overhead_bytes(&self) -> usize {
        let of_chunks = size_of_val(&*self.whole) + size_of_val(&*self.populated);
        let of_pages = self.arrived.overhead_bytes() + self.holds_data.overhead_bytes();
        of_pages + of_chunks + self.owners.overhead_bytes()
    }

    /// The round whose frames may come now.
    pub fn round(&self) -> Round {
        Round::new(self.round.load(Ordering::Acquire))
    }

    /// What came in `round`; `None` while a stream has not passed its barrier, and once the next
    /// round is complete.
    pub fn landed(&self, round: Round) -> Option<RoundTotals> {
        let rounds = self.rounds();
        let (last, totals) = rounds.last.as_ref()?;
        (*last == round).then(|| totals.clone())
    }

    /// Compares the source's totals of `round` with what came.
    ///
    /// # Errors
    /// The first difference; [`Gap::BarrierMissing`] where the round has not landed yet.
    pub fn confirm(&self, round: Round, frame_counts: &[u64], pages: u64) -> Result<(), Gap> {
        let mut rounds = self.rounds();
        let totals = match &rounds.last {
            Some((last, totals)) if *last == round => totals,
            _ => return Err(rounds.barrier_missing(round)),
        };
        if frame_counts.len() != totals.frame_counts.len() {
            return Err(Gap::StreamsDiffer {
                expected: totals.frame_counts.len(),
                claimed: frame_counts.len(),
            });
        }
        for (stream, (claimed, counted)) in
            frame_counts.iter().zip(&totals.frame_counts).enumerate()
        {
            if claimed != counted {
                return Err(Gap::FramesDiffer {
                    stream: StreamIndex::new(stream as u16),
                    round,
                    counted: *counted,
                    claimed: *claimed,
                });
            }
        }
        let counted = totals.pages.total();
        if counted != pages {
            return Err(Gap::PagesDiffer {
                round,
                counted,
                claimed: pages,
            });
        }
        rounds.confirmed = Some(round);
        Ok(())
    }

    /// Whether the guest may resume here: every page of the map has arrived, no stream broke, no
    /// round is half here, and the source's totals of the last one agree with what came.
    ///
    /// # Errors
    /// The first gap.
    pub fn complete(&self) -> Result<(), Gap> {
        let rounds = self.rounds();
        if let Some((stream, round)) = rounds.broken {
            return Err(Gap::StreamBroken { stream, round });
        }
        let open = self.round();
        let half = rounds
            .open
            .iter()
            .any(|progress| !matches!(progress, Progress::Idle));
        let Some((last, _)) = rounds.last.as_ref().filter(|_| !half) else {
            return Err(rounds.barrier_missing(open));
        };
        if rounds.confirmed != Some(*last) {
            return Err(Gap::TotalsMissing { round: *last });
        }
        drop(rounds);
        self.missing().map_or(Ok(()), Err)
    }

    /// The pages of the map that never arrived, as a gap.
    fn missing(&self) -> Option<Gap> {
        let (mut first, mut count) = (None, 0);
        for region in self.map.regions() {
            let mut from = region.start();
            while from < region.end() {
                let chunk = from.chunk();
                from = self.end_of_whole(chunk);
                if from > chunk.pages().start() {
                    continue;
                }
                from = chunk.pages().end();
                let mut missing = ChunkPages::of_range(chunk, *region);
                missing.subtract(&self.arrived.get(chunk));
                if let Some((offset, _)) = missing.runs().next() {
                    first = first.or(Some(chunk.page(offset)));
                    count += u64::from(missing.count());
                }
            }
        }
        first.map(|first| Gap::PagesMissing {
            first,
            count: PageCount::new(count),
        })
    }

    /// The end of the run of whole chunks that begins with `chunk`, at least as far as a word goes:
    /// the start of `chunk` where it is not whole.
    fn end_of_whole(&self, chunk: ChunkIndex) -> PageIndex {
        let (word, bit) = place(chunk);
        let bits = self
            .whole
            .get(word)
            .map_or(0, |word| word.load(Ordering::Relaxed));
        let count = u64::from((bits >> bit).trailing_ones());
        ChunkIndex::new(chunk.get() + count).pages().start()
    }

    /// Lets no round begin any more, so that nothing is placed once [`complete`](Self::complete)
    /// has answered: the guest is about to run on this memory.
    pub fn close(&self) {
        self.rounds().closed = true;
    }

    /// Whether `chunk` belongs to `stream`, as it does from the first of its frames on.
    pub(crate) fn takes(&self, chunk: ChunkIndex, stream: StreamIndex) -> bool {
        self.owners.take(chunk, stream, 0).is_some()
    }

    /// The stream's first frame of the open round came; says whether it may be taken.
    pub(crate) fn begin(&self, stream: StreamIndex) -> bool {
        let mut rounds = self.rounds();
        if rounds.closed {
            return false;
        }
        if let Some(progress) = rounds.open.get_mut(usize::from(stream.get())) {
            *progress = Progress::Begun;
        }
        true
    }

    /// The stream passed the barrier of the open round. Says whether all have.
    pub(crate) fn pass(&self, stream: StreamIndex, frames: u64, pages: EncodingCounts) -> bool {
        let mut rounds = self.rounds();
        if let Some(progress) = rounds.open.get_mut(usize::from(stream.get())) {
            *progress = Progress::Passed(frames, pages);
        }
        let mut totals = RoundTotals::default();
        for progress in &rounds.open {
            let Progress::Passed(frames, pages) = progress else {
                return false;
            };
            totals.frame_counts.push(*frames);
            totals.pages += *pages;
        }
        let round = self.round();
        rounds.last = Some((round, totals));
        rounds.open.fill(Progress::Idle);
        self.round.store(round.next().get(), Ordering::Release);
        true
    }

    /// The stream cannot go on: the guest will never resume here.
    pub(crate) fn break_stream(&self, stream: StreamIndex) {
        let round = self.round();
        self.rounds().broken.get_or_insert((stream, round));
    }

    /// Pages arrived.
    pub(crate) fn mark_arrived(&self, pages: PageRange) {
        let mut from = pages.start();
        while from < pages.end() {
            let chunk = from.chunk();
            let part = ChunkPages::of_range(chunk, pages);
            from = chunk.pages().end();
            if part == ChunkPages::FULL {
                let (word, bit) = place(chunk);
                let beyond = pages.end().chunk().get();
                let count = (beyond - chunk.get()).min(WORD_BITS - bit);
                let bits = (u64::MAX >> (WORD_BITS - count)) << bit;
                if let Some(word) = self.whole.get(word) {
                    word.fetch_or(bits, Ordering::Relaxed);
                }
                from = ChunkIndex::new(chunk.get() + count).pages().start();
            } else if self.end_of_whole(chunk) == chunk.pages().start()
                && self.arrived.set(chunk, &part) == ChunkPages::FULL
            {
                let (word, bit) = place(chunk);
                if let Some(word) = self.whole.get(word) {
                    word.fetch_or(1 << bit, Ordering::Relaxed);
                }
            }
        }
    }

    /// Pages of `chunk` are about to hold data.
    pub(crate) fn mark_data(&self, chunk: ChunkIndex, pages: &ChunkPages) {
        self.holds_data.set(chunk, pages);
    }

    /// Pages of `chunk` were overwritten with zeros.
    pub(crate) fn mark_zero(&self, chunk: ChunkIndex, pages: &ChunkPages) {
        self.holds_data.clear(chunk, pages);
    }

    /// The pages of `chunk` that may hold data.
    pub(crate) fn data(&self, chunk: ChunkIndex) -> ChunkPages {
        self.holds_data.get(chunk)
    }

    /// Takes down that `chunk` is populated from now on; says whether it was.
    pub(crate) fn set_populated(&self, chunk: ChunkIndex) -> bool {
        let (word, bit) = place(chunk);
        let word = self.populated.get(word);
        word.is_some_and(|word| word.fetch_or(1 << bit, Ordering::Relaxed) & 1 << bit != 0)
    }

    fn rounds(&self) -> MutexGuard<'_, Rounds> {
        // What the lock guards is whole after each statement, even where a thread panicked.
        self.rounds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rounds {
    fn barrier_missing(&self, round: Round) -> Gap {
        let passed = |progress: &Progress| matches!(progress, Progress::Passed(..));
        let stream = self
            .open
            .iter()
            .position(|progress| !passed(progress))
            .unwrap_or(0);
        Gap::BarrierMissing {
            stream: StreamIndex::new(stream as u16),
            round,
        }
    }
}

/// Which word holds the bit of `chunk`, and which bit of it that is.
fn place(chunk: ChunkIndex) -> (usize, u64) {
    let word = usize::try_from(chunk.get() / WORD_BITS).unwrap_or(usize::MAX);
    (word, chunk.get() % WORD_BITS)
}
