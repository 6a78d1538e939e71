//! Seal: pages and records to a checked frame of one stream. Open: back, with every rule that makes
//! a frame the next one of its stream. The pages themselves are `pack.rs`.

use limosa_pages::ChunkIndex;
use limosa_wire::{
    Barrier, DecodeError, FRAME_HEADER_BYTES, FrameHeader, FrameKind, MigrationId, PageRecord,
    Round, StreamIndex, checksum, decode_table,
};

use crate::frame_buf::FrameBuf;

/// Numbers and seals the frames of one stream. Its `Bind` frame, numbered 0, is sent by whoever
/// opens the stream.
#[derive(Debug)]
pub(crate) struct Sealer {
    migration_id: MigrationId,
    stream: StreamIndex,
    sequence: u64,
}

impl Sealer {
    pub(crate) fn new(migration_id: MigrationId, stream: StreamIndex) -> Self {
        Self {
            migration_id,
            stream,
            sequence: 1,
        }
    }

    pub(crate) fn stream(&self) -> StreamIndex {
        self.stream
    }

    /// Adds the frame that ends a round of `frame_count` frames; `false` where the buffer has no
    /// room.
    pub(crate) fn barrier(
        &mut self,
        round: Round,
        frame_count: u64,
        buffer: &mut FrameBuf,
    ) -> bool {
        let barrier = Barrier { frame_count };
        let frame = barrier.frame(self.migration_id, self.stream, round, self.sequence);
        self.push(&frame, buffer)
    }

    fn push(&mut self, frame: &[u8], buffer: &mut FrameBuf) -> bool {
        let pushed = buffer.push_whole(frame);
        self.sequence += u64::from(pushed);
        pushed
    }

    /// Seals the frame that is being built, with pages of `chunk`. Says how many bytes it has.
    pub(crate) fn pages(
        &mut self,
        round: Round,
        chunk: ChunkIndex,
        buffer: &mut FrameBuf,
    ) -> usize {
        self.close(FrameKind::Pages, round, chunk, buffer)
    }

    /// Seals the frame that is being built, with records of absent pages.
    pub(crate) fn absent(&mut self, buffer: &mut FrameBuf) -> usize {
        self.close(FrameKind::Absent, Round::FIRST, ChunkIndex::new(0), buffer)
    }

    fn close(
        &mut self,
        kind: FrameKind,
        round: Round,
        chunk: ChunkIndex,
        buffer: &mut FrameBuf,
    ) -> usize {
        let header = FrameHeader {
            kind,
            migration_id: self.migration_id,
            stream: self.stream,
            round,
            sequence: self.sequence,
            chunk,
            record_count: buffer.records().len() as u16,
            payload_bytes: buffer.payload_bytes() as u32,
            // Over the staged copy, which nobody writes, and not over what stays in the guest's
            // memory: a page that the guest is writing is never a false alarm.
            payload_crc: checksum(buffer.payload()),
            table_crc: checksum(buffer.encode_table()),
        };
        self.sequence += 1;
        buffer.close(&header)
    }
}

/// Why a frame is not the next one of its stream. Each is the peer's deed, or damage on the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Header, table or payload break a rule of the wire.
    #[error("a frame of stream {stream} is damaged: {fault}")]
    Damaged {
        /// The stream it came on.
        stream: StreamIndex,
        /// Which rule.
        fault: DecodeError,
    },
    /// The frame belongs to another migration.
    #[error("a frame of migration {found} came on stream {stream}")]
    Stranger {
        /// The stream it came on.
        stream: StreamIndex,
        /// The migration it names.
        found: MigrationId,
    },
    /// The frame belongs to another stream.
    #[error("a frame of stream {found} came on stream {stream}")]
    WrongStream {
        /// The stream it came on.
        stream: StreamIndex,
        /// The stream it names.
        found: StreamIndex,
    },
    /// A frame was skipped, repeated or overtaken.
    #[error("frame {found} came on stream {stream} where frame {expected} was next")]
    SequenceGap {
        /// The stream it came on.
        stream: StreamIndex,
        /// The frame that was next.
        expected: u64,
        /// The frame that came.
        found: u64,
    },
    /// The frame belongs to another round than the one that is open.
    #[error("a frame of round {found} came on stream {stream} in round {expected}")]
    WrongRound {
        /// The stream it came on.
        stream: StreamIndex,
        /// The round that is open.
        expected: Round,
        /// The round it names.
        found: Round,
    },
    /// A stream is bound once, before its streams' frames are opened here.
    #[error("stream {stream} was bound twice")]
    BoundTwice {
        /// The stream it came on.
        stream: StreamIndex,
    },
}

/// Opens the frames of one stream in their order. The stream's `Bind` frame, numbered 0, has been
/// opened by whoever let the stream in.
#[derive(Debug)]
pub(crate) struct Opener {
    migration_id: MigrationId,
    stream: StreamIndex,
    sequence: u64,
}

impl Opener {
    pub(crate) fn new(migration_id: MigrationId, stream: StreamIndex) -> Self {
        Self {
            migration_id,
            stream,
            sequence: 1,
        }
    }

    /// Reads the next header: checksum and limits, then whether it is the next of this stream and
    /// of `round`.
    pub(crate) fn header(
        &mut self,
        bytes: &[u8; FRAME_HEADER_BYTES],
        round: Round,
    ) -> Result<FrameHeader, OpenError> {
        let stream = self.stream;
        let header = FrameHeader::decode(bytes).map_err(|fault| self.damaged(fault))?;
        if header.migration_id != self.migration_id {
            let found = header.migration_id;
            return Err(OpenError::Stranger { stream, found });
        }
        if header.stream != stream {
            let found = header.stream;
            return Err(OpenError::WrongStream { stream, found });
        }
        if header.kind == FrameKind::Bind {
            return Err(OpenError::BoundTwice { stream });
        }
        if header.sequence != self.sequence {
            return Err(OpenError::SequenceGap {
                stream,
                expected: self.sequence,
                found: header.sequence,
            });
        }
        if header.round != round {
            return Err(OpenError::WrongRound {
                stream,
                expected: round,
                found: header.round,
            });
        }
        self.sequence += 1;
        Ok(header)
    }

    /// Reads the record table behind `header`.
    pub(crate) fn table(
        &self,
        header: &FrameHeader,
        table: &[u8],
        records: &mut Vec<PageRecord>,
    ) -> Result<(), OpenError> {
        decode_table(header, table, records).map_err(|fault| self.damaged(fault))
    }

    /// Reads the end of a round.
    pub(crate) fn barrier(
        &self,
        header: &FrameHeader,
        payload: &[u8],
    ) -> Result<Barrier, OpenError> {
        Barrier::decode(header, payload).map_err(|fault| self.damaged(fault))
    }

    /// Names this stream as the one on which `fault` was found.
    pub(crate) fn damaged(&self, fault: DecodeError) -> OpenError {
        OpenError::Damaged {
            stream: self.stream,
            fault,
        }
    }
}
