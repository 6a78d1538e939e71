//! A guest's memory, a dirty log and links for tests, all inside this process. No real kernel or
//! socket is behind them.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use limosa_pages::{
    CHUNK_PAGES, ChunkIndex, ChunkPages, MemoryMap, PAGE_BYTES, PageCount, PageIndex, PageRange,
    PageSet,
};
use limosa_pipeline::{
    BufferPool, ChunkOwners, ChunkWork, Corridor, FrameBuf, FrameSource, GuestMemory, LandError,
    Landed, Lander, Ledger, MemoryError, PackConfig, PackError, Piece, StreamReport, scan,
};
use limosa_wire::{EncodingSet, MigrationId, Round, StreamIndex, StreamSecret};
use vm_memory::mmap::MmapRegion;
use vm_memory::{VolatileMemory, VolatileSlice};

pub(crate) const MIGRATION: MigrationId = MigrationId::new([7; 16]);
pub(crate) const SECRET: StreamSecret = StreamSecret::new([9; 16]);

/// Any error of a test, by its text.
#[derive(Debug)]
pub(crate) enum TestError {
    Pack(PackError),
    Land(LandError),
    Link,
}

impl From<PackError> for TestError {
    fn from(error: PackError) -> Self {
        Self::Pack(error)
    }
}

impl From<LandError> for TestError {
    fn from(error: LandError) -> Self {
        Self::Land(error)
    }
}

/// Guest memory with a dirty log and a record of what was ever touched.
pub(crate) struct TestMemory {
    map: MemoryMap,
    regions: Vec<MmapRegion>,
    dirty: Vec<AtomicU64>,
    touched: Vec<AtomicU64>,
    pub(crate) populated: Vec<AtomicU64>,
}

pub(crate) fn range(start: u64, count: u64) -> PageRange {
    PageRange::from_start_count(PageIndex::new(start), PageCount::new(count)).unwrap()
}

pub(crate) fn map_of(regions: &[(u64, u64)]) -> MemoryMap {
    let regions = regions
        .iter()
        .map(|(start, count)| range(*start, *count))
        .collect();
    MemoryMap::new(regions).unwrap()
}

impl TestMemory {
    pub(crate) fn new(map: &MemoryMap) -> Arc<Self> {
        let chunks = map.end().get().div_ceil(CHUNK_PAGES);
        let words = |count: u64| (0..count).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            map: map.clone(),
            regions: map
                .regions()
                .iter()
                .map(|region| MmapRegion::new(region.count().bytes() as usize).unwrap())
                .collect(),
            dirty: words(chunks * 8),
            touched: words(chunks * 8),
            populated: words(chunks),
        })
    }

    /// The guest writes one page: first the bytes, then the log.
    pub(crate) fn write(&self, page: u64, bytes: &[u8]) {
        self.slice(range(page, 1)).unwrap().copy_from(bytes);
        let (word, bit) = (page as usize / 64, 1 << (page % 64));
        self.touched[word].fetch_or(bit, Ordering::SeqCst);
        self.dirty[word].fetch_or(bit, Ordering::SeqCst);
    }

    pub(crate) fn read(&self, page: u64) -> Vec<u8> {
        let mut bytes = vec![0; PAGE_BYTES];
        self.slice(range(page, 1)).unwrap().copy_to(&mut bytes[..]);
        bytes
    }

    /// What was written since it was last rearmed.
    pub(crate) fn harvest(&self) -> PageSet {
        let mut pages = PageSet::new(self.map.end());
        for (word, bits) in self.dirty.iter().enumerate() {
            for bit in 0..64 {
                if bits.load(Ordering::SeqCst) >> bit & 1 == 1 {
                    pages.insert(PageIndex::new(word as u64 * 64 + bit));
                }
            }
        }
        pages
    }

    pub(crate) fn rearm(&self, chunk: ChunkIndex, pages: &mut ChunkPages) {
        let first = chunk.get() as usize * 8;
        for (word, into) in self.dirty[first..].iter().zip(pages.words_mut()) {
            *into |= word.swap(0, Ordering::SeqCst);
        }
    }

    pub(crate) fn populate_count(&self) -> u64 {
        self.populated
            .iter()
            .map(|count| count.load(Ordering::SeqCst))
            .sum()
    }

    /// The first page that differs.
    pub(crate) fn first_difference(&self, other: &Self) -> Option<u64> {
        let pages = self.map.regions().iter().flat_map(|region| region.iter());
        pages
            .map(PageIndex::get)
            .find(|page| self.read(*page) != other.read(*page))
    }
}

impl GuestMemory for TestMemory {
    fn map(&self) -> &MemoryMap {
        &self.map
    }

    fn slice(&self, pages: PageRange) -> Result<VolatileSlice<'_>, MemoryError> {
        let outside = MemoryError::OutsideMap { pages };
        let region = self
            .map
            .region_of(pages.start())
            .filter(|_| self.map.contains_range(pages));
        let Some(region) = region else {
            return Err(outside);
        };
        let first = pages.start().get() - self.map.regions()[region].start().get();
        let offset = first as usize * PAGE_BYTES;
        self.regions[region]
            .get_slice(offset, pages.count().bytes() as usize)
            .map_err(|_| outside)
    }

    fn present(&self, chunk: ChunkIndex) -> Result<ChunkPages, MemoryError> {
        let mut pages = ChunkPages::EMPTY;
        let first = chunk.get() as usize * 8;
        for (word, into) in self.touched[first..].iter().zip(pages.words_mut()) {
            *into = word.load(Ordering::SeqCst);
        }
        Ok(pages)
    }

    fn populate(&self, chunk: ChunkIndex) -> Result<(), MemoryError> {
        self.populated[chunk.get() as usize].fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Bytes that no compressor makes shorter.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut words = Vec::with_capacity(bytes + 8);
    while words.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        words.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    words.truncate(bytes);
    words
}

/// Bytes that compress well, and differ by seed.
pub(crate) fn text(seed: u64, bytes: usize) -> Vec<u8> {
    format!("page {seed}: the godwit flies without a stop. ")
        .bytes()
        .cycle()
        .take(bytes)
        .collect()
}

/// Bytes that were sent, and are received: one stream.
#[derive(Default)]
pub(crate) struct Wire(pub(crate) VecDeque<u8>);

impl FrameSource for Wire {
    type Error = TestError;

    fn recv_exact(&mut self, into: &mut [u8]) -> Result<(), TestError> {
        if self.0.len() < into.len() {
            return Err(TestError::Link);
        }
        let (count, bytes) = (into.len(), &mut self.0);
        bytes
            .drain(..count)
            .zip(into)
            .for_each(|(byte, into)| *into = byte);
        Ok(())
    }

    fn recv_into(&mut self, landing: &[VolatileSlice<'_>]) -> Result<(), TestError> {
        for slice in landing {
            let mut bytes = vec![0; slice.len()];
            self.recv_exact(&mut bytes)?;
            slice.copy_from(&bytes);
        }
        Ok(())
    }
}

/// A link between two threads.
pub(crate) struct Link {
    incoming: Receiver<Vec<u8>>,
    wire: Wire,
}

impl FrameSource for Link {
    type Error = TestError;

    fn recv_exact(&mut self, into: &mut [u8]) -> Result<(), TestError> {
        while self.wire.0.len() < into.len() {
            let more = self.incoming.recv().map_err(|_| TestError::Link)?;
            self.wire.0.extend(more);
        }
        self.wire.recv_exact(into)
    }

    fn recv_into(&mut self, landing: &[VolatileSlice<'_>]) -> Result<(), TestError> {
        for slice in landing {
            let mut bytes = vec![0; slice.len()];
            self.recv_exact(&mut bytes)?;
            slice.copy_from(&bytes);
        }
        Ok(())
    }
}

/// Both ends of one stream.
pub(crate) struct Stream {
    pub(crate) corridor: Corridor,
    pub(crate) lander: Lander,
    link: Link,
    outgoing: Sender<Vec<u8>>,
}

/// A source and a target inside this process.
pub(crate) struct World {
    pub(crate) source: Arc<TestMemory>,
    pub(crate) target: Arc<TestMemory>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) streams: Vec<Stream>,
}

pub(crate) fn owners_of(memory: &TestMemory, stream_count: u16) -> Arc<ChunkOwners> {
    Arc::new(ChunkOwners::new(memory.map(), stream_count))
}

/// A corridor that nobody disputes a chunk.
pub(crate) fn corridor(
    memory: &Arc<TestMemory>,
    stream: u16,
    stream_count: u16,
    config: &PackConfig,
) -> Corridor {
    corridor_beside(memory, stream, &owners_of(memory, stream_count), config)
}

/// A corridor beside the others that share `owners`.
pub(crate) fn corridor_beside(
    memory: &Arc<TestMemory>,
    stream: u16,
    owners: &Arc<ChunkOwners>,
    config: &PackConfig,
) -> Corridor {
    let buffer = BufferPool::new(1, config).take().unwrap();
    Corridor::new(
        Arc::clone(memory) as Arc<dyn GuestMemory>,
        MIGRATION,
        StreamIndex::new(stream),
        Arc::clone(owners),
        config,
        buffer,
    )
}

pub(crate) fn lander(memory: &Arc<TestMemory>, ledger: &Arc<Ledger>, stream: u16) -> Lander {
    Lander::new(
        Arc::clone(memory) as Arc<dyn GuestMemory>,
        Arc::clone(ledger),
        MIGRATION,
        StreamIndex::new(stream),
        EncodingSet::ALL,
    )
}

impl World {
    pub(crate) fn new(map: &MemoryMap, stream_count: u16, config: &PackConfig) -> Self {
        let (source, target) = (TestMemory::new(map), TestMemory::new(map));
        let ledger = Arc::new(Ledger::new(map, stream_count));
        let owners = owners_of(&source, stream_count);
        let streams = (0..stream_count)
            .map(|stream| {
                let (outgoing, incoming) = channel();
                Stream {
                    corridor: corridor_beside(&source, stream, &owners, config),
                    lander: lander(&target, &ledger, stream),
                    link: Link {
                        incoming,
                        wire: Wire::default(),
                    },
                    outgoing,
                }
            })
            .collect();
        Self {
            source,
            target,
            ledger,
            streams,
        }
    }

    /// Sends `pages` and lands them, every stream and both ends in threads of their own; confirms
    /// the totals.
    pub(crate) fn run_round(&mut self, round: u32, pages: &PageSet) -> Vec<StreamReport> {
        let stream_count = self.streams.len() as u16;
        let work = scan(pages, self.source.map(), stream_count);
        let source = &*self.source;
        let reports: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = self
                .streams
                .iter_mut()
                .zip(&work)
                .map(|(stream, work)| {
                    let Stream {
                        corridor,
                        lander,
                        link,
                        outgoing,
                    } = stream;
                    let outgoing = outgoing.clone();
                    let landing = scope.spawn(move || land_round(lander, link));
                    let sending =
                        scope.spawn(move || send_round(corridor, round, work, source, &outgoing));
                    (sending, landing)
                })
                .collect();
            let join = |(sending, landing): (std::thread::ScopedJoinHandle<'_, _>, _)| {
                let landing: std::thread::ScopedJoinHandle<'_, ()> = landing;
                let report = sending.join().unwrap();
                landing.join().unwrap();
                report
            };
            running.into_iter().map(join).collect()
        });
        let frames: Vec<_> = reports.iter().map(|report| report.frame_count).collect();
        let pages = reports.iter().map(|report| report.pages.total()).sum();
        self.ledger
            .confirm(Round::new(round), &frames, pages)
            .unwrap();
        reports
    }
}

fn send_round(
    corridor: &mut Corridor,
    round: u32,
    work: &[ChunkWork],
    source: &TestMemory,
    outgoing: &Sender<Vec<u8>>,
) -> StreamReport {
    let mut rearm = |chunk: ChunkIndex, pages: &mut ChunkPages| {
        source.rearm(chunk, pages);
        Ok::<(), TestError>(())
    };
    let mut sink = |mut buffer: FrameBuf| {
        outgoing
            .send(wire_of(&buffer))
            .map_err(|_| TestError::Link)?;
        buffer.clear();
        Ok::<_, TestError>(buffer)
    };
    corridor
        .run_round(Round::new(round), work, &mut rearm, &mut sink)
        .unwrap()
}

fn land_round(lander: &mut Lander, link: &mut Link) {
    while !matches!(lander.land(link).unwrap(), Landed::Barrier { .. }) {}
}

/// What a buffer puts on the wire.
pub(crate) fn wire_of(buffer: &FrameBuf) -> Vec<u8> {
    let mut wire = Vec::new();
    for piece in buffer.pieces() {
        match piece {
            Piece::Buffer(bytes) => wire.extend_from_slice(bytes),
            Piece::Guest(slice) => {
                let at = wire.len();
                wire.resize(at + slice.len(), 0);
                slice.copy_to(&mut wire[at..]);
            }
        }
    }
    assert_eq!(wire.len(), buffer.wire_bytes());
    wire
}

/// A sink that keeps what it is given.
pub(crate) fn keep(
    bytes: &mut Vec<u8>,
) -> impl FnMut(FrameBuf) -> Result<FrameBuf, TestError> + '_ {
    |mut buffer| {
        bytes.extend(wire_of(&buffer));
        buffer.clear();
        Ok(buffer)
    }
}

pub(crate) fn no_rearm(_: ChunkIndex, _: &mut ChunkPages) -> Result<(), TestError> {
    Ok(())
}

/// Sets a flag when it goes, so that a thread which watches it ends even where a test fails.
pub(crate) struct StopOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
