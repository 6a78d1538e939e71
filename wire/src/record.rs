//! The record table of a frame: which pages, in which encoding, in how many bytes. Whether the
//! guest has those pages is not known here.

use alloc::vec::Vec;
use core::iter::Sum;
use core::ops::{Add, AddAssign};

use limosa_pages::{CHUNK_PAGES, PAGE_BYTES, PAGE_END_MAX};

use crate::checksum::checksum;
use crate::codec::{Reader, numbered};
use crate::error::{DecodeError, DecodeFault};
use crate::frame::{FrameHeader, FrameKind};
use crate::limits::{BLOCK_PAGES_MAX, FRAME_RECORDS_MAX};

/// Size of a record, in bytes.
pub const RECORD_BYTES: usize = 16;

numbered! {
    /// How the pages of a record are written in the payload.
    pub enum PageEncoding: u8 {
        /// The guest never touched the pages: they read as zero and take no memory. No payload.
        Absent = 1,
        /// The pages are zero. No payload.
        Zero = 2,
        /// The pages' bytes.
        Raw = 3,
        /// One LZ4 block of the pages' bytes, shorter than them.
        Lz4 = 4,
        /// One word of [`CONSTANT_BYTES`] bytes, which the pages hold over and over.
        Constant = 5,
        /// One zstd frame of the pages' bytes, shorter than them.
        Zstd = 6,
        /// What of one page differs from what this stream last sent of it, ahead of the page's
        /// [`checksum`] of [`DELTA_CHECKSUM_BYTES`] bytes; shorter than the page.
        Delta = 7,
        /// The pages' bytes, sent straight out of the guest's memory while it may write them: they
        /// are not part of the payload's checksum. For links that never leave the host.
        Live = 8,
    }
}

/// Size of the payload of a [`Constant`](PageEncoding::Constant) record, in bytes.
pub const CONSTANT_BYTES: usize = 8;

/// Size of the checksum at the start of a [`Delta`](PageEncoding::Delta) record's payload, in
/// bytes.
pub const DELTA_CHECKSUM_BYTES: usize = 4;

impl PageEncoding {
    /// Most pages that a record in this encoding may have, besides the bounds of its frame.
    const fn pages_max(self) -> u32 {
        match self {
            Self::Absent | Self::Zero | Self::Raw | Self::Live | Self::Constant => u32::MAX,
            Self::Lz4 | Self::Zstd => BLOCK_PAGES_MAX,
            Self::Delta => 1,
        }
    }
}

/// Some page encodings: bit *n* for the encoding numbered *n*. Bits of encodings that this build
/// does not know are kept, and mean nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct EncodingSet(u32);

impl EncodingSet {
    /// No encoding.
    pub const EMPTY: Self = Self(0);

    /// Every encoding that this build knows.
    pub const ALL: Self = Self::of(PageEncoding::ALL);

    /// The encodings in `encodings`.
    pub const fn of(encodings: &[PageEncoding]) -> Self {
        let mut set = Self::EMPTY;
        let mut rest = encodings;
        while let [first, behind @ ..] = rest {
            set = set.with(*first);
            rest = behind;
        }
        set
    }

    /// The set with these bits.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The set's bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The set and `encoding`.
    #[must_use]
    pub const fn with(self, encoding: PageEncoding) -> Self {
        Self(self.0 | 1 << encoding.number())
    }

    /// The set but for `encoding`.
    #[must_use]
    pub const fn without(self, encoding: PageEncoding) -> Self {
        Self(self.0 & !(1 << encoding.number()))
    }

    /// Whether `encoding` is in the set.
    pub const fn contains(self, encoding: PageEncoding) -> bool {
        self.0 >> encoding.number() & 1 == 1
    }

    /// Whether every encoding of `other` is in the set.
    pub const fn is_superset(self, other: Self) -> bool {
        other.0 & !self.0 == 0
    }

    /// The encodings in both sets.
    #[must_use]
    pub const fn intersect(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there is no encoding.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// How many pages there were in each encoding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct EncodingCounts {
    /// Pages the guest never touched.
    pub absent: u64,
    /// Pages of zeros.
    pub zero: u64,
    /// Pages sent as they are.
    pub raw: u64,
    /// Pages sent in LZ4 blocks.
    pub lz4: u64,
    /// Pages sent as they are, straight out of the guest's memory.
    pub live: u64,
    /// Pages sent as the one word that they hold.
    pub constant: u64,
    /// Pages sent in zstd frames.
    pub zstd: u64,
    /// Pages of which only what had changed was sent.
    pub delta: u64,
}

impl EncodingCounts {
    /// Counts `pages` pages more in `encoding`.
    pub const fn count(&mut self, encoding: PageEncoding, pages: u64) {
        let counted = match encoding {
            PageEncoding::Absent => &mut self.absent,
            PageEncoding::Zero => &mut self.zero,
            PageEncoding::Raw => &mut self.raw,
            PageEncoding::Lz4 => &mut self.lz4,
            PageEncoding::Live => &mut self.live,
            PageEncoding::Constant => &mut self.constant,
            PageEncoding::Zstd => &mut self.zstd,
            PageEncoding::Delta => &mut self.delta,
        };
        *counted = counted.saturating_add(pages);
    }

    /// How many pages there were in `encoding`.
    pub const fn of(&self, encoding: PageEncoding) -> u64 {
        match encoding {
            PageEncoding::Absent => self.absent,
            PageEncoding::Zero => self.zero,
            PageEncoding::Raw => self.raw,
            PageEncoding::Lz4 => self.lz4,
            PageEncoding::Live => self.live,
            PageEncoding::Constant => self.constant,
            PageEncoding::Zstd => self.zstd,
            PageEncoding::Delta => self.delta,
        }
    }

    /// How many pages there were in every encoding together.
    pub fn total(&self) -> u64 {
        self.sum_of(PageEncoding::ALL)
    }

    /// How many pages took room in the payload in proportion to what they hold: those that are not
    /// absent, zero or constant.
    pub fn data(&self) -> u64 {
        use PageEncoding::{Absent, Constant, Zero};
        self.total() - self.sum_of(&[Absent, Zero, Constant])
    }

    fn sum_of(&self, encodings: &[PageEncoding]) -> u64 {
        let counts = encodings.iter().map(|encoding| self.of(*encoding));
        counts.fold(0, u64::saturating_add)
    }
}

impl Add for EncodingCounts {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl AddAssign for EncodingCounts {
    fn add_assign(&mut self, other: Self) {
        for encoding in PageEncoding::ALL {
            self.count(*encoding, other.of(*encoding));
        }
    }
}

impl Sum for EncodingCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Self::add)
    }
}

/// Some consecutive pages of a frame, in one encoding.
///
/// | bytes | field |
/// | --- | --- |
/// | 0..4 | first page |
/// | 4..8 | number of pages |
/// | 8 | encoding |
/// | 9..12 | zero |
/// | 12..16 | bytes of payload |
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageRecord {
    /// The first page: in a `Pages` frame counted from the start of the chunk, in an `Absent` frame
    /// from the start of the guest's memory.
    pub first: u32,
    /// How many pages: at least one.
    pub count: u32,
    /// How they are written.
    pub encoding: PageEncoding,
    /// How many bytes of the frame's payload are theirs, behind those of the records ahead.
    pub payload_bytes: u32,
}

impl PageRecord {
    /// The record's bytes.
    pub fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..4].copy_from_slice(&self.first.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.count.to_le_bytes());
        bytes[8] = self.encoding.number();
        bytes[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        bytes
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (first, count) = (reader.u32()?, reader.u32()?);
        let offset = reader.offset();
        let number = reader.u8()?;
        let what = DecodeFault::Unknown {
            field: "page encoding",
            found: number.into(),
        };
        let encoding = PageEncoding::from_number(number).ok_or(DecodeError::new(what, offset))?;
        let [a, b, c] = reader.array()?;
        if [a, b, c] != [0; 3] {
            let found = u32::from_le_bytes([a, b, c, 0]).into();
            let what = DecodeFault::Mismatch {
                field: "padding of a record",
                found,
                expected: 0,
            };
            return Err(DecodeError::new(what, offset + 1));
        }
        Ok(Self {
            first,
            count,
            encoding,
            payload_bytes: reader.u32()?,
        })
    }

    /// The fewest and most bytes that the payload of such a record may have.
    const fn payload_bounds(&self) -> (u32, u32) {
        let bytes = self.count.saturating_mul(PAGE_BYTES as u32);
        match self.encoding {
            PageEncoding::Absent | PageEncoding::Zero => (0, 0),
            PageEncoding::Raw | PageEncoding::Live => (bytes, bytes),
            PageEncoding::Lz4 | PageEncoding::Zstd => (1, bytes.saturating_sub(1)),
            PageEncoding::Constant => (CONSTANT_BYTES as u32, CONSTANT_BYTES as u32),
            PageEncoding::Delta => (DELTA_CHECKSUM_BYTES as u32, bytes.saturating_sub(1)),
        }
    }
}

/// Appends the record table of a frame.
pub fn encode_table(records: &[PageRecord], table: &mut Vec<u8>) {
    table.reserve(records.len() * RECORD_BYTES);
    for record in records {
        table.extend_from_slice(&record.encode());
    }
}

/// Reads the record table that follows `header` into `records`, whose contents are replaced: length
/// and checksum, then each record.
///
/// Records are in order and do not overlap; each has pages, within the chunk or below
/// [`PAGE_END_MAX`], in an encoding of its kind of frame, with a payload that such pages can have;
/// their payloads add up to the frame's. Whether the pages are the guest's is left to the receiver.
///
/// # Errors
///
/// The first of these rules that is broken. `records` then holds nothing.
///
/// # Example
///
/// ```
/// use limosa_pages::ChunkIndex;
/// use limosa_wire::{
///     FRAME_HEADER_BYTES, FrameHeader, FrameKind, MigrationId, PageEncoding, PageRecord, Round,
///     StreamIndex, checksum, decode_table, encode_table,
/// };
///
/// let (mut table, payload) = (Vec::new(), [7; 4096]);
/// let zero = PageRecord { first: 0, count: 9, encoding: PageEncoding::Zero, payload_bytes: 0 };
/// let raw = PageRecord { first: 9, count: 1, encoding: PageEncoding::Raw, payload_bytes: 4096 };
/// encode_table(&[zero, raw], &mut table);
/// let chunk = ChunkIndex::new(19);
/// let header = FrameHeader {
///     kind: FrameKind::Pages,
///     migration_id: MigrationId::new([1; 16]),
///     stream: StreamIndex::new(3),
///     round: Round::FIRST,
///     sequence: 1,
///     chunk,
///     record_count: 2,
///     payload_bytes: 4096,
///     table_crc: checksum(&table),
///     payload_crc: checksum(&payload),
/// };
/// let mut front = [0; FRAME_HEADER_BYTES];
/// header.encode(&mut front);
///
/// let received = FrameHeader::decode(&front)?;
/// let mut records = Vec::new();
/// decode_table(&received, &table, &mut records)?;
/// assert_eq!(records, [zero, raw]);
/// received.check_payload(&payload)?;
/// # Ok::<(), limosa_wire::DecodeError>(())
/// ```
pub fn decode_table(
    header: &FrameHeader,
    table: &[u8],
    records: &mut Vec<PageRecord>,
) -> Result<(), DecodeError> {
    records.clear();
    let decoded = decode_records(header, table, records);
    if decoded.is_err() {
        records.clear();
    }
    decoded
}

fn decode_records(
    header: &FrameHeader,
    table: &[u8],
    records: &mut Vec<PageRecord>,
) -> Result<(), DecodeError> {
    let (found, expected) = (table.len() as u64, header.table_bytes() as u64);
    if found != expected || header.record_count > FRAME_RECORDS_MAX {
        let what = DecodeFault::Mismatch {
            field: "length of the table",
            found,
            expected,
        };
        return Err(DecodeError::new(what, 0));
    }
    if checksum(table) != header.table_crc {
        return Err(DecodeError::new(DecodeFault::Checksum { of: "table" }, 0));
    }
    let mut reader = Reader::new(table);
    records.reserve(header.record_count.into());
    let (mut end, mut payload_bytes) = (0, 0);
    for number in 0..header.record_count {
        let offset = reader.offset();
        let record = PageRecord::decode(&mut reader)?;
        check_record(header.kind, number, &record, end)
            .map_err(|what| DecodeError::new(what, offset))?;
        end = u64::from(record.first) + u64::from(record.count);
        payload_bytes += u64::from(record.payload_bytes);
        records.push(record);
    }
    if payload_bytes != u64::from(header.payload_bytes) {
        let (found, expected) = (payload_bytes, header.payload_bytes.into());
        let what = DecodeFault::Mismatch {
            field: "payload of all records",
            found,
            expected,
        };
        return Err(reader.error(what));
    }
    reader.finish()
}

/// Checks one record, ahead of which the pages below `taken` are.
fn check_record(
    kind: FrameKind,
    number: u16,
    record: &PageRecord,
    taken: u64,
) -> Result<(), DecodeFault> {
    let belongs = match kind {
        FrameKind::Pages => record.encoding != PageEncoding::Absent,
        FrameKind::Absent => record.encoding == PageEncoding::Absent,
        FrameKind::Bind | FrameKind::Barrier => false,
    };
    if !belongs {
        return Err(DecodeFault::EncodingOutOfPlace { record: number });
    }
    if record.count == 0 {
        return Err(DecodeFault::EmptyRecord { record: number });
    }
    if u64::from(record.first) < taken {
        return Err(DecodeFault::RecordOutOfOrder { record: number });
    }
    let end = if kind == FrameKind::Pages {
        CHUNK_PAGES
    } else {
        PAGE_END_MAX.get()
    };
    if u64::from(record.first) + u64::from(record.count) > end {
        return Err(DecodeFault::RecordOutOfBounds {
            record: number,
            end,
        });
    }
    let pages_max = record.encoding.pages_max();
    if record.count > pages_max {
        let (field, found) = ("pages of a block", record.count.into());
        return Err(DecodeFault::OutOfBounds {
            field,
            found,
            min: 1,
            max: pages_max.into(),
        });
    }
    let (min, max) = record.payload_bounds();
    let found = record.payload_bytes;
    if !(min..=max).contains(&found) {
        return Err(DecodeFault::RecordPayload {
            record: number,
            found,
            min,
            max,
        });
    }
    Ok(())
}
