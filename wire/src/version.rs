//! Protocol versions, and how two peers agree on one. What differs between versions is not known
//! here.

use core::fmt;

use crate::codec::{Codec, Reader, Writer};
use crate::error::{DecodeError, DecodeFault, EncodeError};

/// A version of the protocol. Both peers speak one throughout a migration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProtocolVersion(u16);

impl ProtocolVersion {
    /// The newest version that this build speaks.
    ///
    /// 2: both sides judge the guest's processor and agree on it before any page. 3: a chunk
    /// belongs to the stream that first brings a page of it.
    pub const CURRENT: Self = Self(3);

    /// The version in which every `Hello` is written, for good: peers that have not agreed on a
    /// version yet must still understand each other's offer of versions.
    pub const HELLO: Self = Self(1);

    /// The version numbered `version`.
    pub const fn new(version: u16) -> Self {
        Self(version)
    }

    /// The version's number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The versions that a peer speaks: all from the oldest to the newest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VersionRange {
    /// The oldest version spoken; not newer than the newest.
    pub oldest: ProtocolVersion,
    /// The newest version spoken.
    pub newest: ProtocolVersion,
}

impl VersionRange {
    /// The versions that this build speaks.
    pub const SUPPORTED: Self = Self {
        oldest: ProtocolVersion(3),
        newest: ProtocolVersion::CURRENT,
    };

    /// The one version of every `Hello`.
    pub(crate) const OF_HELLO: Self = Self {
        oldest: ProtocolVersion::HELLO,
        newest: ProtocolVersion::HELLO,
    };

    /// Whether `version` is spoken.
    pub const fn contains(self, version: ProtocolVersion) -> bool {
        self.oldest.0 <= version.0 && version.0 <= self.newest.0
    }

    /// The version to use between two peers: the newest that both speak; `None` where there is
    /// none.
    pub fn newest_common(self, peer: Self) -> Option<ProtocolVersion> {
        let newest = self.newest.min(peer.newest);
        (self.contains(newest) && peer.contains(newest)).then_some(newest)
    }
}

const _: () = assert!(VersionRange::SUPPORTED.contains(ProtocolVersion::CURRENT));
// What a version's messages look like is known by their version alone: a `Hello` has its own.
const _: () = assert!(!VersionRange::SUPPORTED.contains(ProtocolVersion::HELLO));

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            return write!(f, "{}", self.newest);
        }
        write!(f, "{} to {}", self.oldest, self.newest)
    }
}

impl Codec for VersionRange {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u16(self.oldest.0);
        writer.u16_within("newest version", self.newest.0, self.oldest.0, u16::MAX)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let oldest = reader.u16()?;
        let newest = reader.u16_within("newest version", oldest, u16::MAX)?;
        Ok(Self {
            oldest: ProtocolVersion(oldest),
            newest: ProtocolVersion(newest),
        })
    }
}

/// Reads a version that must be one of `spoken`.
pub(crate) fn decode_within(
    spoken: VersionRange,
    reader: &mut Reader<'_>,
) -> Result<ProtocolVersion, DecodeError> {
    let offset = reader.offset();
    let version = ProtocolVersion(reader.u16()?);
    if spoken.contains(version) {
        return Ok(version);
    }
    Err(DecodeError::new(
        DecodeFault::Version { found: version.0 },
        offset,
    ))
}
