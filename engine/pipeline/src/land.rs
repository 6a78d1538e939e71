//! The target's way of one stream: open, check, place, and take down. It knows no socket: bytes
//! come from a source that the engine connects to the link.

use std::sync::Arc;

use limosa_pages::{
    ChunkIndex, ChunkPages, MemoryMap, PAGE_BYTES, PageCount, PageIndex, PageRange,
};
use limosa_wire::limits::{BLOCK_PAGES_MAX, FRAME_RECORDS_MAX, FRAME_TABLE_BYTES_MAX};
use limosa_wire::{
    Barrier, DecodeError, DecodeFault, EncodingCounts, EncodingSet, FRAME_HEADER_BYTES,
    FrameHeader, FrameKind, MigrationId, PageEncoding, PageRecord, Round, StreamIndex,
};
use vm_memory::VolatileSlice;

use crate::codec::UnpackFault;
use crate::copy::{place, place_zeros};
use crate::kernels::{Checksum, Kernels};
use crate::ledger::Ledger;
use crate::memory::{GuestMemory, MemoryError, checked_slice, run_of};
use crate::pack::Unpacker;
use crate::seal::{OpenError, Opener};

/// Fewest pages with data in a chunk for which the whole chunk is populated ahead.
///
/// Below it, a fault for each page costs less than making 2 MiB ready, and a guest that scatters a
/// few pages over its memory does not grow to all of it. One full frame of raw pages reaches it.
pub const POPULATE_PAGES_MIN: u32 = 64;

/// Most slices of guest memory that are received into at once. Each is a page at least; a kernel
/// takes 1024 and is not faster with more than these.
const LANDING_SLICES_MAX: usize = 64;

/// Bytes of payload with encoded records that are received at once: a frame of usual size, and as
/// much as any encoded record has. A longer frame is received in parts.
const PACKED_BYTES: usize = BLOCK_PAGES_MAX as usize * PAGE_BYTES;

/// Where a lander's bytes come from: one stream, in order, nothing left out.
pub trait FrameSource {
    /// The link's own error.
    type Error: From<LandError>;

    /// Fills `into`.
    ///
    /// # Errors
    /// When the bytes do not come.
    fn recv_exact(&mut self, into: &mut [u8]) -> Result<(), Self::Error>;

    /// Fills the slices of guest memory, one after the other.
    ///
    /// # Errors
    /// When the bytes do not come.
    fn recv_into(&mut self, landing: &[VolatileSlice<'_>]) -> Result<(), Self::Error>;
}

/// What a frame brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Landed {
    /// Pages, of which some may be absent.
    Pages(EncodingCounts),
    /// The end of a round on this stream.
    Barrier {
        /// The round.
        round: Round,
        /// Whether this stream was the last: the round has landed.
        complete: bool,
    },
}

/// Why a stream of frames cannot go on. Nothing after the frame in question was placed; the guest
/// must never resume here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LandError {
    /// The frame is damaged, or not the next one of its stream.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The stream does not own the chunk.
    #[error("a frame for chunk {chunk} came on stream {stream}, which does not own it")]
    NotOwner {
        /// The chunk.
        chunk: ChunkIndex,
        /// The stream it came on.
        stream: StreamIndex,
    },
    /// A record has pages that are not inside one region of the guest's memory.
    #[error("record {record} has pages that are not inside one region of the guest's memory")]
    OutsideMap {
        /// Which record of its frame, counted from 0.
        record: usize,
    },
    /// A record is in an encoding that was not agreed upon.
    #[error("record {record} is in an encoding that was not agreed upon: {encoding:?}")]
    NotAgreed {
        /// Which record of its frame, counted from 0.
        record: usize,
        /// The encoding.
        encoding: PageEncoding,
    },
    /// An encoded record is not what it says.
    #[error("record {record} cannot be unpacked: {fault}")]
    Unpack {
        /// Which record of its frame, counted from 0.
        record: usize,
        /// What is wrong with it.
        fault: UnpackFault,
    },
    /// The barrier tells another number of frames than came.
    #[error("{found} frames came on stream {stream} in round {round}, {expected} were sent")]
    BarrierDiffers {
        /// The stream.
        stream: StreamIndex,
        /// The round.
        round: Round,
        /// How many the barrier tells.
        expected: u64,
        /// How many came.
        found: u64,
    },
    /// A frame came once everything had been checked.
    #[error("a frame came on stream {stream} after the last round")]
    AfterLastRound {
        /// The stream.
        stream: StreamIndex,
    },
    /// The guest's memory on this host could not be written.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// The pages of one stream, on their way from frames into the guest's memory.
///
/// A lander belongs to one thread. [`land`](Self::land) is called for each frame behind the `Bind`,
/// which whoever let the stream in has read.
///
/// A frame is placed only once header, table, memory map and ownership have been checked. Where all
/// its pages are raw, live or zero, the payload is received **straight into guest memory** and its
/// checksum is taken there: a wrong one ends the stream before the guest could run on it. Live
/// pages have none; they come only where they were agreed upon.
pub struct Lander {
    memory: Arc<dyn GuestMemory>,
    ledger: Arc<Ledger>,
    stream: StreamIndex,
    encodings: EncodingSet,
    opener: Opener,
    kernels: Kernels,
    unpacker: Unpacker,
    round: Round,
    frame_count: u64,
    pages: EncodingCounts,
    table: Vec<u8>,
    records: Vec<PageRecord>,
    payload: Vec<u8>,
}

impl Lander {
    /// The lander of `stream`, for pages in `encodings` only; zero and raw are always agreed.
    pub fn new(
        memory: Arc<dyn GuestMemory>,
        ledger: Arc<Ledger>,
        migration_id: MigrationId,
        stream: StreamIndex,
        encodings: EncodingSet,
    ) -> Self {
        Self {
            memory,
            ledger,
            stream,
            encodings: encodings.with(PageEncoding::Zero).with(PageEncoding::Raw),
            opener: Opener::new(migration_id, stream),
            kernels: Kernels::detect(),
            unpacker: Unpacker::new(),
            round: Round::FIRST,
            frame_count: 0,
            pages: EncodingCounts::default(),
            table: vec![0; FRAME_TABLE_BYTES_MAX],
            records: Vec::with_capacity(FRAME_RECORDS_MAX.into()),
            payload: vec![0; PACKED_BYTES],
        }
    }

    /// How many bytes of memory the lander takes.
    pub fn overhead_bytes(&self) -> usize {
        self.unpacker.overhead_bytes()
            + self.table.capacity()
            + self.payload.capacity()
            + self.records.capacity() * size_of::<PageRecord>()
    }

    /// Receives one frame and puts its pages in place.
    ///
    /// # Errors
    /// Those of `source`, and every [`LandError`]. The lander is of no further use after one, and
    /// its ledger never says that the guest may resume after a [`LandError`].
    pub fn land<S: FrameSource>(&mut self, source: &mut S) -> Result<Landed, S::Error> {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        source.recv_exact(&mut bytes)?;
        let header = self
            .next_header(&bytes)
            .map_err(|error| self.broken(error))?;
        if header.kind == FrameKind::Barrier {
            let mut payload = [0; Barrier::BYTES];
            source.recv_exact(&mut payload)?;
            return Ok(self
                .pass(&header, &payload)
                .map_err(|error| self.broken(error))?);
        }
        let mut table = core::mem::take(&mut self.table);
        let received = source.recv_exact(&mut table[..header.table_bytes()]);
        let checked = self.check_table(&header, &table[..header.table_bytes()]);
        self.table = table;
        received?;
        checked.map_err(|error| self.broken(error))?;
        if header.kind == FrameKind::Pages {
            self.prepare(header.chunk)
                .map_err(|error| self.broken(error))?;
            if self.records.iter().any(is_packed) {
                self.land_packed(&header, source)?;
            } else {
                self.land_raw(&header, source)?;
            }
            self.zero_out(header.chunk)
                .map_err(|error| self.broken(error))?;
        }
        Ok(Landed::Pages(self.count(&header)))
    }

    fn broken(&self, error: LandError) -> LandError {
        self.ledger.break_stream(self.stream);
        error
    }

    fn next_header(&mut self, bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<FrameHeader, LandError> {
        let header = self.opener.header(bytes, self.round)?;
        let (stream, expected, found) = (self.stream, self.ledger.round(), header.round);
        // A stream may not run ahead: another's frames of the round before may still be under way.
        if expected != found {
            return Err(OpenError::WrongRound {
                stream,
                expected,
                found,
            }
            .into());
        }
        let is_pages = header.kind == FrameKind::Pages;
        if is_pages && !self.ledger.takes(header.chunk, stream) {
            let chunk = header.chunk;
            return Err(LandError::NotOwner { chunk, stream });
        }
        if self.frame_count == 0 && !self.ledger.begin(stream) {
            return Err(LandError::AfterLastRound { stream });
        }
        Ok(header)
    }

    fn pass(&mut self, header: &FrameHeader, payload: &[u8]) -> Result<Landed, LandError> {
        let barrier = self.opener.barrier(header, payload)?;
        let (stream, round, found) = (self.stream, self.round, self.frame_count);
        if barrier.frame_count != found {
            return Err(LandError::BarrierDiffers {
                stream,
                round,
                expected: barrier.frame_count,
                found,
            });
        }
        let complete = self.ledger.pass(stream, found, self.pages);
        self.frame_count = 0;
        self.pages = EncodingCounts::default();
        self.round = round.next();
        Ok(Landed::Barrier { round, complete })
    }

    /// Reads the record table and checks every record against the map and what was agreed.
    fn check_table(&mut self, header: &FrameHeader, table: &[u8]) -> Result<(), LandError> {
        self.opener.table(header, table, &mut self.records)?;
        for (number, record) in self.records.iter().enumerate() {
            if !self.encodings.contains(record.encoding) {
                let (record, encoding) = (number, record.encoding);
                return Err(LandError::NotAgreed { record, encoding });
            }
            if !is_inside(self.memory.map(), pages_of(header, record)) {
                return Err(LandError::OutsideMap { record: number });
            }
        }
        Ok(())
    }

    /// Makes ready to write the frame's pages: from here on they count as holding data.
    fn prepare(&self, chunk: ChunkIndex) -> Result<(), LandError> {
        let incoming = self.pages_with(|encoding| encoding != PageEncoding::Zero);
        if incoming.is_empty() {
            return Ok(());
        }
        self.ledger.mark_data(chunk, &incoming);
        let is_worth = self.ledger.data(chunk).count() >= POPULATE_PAGES_MIN;
        if is_worth && !self.ledger.set_populated(chunk) {
            self.memory.populate(chunk)?;
        }
        Ok(())
    }

    fn pages_with(&self, wanted: impl Fn(PageEncoding) -> bool) -> ChunkPages {
        let mut pages = ChunkPages::EMPTY;
        for record in self.records.iter().filter(|record| wanted(record.encoding)) {
            // Both are at most 512 in a frame with pages of a chunk.
            pages.insert_run(record.first as u16, record.count as u16);
        }
        pages
    }

    /// Receives a payload of raw pages straight to where they belong, and checks it there.
    fn land_raw<S: FrameSource>(
        &self,
        header: &FrameHeader,
        source: &mut S,
    ) -> Result<(), S::Error> {
        let mut landing = [VolatileSlice::from(&mut [][..]); LANDING_SLICES_MAX];
        let mut checksum = Checksum::new(self.kernels);
        let has_payload = |record: &&PageRecord| record.payload_bytes > 0;
        for records in self.records.chunks(LANDING_SLICES_MAX) {
            let records = records.iter().filter(has_payload);
            let mut count = 0;
            for (slice, record) in landing.iter_mut().zip(records.clone()) {
                *slice = checked_slice(&*self.memory, pages_of(header, record))
                    .map_err(|error| self.broken(error.into()))?;
                count += 1;
            }
            let landing = &landing[..count];
            if landing.is_empty() {
                continue;
            }
            source.recv_into(landing)?;
            let still = landing
                .iter()
                .zip(records)
                .filter(|(_, record)| is_still(record));
            still.for_each(|(slice, _)| checksum.update(slice));
        }
        if checksum.finish() != header.payload_crc {
            return Err(self.broken(self.payload_damaged()).into());
        }
        Ok(())
    }

    fn payload_damaged(&self) -> LandError {
        let what = DecodeFault::Checksum { of: "payload" };
        self.opener.damaged(DecodeError { what, offset: 0 }).into()
    }

    /// Receives a payload into a buffer, a few records at a time, and unpacks it to where it
    /// belongs. A wrong checksum is found at the end, as of raw pages.
    fn land_packed<S: FrameSource>(
        &mut self,
        header: &FrameHeader,
        source: &mut S,
    ) -> Result<(), S::Error> {
        let mut checksum = Checksum::new(self.kernels);
        let mut fault = None;
        let mut next = 0;
        while next < self.records.len() {
            let (count, payload_bytes) = self.batch_from(next);
            let Some(payload) = self.payload.get_mut(..payload_bytes) else {
                let (number, record) = (next, self.records[next]);
                self.land_long(header, number, &record, &mut checksum, source)?;
                next += 1;
                continue;
            };
            if !payload.is_empty() {
                source.recv_exact(payload)?;
                check_still(&mut checksum, &self.records[next..next + count], payload);
            }
            // Damage is to be told from records that were never right: by the checksum.
            fault = fault.or(self.place_packed(header, next, count).err());
            next += count;
        }
        if checksum.finish() != header.payload_crc {
            return Err(self.broken(self.payload_damaged()).into());
        }
        Ok(fault.map_or(Ok(()), |error| Err(self.broken(error)))?)
    }

    /// How many records from `next` on the buffer takes at once, at least one, and how many bytes
    /// of payload they have.
    fn batch_from(&self, next: usize) -> (usize, usize) {
        let (mut count, mut bytes) = (0, 0);
        for record in &self.records[next..] {
            let more = bytes + record.payload_bytes as usize;
            if count > 0 && more > self.payload.len() {
                break;
            }
            (count, bytes) = (count + 1, more);
        }
        (count, bytes)
    }

    /// Receives a record that is too long for the buffer straight to where it belongs.
    fn land_long<S: FrameSource>(
        &self,
        header: &FrameHeader,
        number: usize,
        record: &PageRecord,
        checksum: &mut Checksum,
        source: &mut S,
    ) -> Result<(), S::Error> {
        if !matches!(record.encoding, PageEncoding::Raw | PageEncoding::Live) {
            // No encoding has runs as long as that.
            let (record, fault) = (number, UnpackFault::Damaged);
            return Err(self.broken(LandError::Unpack { record, fault }).into());
        }
        let slice = checked_slice(&*self.memory, pages_of(header, record))
            .map_err(|error| self.broken(error.into()))?;
        source.recv_into(&[slice])?;
        if is_still(record) {
            checksum.update(&slice);
        }
        Ok(())
    }

    /// Places `count` records from `first` on, whose payload is in the buffer.
    fn place_packed(
        &mut self,
        header: &FrameHeader,
        first: usize,
        count: usize,
    ) -> Result<(), LandError> {
        let mut rest = &self.payload[..];
        let records = self.records.iter().enumerate().skip(first).take(count);
        for (number, record) in records {
            // The table was checked: its records' payloads add up to the frame's.
            let Some((own, behind)) = rest.split_at_checked(record.payload_bytes as usize) else {
                return Err(self.payload_damaged());
            };
            rest = behind;
            let range = pages_of(header, record);
            match record.encoding {
                PageEncoding::Zero | PageEncoding::Absent => {}
                PageEncoding::Raw | PageEncoding::Live => place(&*self.memory, range, own)?,
                _ => self
                    .unpacker
                    .unpack_to(&*self.memory, range, record.encoding, own)
                    .map_err(|error| error.in_record(number))?,
            }
        }
        Ok(())
    }

    /// Overwrites with zeros what was written before and is zero now. Pages that nothing was ever
    /// written to are not touched: they take no memory.
    fn zero_out(&self, chunk: ChunkIndex) -> Result<(), LandError> {
        let mut zeros = self.pages_with(|encoding| encoding == PageEncoding::Zero);
        if zeros.is_empty() {
            return Ok(());
        }
        zeros.intersect(&self.ledger.data(chunk));
        for record in &self.records {
            let mut own = ChunkPages::EMPTY;
            own.insert_run(record.first as u16, record.count as u16);
            own.intersect(&zeros);
            for (first, count) in own.runs() {
                place_zeros(&*self.memory, run_of(chunk, first, count))?;
            }
        }
        self.ledger.mark_zero(chunk, &zeros);
        Ok(())
    }

    /// Takes down what arrived.
    fn count(&mut self, header: &FrameHeader) -> EncodingCounts {
        let mut counts = EncodingCounts::default();
        for record in &self.records {
            self.ledger.mark_arrived(pages_of(header, record));
            counts.count(record.encoding, record.count.into());
        }
        self.frame_count += 1;
        self.pages += counts;
        counts
    }
}

/// The pages of a record: of the frame's chunk, or where it names absent pages, of all memory.
fn pages_of(header: &FrameHeader, record: &PageRecord) -> PageRange {
    let first = PageIndex::new(record.first.into());
    let start = match header.kind {
        FrameKind::Absent => first,
        _ => header
            .chunk
            .pages()
            .start()
            .saturating_add(PageCount::new(record.first.into())),
    };
    PageRange::from_start_count(start, PageCount::new(record.count.into()))
        .unwrap_or(PageRange::empty())
}

/// Whether the pages of a record are not as they lie in the payload.
fn is_packed(record: &PageRecord) -> bool {
    let as_they_are = matches!(record.encoding, PageEncoding::Raw | PageEncoding::Live);
    record.payload_bytes > 0 && !as_they_are
}

/// Whether the bytes of a record hold still while they are sent, and so have a checksum.
fn is_still(record: &PageRecord) -> bool {
    record.encoding != PageEncoding::Live
}

/// Adds what of a payload holds still to a checksum: all but live pages, which any record may be.
fn check_still(checksum: &mut Checksum, records: &[PageRecord], payload: &[u8]) {
    if records.iter().all(is_still) {
        return checksum.update_still(payload);
    }
    let mut rest = payload;
    for record in records {
        let (own, behind) = rest.split_at(rest.len().min(record.payload_bytes as usize));
        if is_still(record) {
            checksum.update_still(own);
        }
        rest = behind;
    }
}

fn is_inside(map: &MemoryMap, pages: PageRange) -> bool {
    !pages.is_empty() && map.contains_range(pages)
}
