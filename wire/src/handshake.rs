//! The messages before anything moves: hello, offer, verdict, agreement, refusal, and the bound
//! streams. What makes an offer acceptable is not decided here.

use alloc::string::String;
use alloc::vec::Vec;

use limosa_pages::{MemoryMap, PageCount, PageIndex, PageRange, REGIONS_MAX};

use crate::codec::{Codec, Reader, Writer, numbered};
use crate::error::{DecodeError, DecodeFault, EncodeError};
use crate::id::{MigrationId, StreamSecret};
use crate::limits::{
    AGENT_BYTES_MAX, CPU_BYTES_MAX, MACHINE_BYTES_MAX, REASON_TEXT_BYTES_MAX, REASONS_MAX,
    SECTIONS_MAX, STREAMS_MAX,
};
use crate::record::EncodingSet;
use crate::state::SectionKind;
use crate::version::VersionRange;

/// The first message of each side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The versions that the sender speaks.
    pub versions: VersionRange,
    /// The migration: chosen by the source, repeated by the target.
    pub migration_id: MigrationId,
    /// The sender's software and its version, for an operator: 1 to
    /// [`AGENT_BYTES_MAX`] bytes of printable ASCII.
    pub agent: String,
}

impl Codec for Hello {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        self.versions.encode(writer)?;
        writer.put(self.migration_id.bytes());
        writer.name("agent", &self.agent, AGENT_BYTES_MAX)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            versions: VersionRange::decode(reader)?,
            migration_id: MigrationId::new(reader.array()?),
            agent: reader.name("agent", AGENT_BYTES_MAX)?,
        })
    }
}

/// What a guest needs of the host that takes it in, and what the source would like to use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The CPU that the guest sees, sealed by `limosa-compat`: at most [`CPU_BYTES_MAX`] bytes.
    pub cpu: Vec<u8>,
    /// Which pages the guest has.
    pub map: MemoryMap,
    /// How many vCPUs the guest has.
    pub vcpu_count: u16,
    /// The kinds of state that will follow: at most [`SECTIONS_MAX`].
    pub sections: Vec<SectionKind>,
    /// How many page streams the source would like: 1 to [`STREAMS_MAX`].
    pub stream_count: u16,
    /// The page encodings that the source can write.
    pub encodings: EncodingSet,
    /// The kind of guest, for instance `kvm-x86`: 1 to [`MACHINE_BYTES_MAX`] bytes of printable
    /// ASCII. A guest of one kind cannot become one of another.
    pub machine: String,
}

impl Codec for Offer {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.bytes("cpu", &self.cpu, CPU_BYTES_MAX)?;
        encode_map(&self.map, writer)?;
        writer.u16(self.vcpu_count);
        writer.list("sections", &self.sections, SECTIONS_MAX)?;
        writer.u16_within("stream count", self.stream_count, 1, STREAMS_MAX)?;
        writer.u32(self.encodings.bits());
        writer.name("machine", &self.machine, MACHINE_BYTES_MAX)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            cpu: reader.bytes("cpu", CPU_BYTES_MAX)?.into(),
            map: decode_map(reader)?,
            vcpu_count: reader.u16()?,
            sections: reader.list("sections", SECTIONS_MAX, SectionKind::BYTES_MIN)?,
            stream_count: reader.u16_within("stream count", 1, STREAMS_MAX)?,
            encodings: EncodingSet::from_bits(reader.u32()?),
            machine: reader.name("machine", MACHINE_BYTES_MAX)?,
        })
    }
}

fn encode_map(map: &MemoryMap, writer: &mut Writer) -> Result<(), EncodeError> {
    writer.count("regions", map.regions().len(), REGIONS_MAX)?;
    for region in map.regions() {
        writer.u64(region.start().get());
        writer.u64(region.count().get());
    }
    Ok(())
}

fn decode_map(reader: &mut Reader<'_>) -> Result<MemoryMap, DecodeError> {
    let offset = reader.offset();
    let count = reader.count("regions", REGIONS_MAX, 16)?;
    let mut regions = Vec::with_capacity(count);
    for _ in 0..count {
        let start = PageIndex::new(reader.u64()?);
        let field = "pages of a region";
        let (min, max) = (0, u64::MAX - start.get());
        let found = reader.u64()?;
        let region = PageRange::from_start_count(start, PageCount::new(found));
        let what = DecodeFault::OutOfBounds {
            field,
            found,
            min,
            max,
        };
        regions.push(region.ok_or_else(|| DecodeError::new(what, reader.offset() - 8))?);
    }
    MemoryMap::new(regions).map_err(|error| DecodeError::new(DecodeFault::Map(error), offset))
}

/// The target's answer to an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The guest may come.
    Accepted {
        /// How many page streams to open: 1 to what was offered.
        stream_count: u16,
        /// The page encodings to use: those of the offer that the target can read.
        encodings: EncodingSet,
        /// What each stream must show.
        secret: StreamSecret,
        /// What the target's host can give, sealed by `limosa-compat`, for the source to judge:
        /// at most [`CPU_BYTES_MAX`] bytes.
        host: Vec<u8>,
        /// The digest of the guest's processor as the target judged it.
        cpu_digest: u64,
    },
    /// The guest may not come.
    Refused {
        /// Every reason: at most [`REASONS_MAX`].
        reasons: Vec<Reason>,
    },
}

const ACCEPTED: u8 = 1;
const REFUSED: u8 = 2;

impl Codec for Verdict {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        match self {
            Self::Accepted {
                stream_count,
                encodings,
                secret,
                host,
                cpu_digest,
            } => {
                writer.u8(ACCEPTED);
                writer.u16_within("stream count", *stream_count, 1, STREAMS_MAX)?;
                writer.u32(encodings.bits());
                writer.put(secret.bytes());
                writer.bytes("host", host, CPU_BYTES_MAX)?;
                writer.u64(*cpu_digest);
                Ok(())
            }
            Self::Refused { reasons } => {
                writer.u8(REFUSED);
                writer.list("reasons", reasons, REASONS_MAX)
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        match reader.u8()? {
            ACCEPTED => Ok(Self::Accepted {
                stream_count: reader.u16_within("stream count", 1, STREAMS_MAX)?,
                encodings: EncodingSet::from_bits(reader.u32()?),
                secret: StreamSecret::new(reader.array()?),
                host: reader.bytes("host", CPU_BYTES_MAX)?.into(),
                cpu_digest: reader.u64()?,
            }),
            REFUSED => Ok(Self::Refused {
                reasons: reader.list("reasons", REASONS_MAX, Reason::BYTES_MIN)?,
            }),
            number => {
                let what = DecodeFault::Unknown {
                    field: "verdict",
                    found: number.into(),
                };
                Err(DecodeError::new(what, offset))
            }
        }
    }
}

numbered! {
    /// What a reason for a refusal is about.
    pub enum ReasonKind: u8 {
        /// The peers have no protocol version in common.
        Protocol = 1,
        /// The hosts' CPUs are of different vendors.
        Vendor = 2,
        /// The guest sees a CPU that the host cannot give it.
        Cpu = 3,
        /// The guest's memory does not fit.
        Memory = 4,
        /// The guest has state that the target cannot restore.
        State = 5,
        /// The target runs another kind of guest.
        Machine = 6,
        /// The host has no room for the guest at this time.
        Capacity = 7,
        /// The host's operator does not want it.
        Policy = 8,
    }
}

/// One reason for a refusal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// What the reason is about.
    pub kind: ReasonKind,
    /// What does not fit, for an operator: one line, of which at most [`REASON_TEXT_BYTES_MAX`]
    /// bytes are sent.
    pub what: String,
    /// What to do about it: as `what`, or nothing.
    pub remedy: String,
}

impl Reason {
    const BYTES_MIN: usize = 5;
}

impl Codec for Reason {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u8(self.kind.number());
        writer.text(&self.what, REASON_TEXT_BYTES_MAX);
        writer.text(&self.remedy, REASON_TEXT_BYTES_MAX);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let offset = reader.offset();
        let number = reader.u8()?;
        let what = DecodeFault::Unknown {
            field: "kind of reason",
            found: number.into(),
        };
        Ok(Self {
            kind: ReasonKind::from_number(number).ok_or(DecodeError::new(what, offset))?,
            what: reader.text("reason", REASON_TEXT_BYTES_MAX)?,
            remedy: reader.text("remedy", REASON_TEXT_BYTES_MAX)?,
        })
    }
}

/// The source's word that it judges the guest to fit, too, and that both speak of one processor.
/// Page streams follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// The digest of the guest's processor: as in the verdict.
    pub cpu_digest: u64,
}

impl Codec for Agreed {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u64(self.cpu_digest);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            cpu_digest: reader.u64()?,
        })
    }
}

/// The word that the guest can't live on the target: of the source instead of [`Agreed`], or of the
/// target instead of [`Prepared`](crate::Prepared), where its host has changed. It ends the
/// migration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refuse {
    /// Every reason: at most [`REASONS_MAX`].
    pub reasons: Vec<Reason>,
}

impl Codec for Refuse {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.list("reasons", &self.reasons, REASONS_MAX)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            reasons: reader.list("reasons", REASONS_MAX, Reason::BYTES_MIN)?,
        })
    }
}

/// The target's word that every page stream is open and has shown its secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamsBound {
    /// How many streams there are: as many as the verdict said.
    pub stream_count: u16,
}

impl Codec for StreamsBound {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u16_within("stream count", self.stream_count, 1, STREAMS_MAX)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            stream_count: reader.u16_within("stream count", 1, STREAMS_MAX)?,
        })
    }
}
