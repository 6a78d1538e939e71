//! The seal around what this crate sends: magic, version, length and checksum, so that only whole
//! and undamaged descriptions are opened. What is inside is for others to say.

use alloc::vec::Vec;

use limosa_wire::codec::{Reader, Writer};
use limosa_wire::{DecodeError, DecodeFault, checksum};

use crate::cpuid::TableError;
use crate::processor::PROCESSOR_BYTES_MAX;

/// Version of the layout, apart from the protocol's: an older host refuses a newer one.
const VERSION: u16 = 2;
/// Magic, version, length and checksum of the body.
const HEADER_BYTES: usize = 4 + 2 + 4 + 4;
/// Most bytes of what stands beside processors in a body: numbers and two short texts.
const REST_BYTES_MAX: usize = 512;
const BODY_BYTES_MAX: usize = 2 * PROCESSOR_BYTES_MAX + REST_BYTES_MAX;

/// Longest sealed envelope, in bytes. Follows from the limits of the tables.
pub const CPU_ENVELOPE_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX;
const _: () = assert!(
    CPU_ENVELOPE_BYTES_MAX <= limosa_wire::limits::CPU_BYTES_MAX,
    "offers and verdicts carry it"
);

/// What an envelope holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// "LMCP": a guest's processor.
    Guest,
    /// "LMHP": a host's.
    Host,
}

impl Content {
    const fn magic(self) -> u32 {
        match self {
            Self::Guest => u32::from_le_bytes(*b"LMCP"),
            Self::Host => u32::from_le_bytes(*b"LMHP"),
        }
    }
}

/// Why a sealed envelope was not opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CpuDecodeError {
    /// The bytes are not an envelope, or a damaged one.
    #[error("processor description: {0}")]
    Bytes(#[from] DecodeError),
    /// Sealed by another version of this crate.
    #[error("processor description has version {found}, this host reads version {VERSION}")]
    Version {
        /// The version found.
        found: u16,
    },
    /// A table breaks its own rules.
    #[error("processor description: {0}")]
    Table(#[from] TableError),
    /// The tables are not in the one order in which they are written.
    #[error("processor description is not sorted")]
    Unsorted,
}

pub(crate) fn seal(content: Content, body: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u32(content.magic());
    writer.u16(VERSION);
    // The tables' own limits keep the length within 32 bits.
    writer.u32(body.len() as u32);
    writer.u32(checksum(body));
    writer.put(body);
    writer.into_bytes()
}

/// The body of an envelope. Allocates nothing.
pub(crate) fn open(content: Content, bytes: &[u8]) -> Result<&[u8], CpuDecodeError> {
    let mut reader = Reader::new(bytes);
    let found = reader.u32()?;
    if found != content.magic() {
        return Err(reader.error(DecodeFault::Magic { found }).into());
    }
    let found = reader.u16()?;
    if found != VERSION {
        return Err(CpuDecodeError::Version { found });
    }
    let body_bytes = reader.u32()?;
    let expected = reader.u32()?;
    if body_bytes as usize > BODY_BYTES_MAX {
        let fault = DecodeFault::OutOfBounds {
            field: "body_bytes",
            found: body_bytes.into(),
            min: 0,
            max: BODY_BYTES_MAX as u64,
        };
        return Err(reader.error(fault).into());
    }
    let body = reader.take(body_bytes as usize)?;
    if checksum(body) != expected {
        return Err(reader.error(DecodeFault::Checksum { of: "body" }).into());
    }
    reader.finish()?;
    Ok(body)
}
