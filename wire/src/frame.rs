//! The header of a page frame, and the two kinds of frames without pages. The record table is
//! `record.rs`; payloads are the pipeline's.

use limosa_pages::ChunkIndex;

use crate::checksum::checksum;
use crate::codec::{Reader, numbered};
use crate::error::{DecodeError, DecodeFault};
use crate::id::{MigrationId, Round, StreamIndex, StreamSecret};
use crate::limits::{CHUNK_END_MAX, FRAME_PAYLOAD_BYTES_MAX, FRAME_RECORDS_MAX, STREAMS_MAX};
use crate::record::RECORD_BYTES;
use crate::version::{self, ProtocolVersion, VersionRange};

/// The first bytes of every frame: `LMSF`.
pub const FRAME_MAGIC: [u8; 4] = *b"LMSF";

/// Size of a frame's header, in bytes: one cache line.
pub const FRAME_HEADER_BYTES: usize = 64;

/// Where the header checksum lies; it covers the bytes ahead of it.
const HEADER_CRC_AT: usize = 60;
const _: () = assert!(HEADER_CRC_AT + 4 == FRAME_HEADER_BYTES);
const _: () = assert!(4 + 2 + 1 + 1 + 16 + 2 + 2 + 4 + 8 + 8 + 4 + 4 + 4 + 4 == FRAME_HEADER_BYTES);

numbered! {
    /// The kinds of frames, and their numbers.
    pub enum FrameKind: u8 {
        /// The first frame of a stream, which ties it to its migration: a [`Bind`].
        Bind = 1,
        /// Pages of one chunk.
        Pages = 2,
        /// Pages that the guest never touched, of any chunk; in round 0 only.
        Absent = 3,
        /// The end of a round on this stream: a [`Barrier`].
        Barrier = 4,
    }
}

/// The fixed front of a frame.
///
/// | bytes | field |
/// | --- | --- |
/// | 0..4 | magic `LMSF` |
/// | 4..6 | protocol version |
/// | 6 | kind of frame |
/// | 7 | zero |
/// | 8..24 | migration |
/// | 24..26 | stream |
/// | 26..28 | number of records |
/// | 28..32 | round |
/// | 32..40 | sequence on the stream |
/// | 40..48 | chunk |
/// | 48..52 | bytes of payload |
/// | 52..56 | checksum of the record table |
/// | 56..60 | checksum of the payload |
/// | 60..64 | checksum of all bytes ahead |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// What the frame is.
    pub kind: FrameKind,
    /// The migration it belongs to.
    pub migration_id: MigrationId,
    /// The stream it goes on: below [`STREAMS_MAX`].
    pub stream: StreamIndex,
    /// The round it belongs to; 0 in a `Bind` and in an `Absent` frame.
    pub round: Round,
    /// Counts the frames of a stream, from 0, which is the `Bind`.
    pub sequence: u64,
    /// The chunk whose pages these are; 0 but for `Pages`.
    pub chunk: ChunkIndex,
    /// How many records there are: 1 to [`FRAME_RECORDS_MAX`] in a `Pages` or `Absent` frame, else
    /// none.
    pub record_count: u16,
    /// Size of the payload: at most [`FRAME_PAYLOAD_BYTES_MAX`].
    pub payload_bytes: u32,
    /// [`checksum`] of the record table.
    pub table_crc: u32,
    /// [`checksum`] of the payload, without that of [`Live`](crate::PageEncoding::Live) records.
    pub payload_crc: u32,
}

impl FrameHeader {
    /// Size of the record table that follows the header, in bytes.
    pub const fn table_bytes(&self) -> usize {
        self.record_count as usize * RECORD_BYTES
    }

    /// Size of header, record table and payload together, in bytes.
    pub const fn frame_bytes(&self) -> usize {
        FRAME_HEADER_BYTES + self.table_bytes() + self.payload_bytes as usize
    }

    /// Writes the header's bytes.
    pub fn encode(&self, bytes: &mut [u8; FRAME_HEADER_BYTES]) {
        bytes[0..4].copy_from_slice(&FRAME_MAGIC);
        bytes[4..6].copy_from_slice(&ProtocolVersion::CURRENT.get().to_le_bytes());
        bytes[6] = self.kind.number();
        bytes[7] = 0;
        bytes[8..24].copy_from_slice(self.migration_id.bytes());
        bytes[24..26].copy_from_slice(&self.stream.get().to_le_bytes());
        bytes[26..28].copy_from_slice(&self.record_count.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.round.get().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.chunk.get().to_le_bytes());
        bytes[48..52].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.table_crc.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.payload_crc.to_le_bytes());
        let header_crc = checksum(&bytes[..HEADER_CRC_AT]);
        bytes[60..64].copy_from_slice(&header_crc.to_le_bytes());
    }

    /// Reads a header: magic and checksum first, then version and kind, then each bound.
    ///
    /// # Errors
    ///
    /// The first of them that is wrong.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.array()?;
        if magic != FRAME_MAGIC {
            let found = u32::from_le_bytes(magic);
            return Err(DecodeError::new(DecodeFault::Magic { found }, 0));
        }
        let (covered, header_crc) = bytes.split_at(HEADER_CRC_AT);
        if checksum(covered).to_le_bytes() != *header_crc {
            let what = DecodeFault::Checksum { of: "header" };
            return Err(DecodeError::new(what, HEADER_CRC_AT));
        }
        version::decode_within(VersionRange::SUPPORTED, &mut reader)?;
        let number = reader.u8()?;
        let what = DecodeFault::Unknown {
            field: "frame",
            found: number.into(),
        };
        let kind = FrameKind::from_number(number).ok_or(DecodeError::new(what, 6))?;
        must_be("flags", reader.u8()?.into(), 0, 7)?;
        let header = Self {
            kind,
            migration_id: MigrationId::new(reader.array()?),
            stream: StreamIndex::new(reader.u16_within("stream", 0, STREAMS_MAX - 1)?),
            record_count: reader.u16_within("records", 0, FRAME_RECORDS_MAX)?,
            round: Round::new(reader.u32()?),
            sequence: reader.u64()?,
            chunk: ChunkIndex::new(reader.u64()?),
            payload_bytes: reader.u32()?,
            table_crc: reader.u32()?,
            payload_crc: reader.u32()?,
        };
        header.check_kind()?;
        Ok(header)
    }

    /// Checks what a frame of its kind may have.
    fn check_kind(&self) -> Result<(), DecodeError> {
        let (records, payload) = (u64::from(self.record_count), u64::from(self.payload_bytes));
        match self.kind {
            FrameKind::Pages => {
                must_lie("records", records, 1, FRAME_RECORDS_MAX.into(), 26)?;
                must_lie("chunk", self.chunk.get(), 0, CHUNK_END_MAX - 1, 40)?;
                return must_lie("payload", payload, 0, FRAME_PAYLOAD_BYTES_MAX.into(), 48);
            }
            FrameKind::Absent => {
                must_lie("records", records, 1, FRAME_RECORDS_MAX.into(), 26)?;
                must_be("round", self.round.get().into(), 0, 28)?;
                must_be("payload", payload, 0, 48)?;
                must_be("payload checksum", self.payload_crc.into(), 0, 56)?;
            }
            FrameKind::Bind => {
                must_be("round", self.round.get().into(), 0, 28)?;
                must_be("sequence", self.sequence, 0, 32)?;
                must_be("payload", payload, Bind::BYTES as u64, 48)?;
            }
            FrameKind::Barrier => must_be("payload", payload, Barrier::BYTES as u64, 48)?,
        }
        if self.kind != FrameKind::Absent {
            must_be("records", records, 0, 26)?;
            must_be("table checksum", self.table_crc.into(), 0, 52)?;
        }
        must_be("chunk", self.chunk.get(), 0, 40)
    }

    /// Checks that a payload, of which no record is live, is the one this header speaks of.
    ///
    /// # Errors
    ///
    /// A wrong length or a wrong checksum.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), DecodeError> {
        must_be(
            "length of the payload",
            payload.len() as u64,
            self.payload_bytes.into(),
            0,
        )?;
        if checksum(payload) == self.payload_crc {
            return Ok(());
        }
        Err(DecodeError::new(DecodeFault::Checksum { of: "payload" }, 0))
    }

    fn check_is(&self, kind: FrameKind) -> Result<(), DecodeError> {
        must_be(
            "kind of frame",
            self.kind.number().into(),
            kind.number().into(),
            6,
        )
    }
}

fn must_be(
    field: &'static str,
    found: u64,
    expected: u64,
    offset: usize,
) -> Result<(), DecodeError> {
    if found == expected {
        return Ok(());
    }
    Err(DecodeError::new(
        DecodeFault::Mismatch {
            field,
            found,
            expected,
        },
        offset,
    ))
}

fn must_lie(
    field: &'static str,
    found: u64,
    min: u64,
    max: u64,
    offset: usize,
) -> Result<(), DecodeError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(DecodeError::new(
        DecodeFault::OutOfBounds {
            field,
            found,
            min,
            max,
        },
        offset,
    ))
}

/// What the first frame of a stream says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bind {
    /// The secret of the accepted verdict.
    pub secret: StreamSecret,
    /// How many streams the source opens in all: 1 to [`STREAMS_MAX`], and as many as the verdict
    /// said.
    pub stream_count: u16,
}

impl Bind {
    /// Size of the payload, in bytes.
    pub const BYTES: usize = 18;

    /// The whole frame that binds `stream`.
    pub fn frame(
        &self,
        migration_id: MigrationId,
        stream: StreamIndex,
    ) -> [u8; FRAME_HEADER_BYTES + Self::BYTES] {
        let mut payload = [0; Self::BYTES];
        payload[..16].copy_from_slice(self.secret.bytes());
        payload[16..].copy_from_slice(&self.stream_count.to_le_bytes());
        let header = without_pages(FrameKind::Bind, migration_id, stream, &payload);
        joined(&header, &payload)
    }

    /// Reads the payload of the `Bind` frame behind `header`: its checksum, then its fields.
    ///
    /// # Errors
    ///
    /// The first rule that is broken; also where `header` is of another kind of frame.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        header.check_is(FrameKind::Bind)?;
        header.check_payload(payload)?;
        let mut reader = Reader::new(payload);
        let secret = StreamSecret::new(reader.array()?);
        let stream_count = reader.u16_within("stream count", 1, STREAMS_MAX)?;
        reader.finish()?;
        must_lie(
            "stream",
            header.stream.get().into(),
            0,
            u64::from(stream_count) - 1,
            16,
        )?;
        Ok(Self {
            secret,
            stream_count,
        })
    }
}

/// What the last frame of a round on a stream says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Barrier {
    /// How many frames the round had on this stream, without this one.
    pub frame_count: u64,
}

impl Barrier {
    /// Size of the payload, in bytes.
    pub const BYTES: usize = 8;

    /// The whole frame that ends `round` on `stream`.
    pub fn frame(
        &self,
        migration_id: MigrationId,
        stream: StreamIndex,
        round: Round,
        sequence: u64,
    ) -> [u8; FRAME_HEADER_BYTES + Self::BYTES] {
        let payload = self.frame_count.to_le_bytes();
        let header = without_pages(FrameKind::Barrier, migration_id, stream, &payload);
        joined(
            &FrameHeader {
                round,
                sequence,
                ..header
            },
            &payload,
        )
    }

    /// Reads the payload of the `Barrier` frame behind `header`: its checksum, then its field.
    ///
    /// # Errors
    ///
    /// The first rule that is broken; also where `header` is of another kind of frame.
    pub fn decode(header: &FrameHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        header.check_is(FrameKind::Barrier)?;
        header.check_payload(payload)?;
        let mut reader = Reader::new(payload);
        let frame_count = reader.u64()?;
        reader.finish()?;
        Ok(Self { frame_count })
    }
}

fn without_pages(
    kind: FrameKind,
    migration_id: MigrationId,
    stream: StreamIndex,
    payload: &[u8],
) -> FrameHeader {
    FrameHeader {
        kind,
        migration_id,
        stream,
        round: Round::FIRST,
        sequence: 0,
        chunk: ChunkIndex::new(0),
        record_count: 0,
        payload_bytes: payload.len() as u32,
        table_crc: checksum(&[]),
        payload_crc: checksum(payload),
    }
}

fn joined<const N: usize>(header: &FrameHeader, payload: &[u8]) -> [u8; N] {
    let mut front = [0; FRAME_HEADER_BYTES];
    header.encode(&mut front);
    let mut bytes = [0; N];
    let (head, tail) = bytes.split_at_mut(FRAME_HEADER_BYTES);
    head.copy_from_slice(&front);
    tail.copy_from_slice(payload);
    bytes
}
