//! The source's way of one stream: rearm, lift, pack, seal, and hand over. It knows no socket: full
//! buffers go to a sink, which the engine connects to the link.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Instant;

use limosa_pages::{ChunkIndex, ChunkPages, MemoryMap, PAGE_BYTES, PageCount, PageRange};
use limosa_wire::limits::FRAME_RECORDS_MAX;
use limosa_wire::{EncodingCounts, MigrationId, PageEncoding, PageRecord, Round, StreamIndex};

use crate::classify::Sent;
use crate::config::PackConfig;
use crate::frame_buf::FrameBuf;
use crate::kernels::Content;
use crate::memory::{GuestMemory, MemoryError, checked_slice, regions_of, run_of};
use crate::owners::ChunkOwners;
use crate::pack::{FrameFull, Packer};
use crate::scan::ChunkWork;
use crate::seal::Sealer;

/// Fewest pages of a run that goes straight out of the guest's memory: below it, copying them costs
/// less than what the kernel takes for another piece of a call.
const LIVE_RUN_PAGES_MIN: u16 = 8;

/// What a stream has sent of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StreamReport {
    /// Frames, without the barrier.
    pub frame_count: u64,
    /// Pages, by encoding.
    pub pages: EncodingCounts,
    /// Bytes handed to the sink, the barrier among them.
    pub wire_bytes: u64,
}

/// Why pages could not be packed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// The guest's memory could not be read.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The caller gave a chunk to another stream than the one that owns it.
    #[error("chunk {chunk} does not belong to stream {stream}")]
    NotOwner {
        /// The chunk.
        chunk: ChunkIndex,
        /// The stream.
        stream: StreamIndex,
    },
    /// The corridor lost its buffer to a sink that failed, or the sink gave one back that is too
    /// small or not empty: no frame can be built any more.
    #[error("the corridor of stream {stream} has no buffer")]
    NoBuffer {
        /// The stream.
        stream: StreamIndex,
    },
}

/// The pages of one stream, on their way from the guest's memory into frames.
///
/// A corridor belongs to one thread. The stream is bound by whoever opened it: frame 0 is the
/// link's [`Bind`](limosa_wire::Bind), and the corridor's frames follow it. Then comes one
/// [`run_round`](Self::run_round) for each round in order. `rearm` and `sink` may fail with an
/// error of the caller's own; the corridor is of no further use after any error.
///
/// A **sink** takes a buffer of whole frames and returns an empty one: the same, or another while
/// this one is on its way. Where it waits for one, the guest's pages wait in the guest.
pub struct Corridor {
    memory: Arc<dyn GuestMemory>,
    lane: Lane,
    to_tell: Option<AbsentRanges>,
}

/// Ranges of absent pages, each inside one region.
type AbsentRanges = Box<dyn Iterator<Item = PageRange> + Send>;

/// Most pages of one absent record.
const ABSENT_PAGES_MAX: PageCount = PageCount::new(1 << 31);

/// All of a corridor but the memory.
struct Lane {
    owners: Arc<ChunkOwners>,
    /// How many chunks were taken, as far as a byte goes.
    taken_count: u8,
    sends_absent: bool,
    sends_live: bool,
    sealer: Sealer,
    packer: Packer,
    /// `None` only after the sink failed.
    buffer: Option<FrameBuf>,
    absent: Vec<PageRecord>,
    round: Round,
    report: StreamReport,
    /// When the sink last gave a buffer back, or the round began.
    handed_over: Instant,
    /// Bytes of pages with data in the frames that were sealed since.
    raw_bytes: usize,
}

impl Corridor {
    /// The corridor of `stream`, one of those that share `owners`, which fills `buffer` first.
    pub fn new(
        memory: Arc<dyn GuestMemory>,
        migration_id: MigrationId,
        stream: StreamIndex,
        owners: Arc<ChunkOwners>,
        config: &PackConfig,
        buffer: FrameBuf,
    ) -> Self {
        let lane = Lane {
            taken_count: 0,
            sends_absent: config.sends_absent(),
            sends_live: config.sends_live(),
            sealer: Sealer::new(migration_id, stream),
            packer: Packer::new(config, owners.stream_count()),
            owners,
            buffer: Some(buffer),
            absent: Vec::with_capacity(FRAME_RECORDS_MAX.into()),
            round: Round::FIRST,
            report: StreamReport::default(),
            handed_over: Instant::now(),
            raw_bytes: 0,
        };
        Self {
            memory,
            lane,
            to_tell: None,
        }
    }

    /// Has the next round say, ahead of its pages, that the guest never touched those of `ranges`:
    /// each inside one region, in the order of memory. Any stream may say so of any page.
    ///
    /// They are asked for when that round runs, not now. Of use in round 0, to a target that reads
    /// absent records; pages that were said to be absent need no rearming as long as they are.
    pub fn tell_absent(&mut self, ranges: impl Iterator<Item = PageRange> + Send + 'static) {
        self.to_tell = Some(Box::new(ranges));
    }

    /// How many bytes of memory the corridor takes besides its buffers.
    pub fn overhead_bytes(&self) -> usize {
        self.lane.packer.overhead_bytes() + self.lane.absent.capacity() * size_of::<PageRecord>()
    }

    /// Sends the pages of `work`, and the barrier that ends the round on this stream.
    ///
    /// For each chunk `rearm` is called before a byte of it is read, so that what the guest writes
    /// from then on is recorded for the next round. In round 0 the memory is asked then, and not
    /// earlier, which pages are present at all. The last buffer is handed over before this returns.
    ///
    /// # Errors
    /// Those of `rearm` and of the sink, and every [`PackError`].
    pub fn run_round<E: From<PackError>>(
        &mut self,
        round: Round,
        work: impl IntoIterator<Item: Borrow<ChunkWork>>,
        rearm: &mut impl FnMut(ChunkIndex, &mut ChunkPages) -> Result<(), E>,
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<StreamReport, E> {
        self.lane.begin_round(round);
        if let Some(ranges) = self.to_tell.take() {
            for range in ranges {
                self.lane.note_absent(self.memory.map(), range, sink)?;
            }
            // What is found absent from here on may lie ahead of it.
            self.lane.seal_absent(sink)?;
        }
        for work in work {
            let ChunkWork { chunk, mut pages } = *work.borrow();
            self.lane.take(chunk)?;
            rearm(chunk, &mut pages)?;
            self.lane.pack_chunk(&self.memory, chunk, pages, sink)?;
        }
        self.lane.end_round(sink)?;
        Ok(self.lane.report)
    }
}

impl Lane {
    fn begin_round(&mut self, round: Round) {
        self.round = round;
        self.report = StreamReport::default();
        self.packer.classifier_mut().begin_round();
        self.handed_over = Instant::now();
    }

    /// The chunk is this stream's from here on.
    fn take(&mut self, chunk: ChunkIndex) -> Result<(), PackError> {
        let stream = self.sealer.stream();
        let turn = self.owners.take(chunk, stream, self.taken_count);
        let turn = turn.ok_or(PackError::NotOwner { chunk, stream })?;
        if turn == self.taken_count {
            self.taken_count = self.taken_count.wrapping_add(1);
        }
        self.packer.begin_chunk(self.round, chunk, turn);
        Ok(())
    }

    fn no_buffer(&self) -> PackError {
        PackError::NoBuffer {
            stream: self.sealer.stream(),
        }
    }

    fn buffer(&mut self) -> Result<&mut FrameBuf, PackError> {
        let lost = self.no_buffer();
        self.buffer.as_mut().ok_or(lost)
    }

    /// Packs the pages of a chunk that was rearmed.
    fn pack_chunk<E: From<PackError>>(
        &mut self,
        memory: &Arc<dyn GuestMemory>,
        chunk: ChunkIndex,
        mut pages: ChunkPages,
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<(), E> {
        if self.round == Round::FIRST && self.sends_absent {
            let mut absent = pages;
            absent.subtract(&memory.present(chunk).map_err(PackError::from)?);
            pages.subtract(&absent);
            self.note_absent_of(memory.map(), chunk, &absent, sink)?;
        }
        if pages.is_empty() {
            return Ok(());
        }
        self.begin_frame(&pages, sink)?;
        for part in regions_of(memory.map(), chunk) {
            let mut inside = ChunkPages::of_range(chunk, part);
            inside.intersect(&pages);
            for run in inside.runs() {
                self.pack_or_refer(memory, chunk, run, sink)?;
            }
            let Self { packer, buffer, .. } = &mut *self;
            if let Some(buffer) = buffer {
                packer.end_region(buffer);
            }
        }
        Ok(self.seal_pages(chunk)?)
    }

    fn begin_frame<E: From<PackError>>(
        &mut self,
        pages: &ChunkPages,
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<(), E> {
        let page_count = pages.count() as usize;
        let lifted_bytes = self.lifted_count(pages) * PAGE_BYTES;
        if !self.buffer()?.has_room(page_count, lifted_bytes) {
            self.flush(sink)?;
        }
        // Most frames have a record for each run; where zeros add some, the payload moves a little.
        self.buffer()?.begin(pages.runs().count(), page_count);
        Ok(())
    }

    /// Packs a run of pages, or refers to them where they are. What may be encoded is packed block
    /// by block: where only a sample was wanted, the rest of the run needs no copying.
    fn pack_or_refer<E: From<PackError>>(
        &mut self,
        memory: &Arc<dyn GuestMemory>,
        chunk: ChunkIndex,
        (mut first, mut count): (u16, u16),
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<(), E> {
        while self.sends_live && count >= LIVE_RUN_PAGES_MIN {
            if !self.packer.may_encode_next() {
                return self.pack_live(memory, chunk, (first, count), sink);
            }
            let part = self.packer.run_pages_wanted().min(count);
            self.pack_run(&**memory, chunk, first, part, sink)?;
            let Self { packer, buffer, .. } = &mut *self;
            if let Some(buffer) = buffer {
                packer.end_run(buffer);
            }
            (first, count) = (first + part, count - part);
        }
        if count == 0 {
            return Ok(());
        }
        self.pack_run(&**memory, chunk, first, count, sink)
    }

    /// How many of `pages` will be copied into the buffer, at most.
    fn lifted_count(&self, pages: &ChunkPages) -> usize {
        if !self.sends_live || self.packer.may_encode_next() {
            return pages.count() as usize;
        }
        let short = pages
            .runs()
            .filter(|(_, count)| *count < LIVE_RUN_PAGES_MIN);
        short.map(|(_, count)| usize::from(count)).sum()
    }

    /// Packs a run of pages that stay where they are: its zero pages are found, and all others are
    /// sent straight out of the guest's memory. What the guest writes there meanwhile is recorded
    /// for the next round.
    fn pack_live<E: From<PackError>>(
        &mut self,
        memory: &Arc<dyn GuestMemory>,
        chunk: ChunkIndex,
        (first, count): (u16, u16),
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<(), E> {
        let pages = run_of(chunk, first, count);
        let slice = checked_slice(&**memory, pages).map_err(PackError::from)?;
        let is_data = |packer: &Packer, at: u16| {
            let page = slice.subslice(usize::from(at) * PAGE_BYTES, PAGE_BYTES);
            page.is_ok_and(|page| packer.test_zero(&page) == Content::Data)
        };
        let mut at = 0;
        while at < count {
            let data_count = (at..count)
                .take_while(|at| is_data(&self.packer, *at))
                .count() as u16;
            self.push_live(memory, chunk, (first + at, data_count), sink)?;
            at += data_count;
            if at < count {
                let lost = self.no_buffer();
                let buffer = self.buffer.as_mut().ok_or(lost)?;
                self.packer.add_zero(u32::from(first + at), buffer);
                at += 1;
            }
        }
        Ok(())
    }

    /// Adds pages that stay in the guest's memory, in as many frames as they need.
    fn push_live<E: From<PackError>>(
        &mut self,
        memory: &Arc<dyn GuestMemory>,
        chunk: ChunkIndex,
        (mut first, mut count): (u16, u16),
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<(), E> {
        while count > 0 {
            let lost = self.no_buffer();
            let buffer = self.buffer.as_mut().ok_or(lost)?;
            let part = count.min(buffer.live_room());
            if part == 0 {
                self.next_frame(chunk, sink)?;
                continue;
            }
            self.packer.add_live(u32::from(first), part, buffer);
            buffer.push_live(memory, run_of(chunk, first, part));
            (first, count) = (first + part, count - part);
        }
        Ok(())
    }

    /// Seals the frame that is full, and begins another for the same chunk.
    fn next_frame<E: From<PackError>>(
        &mut self,
        chunk: ChunkIndex,
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<(), E> {
        self.seal_pages(chunk)?;
        self.flush(sink)?;
        self.buffer()?.begin(0, 0);
        Ok(())
    }

    fn pack_run<E: From<PackError>>(
        &mut self,
        memory: &dyn GuestMemory,
        chunk: ChunkIndex,
        first: u16,
        count: u16,
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<(), E> {
        let pages = run_of(chunk, first, count);
        let slice = checked_slice(memory, pages).map_err(PackError::from)?;
        for at in 0..count {
            let wrong_length = |_| MemoryError::WrongLength {
                pages: pages.count().get(),
                found: slice.len(),
            };
            let page = slice
                .subslice(usize::from(at) * PAGE_BYTES, PAGE_BYTES)
                .map_err(|error| PackError::from(wrong_length(error)))?;
            let offset = u32::from(first + at);
            loop {
                let Self { packer, buffer, .. } = &mut *self;
                let Some(buffer) = buffer else {
                    return Err(self.no_buffer().into());
                };
                match packer.add_page(offset, &page, buffer) {
                    Ok(()) => break,
                    Err(FrameFull) => self.next_frame(chunk, sink)?,
                }
            }
        }
        Ok(())
    }

    /// Ends the frame that is being built, where it has pages.
    fn seal_pages(&mut self, chunk: ChunkIndex) -> Result<(), PackError> {
        let lost = self.no_buffer();
        let buffer = self.buffer.as_mut().ok_or(lost)?;
        let pages = self.packer.end_frame(buffer);
        if !buffer.records().is_empty() {
            self.sealer.pages(self.round, chunk, buffer);
            self.report.frame_count += 1;
            self.report.pages += pages;
            self.raw_bytes += pages.data() as usize * PAGE_BYTES;
        }
        Ok(())
    }

    /// Takes down that the guest never touched some pages of a chunk.
    fn note_absent_of<E: From<PackError>>(
        &mut self,
        map: &MemoryMap,
        chunk: ChunkIndex,
        absent: &ChunkPages,
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<(), E> {
        for part in regions_of(map, chunk) {
            let mut inside = ChunkPages::of_range(chunk, part);
            inside.intersect(absent);
            for (first, count) in inside.runs() {
                self.note_absent(map, run_of(chunk, first, count), sink)?;
            }
        }
        Ok(())
    }

    /// Takes down that the guest never touched `pages`, to be said in a frame with many others.
    fn note_absent<E: From<PackError>>(
        &mut self,
        map: &MemoryMap,
        mut pages: PageRange,
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<(), E> {
        while !pages.is_empty() {
            let count = pages.count().min(ABSENT_PAGES_MAX);
            let part = PageRange::from_start_count(pages.start(), count);
            let part = part.unwrap_or(PageRange::empty());
            pages = PageRange::new(part.end(), pages.end()).unwrap_or(PageRange::empty());
            if extend_last(&mut self.absent, map, part) {
                continue;
            }
            if self.absent.len() == usize::from(FRAME_RECORDS_MAX) {
                self.seal_absent(sink)?;
            }
            self.absent.push(PageRecord {
                // A map ends at page 2^32 at the furthest.
                first: part.start().get() as u32,
                count: part.count().get() as u32,
                encoding: PageEncoding::Absent,
                payload_bytes: 0,
            });
        }
        Ok(())
    }

    fn seal_absent<E: From<PackError>>(
        &mut self,
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<(), E> {
        let record_count = self.absent.len();
        if record_count == 0 {
            return Ok(());
        }
        if !self.buffer()?.has_room(record_count, 0) {
            self.flush(sink)?;
        }
        let lost = self.no_buffer();
        let buffer = self.buffer.as_mut().ok_or(lost)?;
        buffer.begin(record_count, record_count);
        let page_count = self
            .absent
            .iter()
            .map(|record| u64::from(record.count))
            .sum();
        buffer.records_mut().append(&mut self.absent);
        self.sealer.absent(buffer);
        self.report.frame_count += 1;
        self.report.pages.count(PageEncoding::Absent, page_count);
        Ok(())
    }

    fn end_round<E: From<PackError>>(
        &mut self,
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<(), E> {
        self.seal_absent(sink)?;
        let (round, frame_count) = (self.round, self.report.frame_count);
        let lost = self.no_buffer();
        let buffer = self.buffer.as_mut().ok_or(lost)?;
        if !self.sealer.barrier(round, frame_count, buffer) {
            self.flush(sink)?;
            let lost = self.no_buffer();
            let buffer = self.buffer.as_mut().ok_or(lost)?;
            self.sealer.barrier(round, frame_count, buffer);
        }
        self.flush(sink)
    }

    /// Hands the sealed frames over.
    fn flush<E: From<PackError>>(
        &mut self,
        sink: &mut impl FnMut(FrameBuf) -> Result<FrameBuf, E>,
    ) -> Result<(), E> {
        let full = self.buffer.take().ok_or_else(|| self.no_buffer())?;
        if full.is_empty() {
            self.buffer = Some(full);
            return Ok(());
        }
        let (sent_bytes, room_bytes) = (full.wire_bytes(), full.payload_bytes_max());
        let began = Instant::now();
        let worked = began - self.handed_over;
        let empty = sink(full)?;
        self.handed_over = Instant::now();
        self.packer.classifier_mut().sent(&Sent {
            raw_bytes: core::mem::take(&mut self.raw_bytes),
            wire_bytes: sent_bytes,
            worked,
            kept: self.handed_over - began,
        });
        self.report.wire_bytes += sent_bytes as u64;
        if !empty.is_empty() || empty.payload_bytes_max() < room_bytes {
            return Err(self.no_buffer().into());
        }
        self.buffer = Some(empty);
        Ok(())
    }
}

/// Makes the last record longer by `pages`, where they follow it in one region.
fn extend_last(records: &mut [PageRecord], map: &MemoryMap, pages: PageRange) -> bool {
    let Some(last) = records.last_mut() else {
        return false;
    };
    let (first, count) = (u64::from(last.first), u64::from(last.count));
    let joined = limosa_pages::PageIndex::new(first);
    let joined = PageRange::new(joined, pages.end()).filter(|joined| map.contains_range(*joined));
    let touches = first + count == pages.start().get();
    let longer = u32::try_from(count + pages.count().get());
    match (joined, longer) {
        (Some(_), Ok(longer)) if touches => {
            last.count = longer;
            true
        }
        _ => false,
    }
}
