//! What was wrong with bytes from a peer, and with a thing that was to become bytes. Whose fault it
//! is, and what follows, the session says.

use limosa_pages::MapError;

/// Bytes that are not what they should be. Whoever sent them broke the protocol, or the link
/// damaged them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}, at byte {offset}")]
pub struct DecodeError {
    /// What is wrong.
    pub what: DecodeFault,
    /// Where the wrong thing begins, in bytes from the start of what was decoded: the envelope,
    /// the message body, the frame header or the record table.
    pub offset: usize,
}

impl DecodeError {
    pub(crate) const fn new(what: DecodeFault, offset: usize) -> Self {
        Self { what, offset }
    }
}

/// Which rule the bytes break.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeFault {
    /// The bytes end inside a field.
    #[error("{missing} bytes are missing")]
    Truncated {
        /// How many bytes more the field needs.
        missing: usize,
    },
    /// Bytes are left behind the last field.
    #[error("{bytes} bytes too many")]
    Tail {
        /// How many bytes are left.
        bytes: usize,
    },
    /// The first four bytes are not those of a control message, or not those of a frame.
    #[error("not a Limosa peer: the first bytes are {found:#010x}")]
    Magic {
        /// The first four bytes, little-endian.
        found: u32,
    },
    /// The checksum of some bytes is not the one that was sent with them.
    #[error("the checksum of the {of} is wrong")]
    Checksum {
        /// Which bytes: "envelope", "body", "header", "table" or "payload".
        of: &'static str,
    },
    /// The protocol version is not one that this build speaks.
    #[error("protocol version {found} is not spoken here")]
    Version {
        /// The version.
        found: u16,
    },
    /// A field holds a number that stands for nothing.
    #[error("{found} stands for no {field}")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// The number.
        found: u64,
    },
    /// A field is outside its bounds.
    #[error("{field} is {found}, not within {min} to {max}")]
    OutOfBounds {
        /// Which field; of strings and lists, its length.
        field: &'static str,
        /// The value.
        found: u64,
        /// The smallest value allowed.
        min: u64,
        /// The largest value allowed.
        max: u64,
    },
    /// A field differs from what the fields ahead of it, or the bytes themselves, demand.
    #[error("{field} is {found} where it must be {expected}")]
    Mismatch {
        /// Which field.
        field: &'static str,
        /// The value.
        found: u64,
        /// The only value allowed.
        expected: u64,
    },
    /// A text is not UTF-8, or has control characters.
    #[error("{field} is not readable text")]
    Unreadable {
        /// Which field.
        field: &'static str,
    },
    /// The regions of the guest's memory are no memory map.
    #[error("{0}")]
    Map(MapError),
    /// A record has no page.
    #[error("record {record} has no page")]
    EmptyRecord {
        /// Which record, counted from 0.
        record: u16,
    },
    /// A record begins before the one ahead of it ends.
    #[error("record {record} begins before the record ahead of it ends")]
    RecordOutOfOrder {
        /// Which record, counted from 0.
        record: u16,
    },
    /// A record reaches beyond the chunk, or beyond the last page there can be.
    #[error("record {record} has pages beyond page {end} of its frame")]
    RecordOutOfBounds {
        /// Which record, counted from 0.
        record: u16,
        /// The page after the last one allowed.
        end: u64,
    },
    /// A record has an encoding that its kind of frame must not have.
    #[error("record {record} has an encoding that does not belong in its frame")]
    EncodingOutOfPlace {
        /// Which record, counted from 0.
        record: u16,
    },
    /// A record's payload is not as long as its pages in its encoding can be.
    #[error("record {record} has {found} bytes of payload, not within {min} to {max}")]
    RecordPayload {
        /// Which record, counted from 0.
        record: u16,
        /// The payload's length in bytes.
        found: u32,
        /// The shortest payload possible.
        min: u32,
        /// The longest payload possible.
        max: u32,
    },
}

/// A thing that cannot become bytes, because its receiver would have to refuse it. Whoever built it
/// broke the rules of this crate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A field is outside its bounds.
    #[error("{field} is {found}, not within {min} to {max}")]
    OutOfBounds {
        /// Which field; of strings and lists, its length.
        field: &'static str,
        /// The value.
        found: u64,
        /// The smallest value allowed.
        min: u64,
        /// The largest value allowed.
        max: u64,
    },
    /// A name has characters besides those of printable ASCII.
    #[error("{field} is not printable ASCII")]
    Unreadable {
        /// Which field.
        field: &'static str,
    },
}
