//! The processor that a guest was promised, and its sealed envelope: bytes that travel inside an
//! offer and that only this crate opens. Judges nothing.

use alloc::vec::Vec;

use limosa_wire::codec::{Reader, Writer};
use limosa_wire::{DecodeError, DecodeFault, checksum};

use crate::cpuid::{CPUID_ENTRIES_MAX, CpuidEntry, CpuidTable, TableError};
use crate::msr::{FEATURE_MSRS_MAX, MsrTable};

/// "LMCP": the first four bytes of an envelope.
const MAGIC: u32 = u32::from_le_bytes(*b"LMCP");
/// Version of the envelope's layout, apart from the protocol's: an older host refuses a newer one.
const VERSION: u16 = 1;
/// Magic, version, length and checksum of the body.
const HEADER_BYTES: usize = 4 + 2 + 4 + 4;
const ENTRY_BYTES: usize = 6 * 4;
const MSR_BYTES: usize = 4 + 8;
const BODY_BYTES_MAX: usize =
    4 + 2 + 2 + CPUID_ENTRIES_MAX * ENTRY_BYTES + 2 + FEATURE_MSRS_MAX * MSR_BYTES;

/// Longest sealed envelope, in bytes. Follows from the limits of the two tables.
pub const CPU_ENVELOPE_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX;
const _: () = assert!(
    CPU_ENVELOPE_BYTES_MAX <= 64 * 1024,
    "an offer carries 64 KiB of it at most"
);

/// What the guest sees of its processor: fixed from its first instruction, whatever host it is on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestCpu {
    /// CPUID answers, as the VMM installed them.
    pub table: CpuidTable,
    /// Feature MSRs, as the guest reads them. Needs IA32_ARCH_CAPABILITIES (0x10a) when the guest
    /// sees `arch-capabilities`; registers that the guest can't see are ignored.
    pub feature_msrs: MsrTable,
    /// Frequency of the guest's time-stamp counter in kHz; 0 for a guest that has none.
    pub tsc_khz: u32,
    /// How many virtual processors look like this.
    pub vcpu_count: u16,
}

/// Why a sealed envelope was not opened.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CpuDecodeError {
    /// The bytes are not an envelope, or a damaged one.
    #[error("processor description: {0}")]
    Bytes(#[from] DecodeError),
    /// Sealed by a newer version of this crate.
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

impl GuestCpu {
    /// Seals the description: at most [`CPU_ENVELOPE_BYTES_MAX`] bytes, the same for equal guests.
    pub fn encode(&self) -> Vec<u8> {
        let body = self.body();
        let mut writer = Writer::new();
        writer.u32(MAGIC);
        writer.u16(VERSION);
        // The tables' own limits keep the length within 32 bits, and their counts within 16.
        writer.u32(body.len() as u32);
        writer.u32(checksum(&body));
        writer.put(&body);
        writer.into_bytes()
    }

    fn body(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u32(self.tsc_khz);
        writer.u16(self.vcpu_count);
        writer.u16(self.table.entries().len() as u16);
        for entry in self.table.entries() {
            for word in [
                entry.leaf,
                entry.subleaf,
                entry.eax,
                entry.ebx,
                entry.ecx,
                entry.edx,
            ] {
                writer.u32(word);
            }
        }
        writer.u16(self.feature_msrs.values().len() as u16);
        for &(index, value) in self.feature_msrs.values() {
            writer.u32(index);
            writer.u64(value);
        }
        writer.into_bytes()
    }

    /// Opens an envelope: `decode(encode(x)) == x`, and nothing else that this host can't read in
    /// full is accepted. Allocates no more than [`CPU_ENVELOPE_BYTES_MAX`] allows.
    ///
    /// # Errors
    /// Truncated, damaged, overlong, unsorted or newer bytes; the peer that sent them is at fault.
    pub fn decode(bytes: &[u8]) -> Result<Self, CpuDecodeError> {
        let mut reader = Reader::new(bytes);
        let found = reader.u32()?;
        if found != MAGIC {
            return Err(reader.error(DecodeFault::Magic { found }).into());
        }
        let found = reader.u16()?;
        if found != VERSION {
            return Err(CpuDecodeError::Version { found });
        }
        let body_bytes = reader.u32()?;
        let expected = reader.u32()?;
        if body_bytes as usize > BODY_BYTES_MAX {
            let (field, found) = ("body_bytes", u64::from(body_bytes));
            let (min, max) = (0, BODY_BYTES_MAX as u64);
            return Err(reader
                .error(DecodeFault::OutOfBounds {
                    field,
                    found,
                    min,
                    max,
                })
                .into());
        }
        let body = reader.take(body_bytes as usize)?;
        if checksum(body) != expected {
            return Err(reader.error(DecodeFault::Checksum { of: "body" }).into());
        }
        reader.finish()?;
        Self::decode_body(body)
    }

    fn decode_body(body: &[u8]) -> Result<Self, CpuDecodeError> {
        let mut reader = Reader::new(body);
        let tsc_khz = reader.u32()?;
        let vcpu_count = reader.u16()?;
        let count = reader.count("cpuid entries", CPUID_ENTRIES_MAX, ENTRY_BYTES)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let (leaf, subleaf) = (reader.u32()?, reader.u32()?);
            let (eax, ebx, ecx, edx) = (reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?);
            entries.push(CpuidEntry {
                leaf,
                subleaf,
                eax,
                ebx,
                ecx,
                edx,
            });
        }
        let count = reader.count("feature MSRs", FEATURE_MSRS_MAX, MSR_BYTES)?;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push((reader.u32()?, reader.u64()?));
        }
        reader.finish()?;
        // Equal guests must be equal bytes, or their digests would differ.
        if !entries.is_sorted_by_key(|entry| (entry.leaf, entry.subleaf))
            || !values.is_sorted_by_key(|&(index, _)| index)
        {
            return Err(CpuDecodeError::Unsorted);
        }
        let (table, feature_msrs) = (CpuidTable::new(entries)?, MsrTable::new(values)?);
        Ok(Self {
            table,
            feature_msrs,
            tsc_khz,
            vcpu_count,
        })
    }

    /// A number by which both sides can say that they speak of the same processor.
    ///
    /// FNV-1a over the description, 64 bits: equal for equal guests on every host and in every
    /// build. It shows mistakes, not malice: whoever can send an offer can also make two collide.
    pub fn digest(&self) -> u64 {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x100_0000_01b3;
        let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        self.body().iter().fold(OFFSET, step)
    }
}
