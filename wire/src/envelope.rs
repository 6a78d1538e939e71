//! The fixed front of every control message: what follows, how much of it, and both checksums. It
//! says nothing about what a body means.

use crate::checksum::checksum;
use crate::codec::{Reader, numbered};
use crate::error::{DecodeError, DecodeFault};
use crate::limits::{
    OFFER_BODY_BYTES_MAX, REFUSE_BODY_BYTES_MAX, SMALL_BODY_BYTES_MAX, STATE_BODY_BYTES_MAX,
    VERDICT_BODY_BYTES_MAX,
};
use crate::version::{self, ProtocolVersion, VersionRange};

/// The first bytes of every control message: `LMSC`.
pub const CONTROL_MAGIC: [u8; 4] = *b"LMSC";

/// Size of an envelope, in bytes.
pub const ENVELOPE_BYTES: usize = 20;

/// Where the header checksum lies; it covers the bytes around it.
const HEADER_CRC_AT: usize = 12;

numbered! {
    /// The kinds of control messages, and their numbers.
    pub enum MessageKind: u16 {
        /// [`Hello`](crate::Hello).
        Hello = 1,
        /// [`Offer`](crate::Offer).
        Offer = 2,
        /// [`Verdict`](crate::Verdict).
        Verdict = 3,
        /// [`StreamsBound`](crate::StreamsBound).
        StreamsBound = 4,
        /// [`RoundStart`](crate::RoundStart).
        RoundStart = 5,
        /// [`RoundEnd`](crate::RoundEnd).
        RoundEnd = 6,
        /// [`RoundLanded`](crate::RoundLanded).
        RoundLanded = 7,
        /// [`State`](crate::State).
        State = 8,
        /// [`Prepared`](crate::Prepared).
        Prepared = 9,
        /// [`HandOver`](crate::HandOver).
        HandOver = 10,
        /// [`Running`](crate::Running).
        Running = 11,
        /// [`Abort`](crate::Abort).
        Abort = 12,
        /// [`KeepAlive`](crate::KeepAlive).
        KeepAlive = 13,
        /// [`Agreed`](crate::Agreed).
        Agreed = 14,
        /// [`Refuse`](crate::Refuse).
        Refuse = 15,
    }
}

impl MessageKind {
    /// The versions in which such a message is read here.
    pub(crate) const fn spoken(self) -> VersionRange {
        match self {
            Self::Hello => VersionRange::OF_HELLO,
            _ => VersionRange::SUPPORTED,
        }
    }

    /// Most bytes that the body of such a message may have.
    pub const fn body_bytes_max(self) -> usize {
        match self {
            Self::Offer => OFFER_BODY_BYTES_MAX,
            Self::Verdict => VERDICT_BODY_BYTES_MAX,
            Self::Refuse => REFUSE_BODY_BYTES_MAX,
            Self::State => STATE_BODY_BYTES_MAX,
            Self::StreamsBound => 2,
            Self::RoundStart => 5,
            Self::RoundLanded => 12,
            Self::KeepAlive | Self::Agreed | Self::Prepared => 8,
            Self::HandOver | Self::Running => 0,
            Self::Hello | Self::RoundEnd | Self::Abort => SMALL_BODY_BYTES_MAX,
        }
    }
}

/// The fixed front of a control message.
///
/// | bytes | field |
/// | --- | --- |
/// | 0..4 | magic `LMSC` |
/// | 4..6 | protocol version |
/// | 6..8 | kind of message |
/// | 8..12 | bytes of the body |
/// | 12..16 | checksum of all other bytes of the envelope |
/// | 16..20 | checksum of the body |
///
/// A receiver reads [`ENVELOPE_BYTES`], decodes them, and only then makes room for
/// [`body_bytes`](Self::body_bytes), which by then are within the bound of their kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The version in which the body is written.
    pub version: ProtocolVersion,
    /// Which message the body is.
    pub kind: MessageKind,
    /// Size of the body; at most the kind's [`body_bytes_max`](MessageKind::body_bytes_max).
    pub body_bytes: u32,
    /// [`checksum`] of the body.
    pub body_crc: u32,
}

impl Envelope {
    /// The envelope's bytes.
    pub fn encode(&self) -> [u8; ENVELOPE_BYTES] {
        let mut bytes = [0; ENVELOPE_BYTES];
        bytes[0..4].copy_from_slice(&CONTROL_MAGIC);
        bytes[4..6].copy_from_slice(&self.version.get().to_le_bytes());
        bytes[6..8].copy_from_slice(&self.kind.number().to_le_bytes());
        bytes[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.body_crc.to_le_bytes());
        let header_crc = header_checksum(&bytes);
        bytes[12..16].copy_from_slice(&header_crc.to_le_bytes());
        bytes
    }

    /// Reads an envelope: magic, checksum, version, kind, and the bound of the kind, in this order.
    ///
    /// # Errors
    ///
    /// The first of them that is wrong.
    pub fn decode(bytes: &[u8; ENVELOPE_BYTES]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.array()?;
        if magic != CONTROL_MAGIC {
            let found = u32::from_le_bytes(magic);
            return Err(DecodeError::new(DecodeFault::Magic { found }, 0));
        }
        let mut fields = Reader::new(bytes);
        fields.take(HEADER_CRC_AT)?;
        if fields.u32()? != header_checksum(bytes) {
            let what = DecodeFault::Checksum { of: "envelope" };
            return Err(DecodeError::new(what, HEADER_CRC_AT));
        }
        let body_crc = fields.u32()?;
        let number = u16::from_le_bytes([bytes[6], bytes[7]]);
        let kind = MessageKind::from_number(number);
        // What other versions call by an unknown number is refused for its version.
        let spoken = kind.map_or(VersionRange::SUPPORTED, MessageKind::spoken);
        let version = version::decode_within(spoken, &mut reader)?;
        reader.take(2)?;
        let Some(kind) = kind else {
            let what = DecodeFault::Unknown {
                field: "message",
                found: number.into(),
            };
            return Err(DecodeError::new(what, 6));
        };
        let body_bytes = reader.u32()?;
        let max = kind.body_bytes_max() as u64;
        if u64::from(body_bytes) > max {
            let (field, found) = ("body", body_bytes.into());
            return Err(DecodeError::new(
                DecodeFault::OutOfBounds {
                    field,
                    found,
                    min: 0,
                    max,
                },
                8,
            ));
        }
        Ok(Self {
            version,
            kind,
            body_bytes,
            body_crc,
        })
    }
}

fn header_checksum(bytes: &[u8; ENVELOPE_BYTES]) -> u32 {
    let mut covered = [0; ENVELOPE_BYTES - 4];
    covered[..HEADER_CRC_AT].copy_from_slice(&bytes[..HEADER_CRC_AT]);
    covered[HEADER_CRC_AT..].copy_from_slice(&bytes[HEADER_CRC_AT + 4..]);
    checksum(&covered)
}
