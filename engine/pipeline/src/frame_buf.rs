//! A buffer in which frames are built and from which they are sent, without moving a byte between.
//! It knows where things lie, not what pages hold.

use std::sync::Arc;

use limosa_wire::limits::{FRAME_RECORDS_MAX, FRAME_TABLE_BYTES_MAX};
use limosa_wire::{FRAME_HEADER_BYTES, FrameHeader, PageRecord, RECORD_BYTES, encode_table};

use limosa_pages::{PAGE_BYTES, PageRange};
use limosa_wire::limits::FRAME_PAYLOAD_BYTES_MAX;
use vm_memory::VolatileSlice;

use crate::memory::GuestMemory;

/// Alignment of the first payload, in bytes: a cache line, so that no store of the lift crosses
/// one.
const PAYLOAD_ALIGNMENT: usize = 64;

/// Room ahead of the first payload: its length is known only when the last page is in, and the
/// header and table must end where the payload begins.
const FRONT_BYTES: usize = FRAME_HEADER_BYTES + FRAME_TABLE_BYTES_MAX;

/// Most bytes of pages in the guest's memory in one frame, and of such frames in one buffer: 512
/// KiB.
///
/// What is under way counts as dealt with, so a longer buffer makes progress run ahead of a slow
/// link; on loopback 1 MiB was faster by no more than 3 %.
const LIVE_BYTES_MAX: usize = 512 << 10;

/// Most runs of pages in the guest's memory that one buffer refers to: with the parts of the buffer
/// between them they fit a call's list of pieces (`UIO_MAXIOV`, 1024) with those of other buffers.
const LIVE_RUNS_MAX: usize = 128;

/// What a buffer takes at most beside the payload, in bytes.
pub(crate) const BESIDES_PAYLOAD_BYTES: usize = FRONT_BYTES
    + PAYLOAD_ALIGNMENT
    + FRAME_RECORDS_MAX as usize * size_of::<PageRecord>()
    + FRAME_TABLE_BYTES_MAX
    + LIVE_RUNS_MAX * size_of::<LiveRun>();

/// One allocation that holds whole frames, one behind the other: `header | table | payload | …`.
///
/// [`pieces`](Self::pieces) is exactly what goes on the wire. A buffer has room for one frame with
/// the largest payload, or for many small ones: the pages of chunks in which little was written
/// share a buffer, so that the link sees few and large sends. Where a corridor
/// [sends live](crate::PackConfig::sends_live), long runs of pages are not copied into the buffer:
/// it says where in the guest's memory they are.
///
/// Made by a [`BufferPool`](crate::BufferPool), filled by a [`Corridor`](crate::Corridor).
pub struct FrameBuf {
    bytes: Vec<u8>,
    /// Where the first payload of an empty buffer begins.
    payload_base: usize,
    /// The frames that are sealed.
    start: usize,
    end: usize,
    /// The payload of the frame that is being built.
    payload_at: usize,
    tail: usize,
    /// How far it may go: what is behind is for a table that turns out longer.
    tail_max: usize,
    records: Vec<PageRecord>,
    table: Vec<u8>,
    /// Runs of pages that stay in the guest's memory, in their order; those behind `live_sealed`
    /// are of the frame that is being built.
    live: Vec<LiveRun>,
    live_sealed: usize,
    /// Bytes of those runs: of the sealed frames, and of the one that is being built.
    live_sealed_bytes: usize,
    live_open_bytes: usize,
    /// Where those runs are: from the first one on, for good.
    memory: Option<Arc<dyn GuestMemory>>,
}

/// Pages that are sent when the bytes of the buffer ahead of `at` are.
struct LiveRun {
    at: usize,
    pages: PageRange,
}

/// A part of what goes on the wire.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Bytes of the buffer.
    Buffer(&'a [u8]),
    /// Pages of the guest, which may be writing them.
    Guest(VolatileSlice<'a>),
}

impl FrameBuf {
    /// A buffer for payloads of up to `payload_bytes`. Every page of it is touched here.
    pub(crate) fn new(payload_bytes: usize) -> Self {
        // Written to, so that the kernel gives the memory now and not in the first round.
        let mut bytes = vec![0; FRONT_BYTES + PAYLOAD_ALIGNMENT + payload_bytes];
        bytes
            .iter_mut()
            .step_by(PAGE_BYTES)
            .for_each(|byte| *byte = 1);
        let askew = bytes
            .as_ptr()
            .wrapping_add(FRONT_BYTES)
            .align_offset(PAYLOAD_ALIGNMENT);
        // `align_offset` may decline to answer; an unaligned payload is slower, not wrong.
        let payload_base = FRONT_BYTES + askew.min(PAYLOAD_ALIGNMENT);
        bytes.truncate(payload_base + payload_bytes);
        Self {
            bytes,
            payload_base,
            start: payload_base,
            end: payload_base,
            payload_at: payload_base,
            tail: payload_base,
            tail_max: payload_base + payload_bytes,
            records: Vec::with_capacity(FRAME_RECORDS_MAX.into()),
            table: Vec::with_capacity(FRAME_TABLE_BYTES_MAX),
            live: Vec::with_capacity(LIVE_RUNS_MAX),
            live_sealed: 0,
            live_sealed_bytes: 0,
            live_open_bytes: 0,
            memory: None,
        }
    }

    /// The sealed frames, piece by piece: what goes on the wire. The guest's pages are to be read
    /// before the buffer is cleared or dropped.
    pub fn pieces(&self) -> impl Iterator<Item = Piece<'_>> {
        let mut at = self.start;
        let runs = self.live[..self.live_sealed].iter();
        let ends = runs
            .map(Some)
            .chain(core::iter::once(None))
            .flat_map(move |run| {
                let end = run.map_or(self.end, |run| run.at);
                let ahead = Piece::Buffer(&self.bytes[at..end]);
                at = end;
                [Some(ahead), run.and_then(|run| self.guest_piece(run.pages))]
            });
        ends.flatten()
            .filter(|piece| !matches!(piece, Piece::Buffer(bytes) if bytes.is_empty()))
    }

    fn guest_piece(&self, pages: PageRange) -> Option<Piece<'_>> {
        // The same pages were handed out when they were taken in.
        let slice = self.memory.as_ref()?.slice(pages).ok()?;
        Some(Piece::Guest(slice))
    }

    /// How many bytes all [pieces](Self::pieces) have together.
    pub fn wire_bytes(&self) -> usize {
        self.bytes().len() + self.live_sealed_bytes
    }

    /// The sealed frames without the pages that stay in the guest's memory; where there are none,
    /// what goes on the wire.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether no frame is sealed in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.start = self.payload_base;
        self.end = self.payload_base;
        self.live_sealed = 0;
        self.live_sealed_bytes = 0;
        self.open_at(self.payload_base);
    }

    /// How many bytes of memory the buffer takes.
    pub fn overhead_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.records.capacity() * size_of::<PageRecord>()
            + self.table.capacity()
            + self.live.capacity() * size_of::<LiveRun>()
    }

    /// The longest payload a frame in this buffer can have, in bytes.
    pub(crate) fn payload_bytes_max(&self) -> usize {
        self.bytes.len() - self.payload_base
    }

    /// Whether a frame of so many records and bytes of payload fits behind the frames that are
    /// sealed. An empty buffer takes any frame, as far as it goes.
    pub(crate) fn has_room(&self, record_count: usize, payload_bytes: usize) -> bool {
        let frame_bytes = FRAME_HEADER_BYTES + record_count * RECORD_BYTES + payload_bytes;
        let is_light = self.live.is_empty() || self.wire_bytes() < LIVE_BYTES_MAX;
        self.is_empty() || is_light && frame_bytes <= self.bytes.len() - self.end
    }

    /// How many pages that stay in the guest's memory the frame has room for, as one more run.
    pub(crate) fn live_room(&self) -> u16 {
        if self.live.len() == LIVE_RUNS_MAX {
            return 0;
        }
        // At most `LIVE_BYTES_MAX` in pages, which is 128.
        (LIVE_BYTES_MAX.saturating_sub(self.payload_bytes()) / PAGE_BYTES) as u16
    }

    /// Adds `pages` of `memory`, which stay there, to the payload. There must be
    /// [room](Self::live_room) for them.
    pub(crate) fn push_live(&mut self, memory: &Arc<dyn GuestMemory>, pages: PageRange) {
        self.memory.get_or_insert_with(|| Arc::clone(memory));
        self.live_open_bytes += pages.count().bytes() as usize;
        self.live.push(LiveRun {
            at: self.tail,
            pages,
        });
    }

    /// How many bytes the payload of the frame that is being built has.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload().len() + self.live_open_bytes
    }

    /// Starts a frame that will have about `record_count` records, and `record_count_max` at the
    /// most. Behind sealed frames there must be [room](Self::has_room) for all of those.
    pub(crate) fn begin(&mut self, record_count: usize, record_count_max: usize) {
        if self.is_empty() {
            return self.open_at(self.payload_base);
        }
        let front = FRAME_HEADER_BYTES + record_count * RECORD_BYTES;
        self.open_at((self.end + front).min(self.bytes.len()));
        // Whatever ends up in the payload, the table can still grow ahead of it.
        let growth = record_count_max.saturating_sub(record_count) * RECORD_BYTES;
        self.tail_max = self.bytes.len().saturating_sub(growth);
    }

    fn open_at(&mut self, payload_at: usize) {
        self.payload_at = payload_at;
        self.tail = payload_at;
        self.tail_max = self.bytes.len();
        self.records.clear();
        self.live.truncate(self.live_sealed);
        self.live_open_bytes = 0;
    }

    /// The records of the frame that is being built.
    pub(crate) fn records(&self) -> &[PageRecord] {
        &self.records
    }

    /// As [`records`](Self::records), to be added to; at most [`FRAME_RECORDS_MAX`].
    pub(crate) fn records_mut(&mut self) -> &mut Vec<PageRecord> {
        &mut self.records
    }

    /// Where the payload ends now, to be named to [`payload_from_mut`](Self::payload_from_mut).
    pub(crate) fn tail(&self) -> usize {
        self.tail
    }

    /// The page behind the payload, to be written; `None` where the frame is full.
    pub(crate) fn next_page(&mut self) -> Option<&mut [u8; PAGE_BYTES]> {
        if self.payload_bytes() + PAGE_BYTES > FRAME_PAYLOAD_BYTES_MAX as usize {
            return None;
        }
        self.bytes
            .get_mut(self.tail..self.tail_max)?
            .first_chunk_mut()
    }

    /// Takes the next page into the payload.
    pub(crate) fn keep_page(&mut self) {
        self.tail = (self.tail + PAGE_BYTES).min(self.bytes.len());
    }

    /// The payload from `from` on.
    pub(crate) fn payload_from(&self, from: usize) -> &[u8] {
        &self.bytes[from.min(self.tail)..self.tail]
    }

    /// Puts `shorter` in the place of the payload from `from` on.
    pub(crate) fn replace_payload_from(&mut self, from: usize, shorter: &[u8]) {
        self.bytes[from..from + shorter.len()].copy_from_slice(shorter);
        self.tail = from + shorter.len();
    }

    /// The payload of the frame that is being built, without what stays in the guest's memory.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_at..self.tail]
    }

    /// The encoded table of the frame that is being built.
    pub(crate) fn encode_table(&mut self) -> &[u8] {
        self.table.clear();
        encode_table(&self.records, &mut self.table);
        &self.table
    }

    /// Ends the frame: `header` and the [table](Self::encode_table) go ahead of the payload. Says
    /// how many bytes the frame has.
    pub(crate) fn close(&mut self, header: &FrameHeader) -> usize {
        let front = FRAME_HEADER_BYTES + self.table.len();
        let at = if self.is_empty() {
            self.payload_at - front
        } else {
            self.end
        };
        let payload_at = at + front;
        if payload_at != self.payload_at {
            self.bytes
                .copy_within(self.payload_at..self.tail, payload_at);
            for run in &mut self.live[self.live_sealed..] {
                run.at = run.at - self.payload_at + payload_at;
            }
        }
        let mut bytes = [0; FRAME_HEADER_BYTES];
        header.encode(&mut bytes);
        self.bytes[at..at + FRAME_HEADER_BYTES].copy_from_slice(&bytes);
        self.bytes[at + FRAME_HEADER_BYTES..payload_at].copy_from_slice(&self.table);
        if self.is_empty() {
            self.start = at;
        }
        self.end = payload_at + (self.tail - self.payload_at);
        let frame_bytes = self.end - at + self.live_open_bytes;
        self.live_sealed = self.live.len();
        self.live_sealed_bytes += self.live_open_bytes;
        self.open_at(self.end);
        frame_bytes
    }

    /// Adds a frame that is complete as it is; `false` where there is no room.
    pub(crate) fn push_whole(&mut self, frame: &[u8]) -> bool {
        let Some(room) = self.bytes[self.end..].get_mut(..frame.len()) else {
            return false;
        };
        room.copy_from_slice(frame);
        self.end += frame.len();
        self.open_at(self.end);
        true
    }
}

impl core::fmt::Debug for FrameBuf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FrameBuf")
            .field("wire_bytes", &self.wire_bytes())
            .field("payload_bytes_max", &self.payload_bytes_max())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use limosa_wire::{FrameKind, MigrationId, PageEncoding, Round, StreamIndex};

    use super::*;

    const HEADER: FrameHeader = FrameHeader {
        kind: FrameKind::Pages,
        stream: StreamIndex::new(0),
        round: Round::FIRST,
        migration_id: MigrationId::new([0; 16]),
        chunk: limosa_pages::ChunkIndex::new(0),
        sequence: 0,
        record_count: 0,
        payload_bytes: 0,
        table_crc: 0,
        payload_crc: 0,
    };

    /// What was expected to stay in the guest's memory may be lifted after all, up to the last
    /// byte, and each page may turn out to need a record of its own.
    #[test]
    fn a_table_can_grow_however_full_the_frame_is() {
        let record = PageRecord {
            first: 0,
            count: 1,
            encoding: PageEncoding::Zero,
            payload_bytes: 0,
        };
        for sealed_bytes in (FRAME_HEADER_BYTES..4 * PAGE_BYTES).step_by(RECORD_BYTES) {
            for (expected, most) in [(1, 1), (2, 3), (2, 300), (1, 512)] {
                let mut buffer = FrameBuf::new(4 * PAGE_BYTES);
                assert!(buffer.push_whole(&vec![7; sealed_bytes]));
                if !buffer.has_room(most, 0) {
                    continue;
                }
                buffer.begin(expected, most);
                while buffer.next_page().is_some() {
                    buffer.keep_page();
                }
                let payload_bytes = buffer.payload_bytes();
                buffer.records_mut().resize(most, record);
                buffer.encode_table();
                let frame_bytes = buffer.close(&HEADER);
                let front_bytes = FRAME_HEADER_BYTES + most * RECORD_BYTES;
                assert_eq!(frame_bytes, front_bytes + payload_bytes);
                assert_eq!(buffer.bytes().len(), sealed_bytes + frame_bytes);
            }
        }
    }
}
