//! The guest's state besides its memory, as sealed sections. What is inside a section only the
//! machine that wrote it knows.

use alloc::string::String;
use alloc::vec::Vec;

use crate::codec::{Codec, Reader, Writer};
use crate::error::{DecodeError, DecodeFault, EncodeError};
use crate::limits::{SECTION_BYTES_MAX, SECTION_NAME_BYTES_MAX, SECTIONS_MAX, STATE_BYTES_MAX};

/// A kind of state: what a section's bytes are, and in which layout.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SectionKind {
    /// What the state is of: 1 to [`SECTION_NAME_BYTES_MAX`] bytes of printable ASCII.
    pub name: String,
    /// The layout of its bytes.
    pub version: u16,
}

impl SectionKind {
    pub(crate) const BYTES_MIN: usize = 2 + 1 + 2;
}

impl Codec for SectionKind {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.name("section name", &self.name, SECTION_NAME_BYTES_MAX)?;
        writer.u16(self.version);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: reader.name("section name", SECTION_NAME_BYTES_MAX)?,
            version: reader.u16()?,
        })
    }
}

/// One part of the guest's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StateSection {
    /// What the bytes are.
    pub kind: SectionKind,
    /// The state: at most [`SECTION_BYTES_MAX`] bytes.
    pub bytes: Vec<u8>,
}

impl StateSection {
    const BYTES_MIN: usize = SectionKind::BYTES_MIN + 4;
}

impl Codec for StateSection {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        self.kind.encode(writer)?;
        writer.bytes("section", &self.bytes, SECTION_BYTES_MAX)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind: SectionKind::decode(reader)?,
            bytes: reader.bytes("section", SECTION_BYTES_MAX)?.into(),
        })
    }
}

/// Everything that the guest is besides its memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// The digest of the guest's processor, to which the state belongs.
    pub cpu_digest: u64,
    /// The parts: at most [`SECTIONS_MAX`], and at most [`STATE_BYTES_MAX`] bytes together.
    pub sections: Vec<StateSection>,
}

impl State {
    fn section_bytes(&self) -> u64 {
        self.sections
            .iter()
            .map(|section| section.bytes.len() as u64)
            .sum()
    }
}

impl Codec for State {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        let (field, found, max) = ("state", self.section_bytes(), STATE_BYTES_MAX as u64);
        if found > max {
            return Err(EncodeError::OutOfBounds {
                field,
                found,
                min: 0,
                max,
            });
        }
        writer.u64(self.cpu_digest);
        writer.list("sections", &self.sections, SECTIONS_MAX)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let cpu_digest = reader.u64()?;
        let offset = reader.offset();
        let sections = reader.list("sections", SECTIONS_MAX, StateSection::BYTES_MIN)?;
        let state = Self {
            cpu_digest,
            sections,
        };
        let (field, found, max) = ("state", state.section_bytes(), STATE_BYTES_MAX as u64);
        if found > max {
            let what = DecodeFault::OutOfBounds {
                field,
                found,
                min: 0,
                max,
            };
            return Err(DecodeError::new(what, offset));
        }
        Ok(state)
    }
}
