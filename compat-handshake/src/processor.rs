//! What software can ask a processor about itself: CPUID answers and feature MSRs, as one value.
//! Says nothing about what the bits mean.

use alloc::vec::Vec;

use limosa_wire::DecodeError;
use limosa_wire::codec::{Reader, Writer};

use crate::cpuid::{CPUID_ENTRIES_MAX, CpuidEntry, CpuidTable, Register, TableError};
use crate::cpuid::{UnknownVendor, Vendor};
use crate::envelope::CpuDecodeError;
use crate::msr::{self, FEATURE_MSRS_MAX, MsrTable};

const ENTRY_BYTES: usize = 6 * 4;
const MSR_BYTES: usize = 4 + 8;

/// Longest encoded processor, in bytes: both tables at their limits.
pub(crate) const PROCESSOR_BYTES_MAX: usize =
    2 + CPUID_ENTRIES_MAX * ENTRY_BYTES + 2 + FEATURE_MSRS_MAX * MSR_BYTES;

/// A processor as software sees it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Processor {
    /// CPUID answers.
    pub cpuid: CpuidTable,
    /// Feature MSRs. Needs `IA32_ARCH_CAPABILITIES` (0x10a) where CPUID shows `arch-capabilities`;
    /// registers that CPUID does not show are ignored.
    pub msrs: MsrTable,
}

impl From<CpuidTable> for Processor {
    /// A processor without feature MSRs.
    fn from(cpuid: CpuidTable) -> Self {
        let msrs = MsrTable::default();
        Self { cpuid, msrs }
    }
}

impl Processor {
    /// Who made it.
    ///
    /// # Errors
    /// As [`CpuidTable::vendor`].
    pub fn vendor(&self) -> Result<Vendor, UnknownVendor> {
        self.cpuid.vendor()
    }

    /// Whether its CPUID shows that an MSR of [`msrs`](Self::msrs) is there to be read.
    pub(crate) fn shows_msr(&self, index: u32) -> bool {
        let bit = |leaf, register, bit: u32| self.cpuid.register(leaf, 0, register) >> bit & 1 == 1;
        match index {
            msr::ARCH_CAPABILITIES => bit(7, Register::Edx, 29),
            msr::CORE_CAPABILITIES => bit(7, Register::Edx, 30),
            msr::PERF_CAPABILITIES => bit(1, Register::Ecx, 15),
            index if msr::VMX_CAPABILITIES.contains(&index) => bit(1, Register::Ecx, 5),
            _ => true,
        }
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        // The tables' own limits keep both counts within 16 bits.
        writer.u16(self.cpuid.entries().len() as u16);
        for entry in self.cpuid.entries() {
            let (key, answer) = ([entry.leaf, entry.subleaf], Register::ALL);
            key.into_iter().for_each(|word| writer.u32(word));
            let words = answer.map(|register| entry.register(register));
            words.into_iter().for_each(|word| writer.u32(word));
        }
        writer.u16(self.msrs.values().len() as u16);
        for &(index, value) in self.msrs.values() {
            writer.u32(index);
            writer.u64(value);
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, CpuDecodeError> {
        let entries = decode_entries(reader)?;
        let count = reader.count("feature MSRs", FEATURE_MSRS_MAX, MSR_BYTES)?;
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push((reader.u32()?, reader.u64()?));
        }
        // Equal processors must be equal bytes, or their digests would differ.
        if !entries.is_sorted_by_key(|entry| (entry.leaf, entry.subleaf))
            || !values.is_sorted_by_key(|&(index, _)| index)
        {
            return Err(CpuDecodeError::Unsorted);
        }
        let table = |error: TableError| CpuDecodeError::Table(error);
        Ok(Self {
            cpuid: CpuidTable::new(entries).map_err(table)?,
            msrs: MsrTable::new(values).map_err(table)?,
        })
    }
}

fn decode_entries(reader: &mut Reader<'_>) -> Result<Vec<CpuidEntry>, DecodeError> {
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
    Ok(entries)
}
