//! CPUID answers as a table that can't be wrong in form: sorted, bounded, without duplicates.
//! Says nothing about what the bits mean.

use alloc::vec::Vec;
use core::fmt;

/// Most entries of one [`CpuidTable`], in (leaf, subleaf) pairs.
///
/// KVM itself takes at most 256 (`KVM_MAX_CPUID_ENTRIES`), so a longer table can't be a guest's.
pub const CPUID_ENTRIES_MAX: usize = 256;

/// One of the four registers in which CPUID answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Register {
    /// EAX.
    Eax,
    /// EBX.
    Ebx,
    /// ECX.
    Ecx,
    /// EDX.
    Edx,
}

impl Register {
    /// All four, in the order of the processor's manual.
    pub const ALL: [Self; 4] = [Self::Eax, Self::Ebx, Self::Ecx, Self::Edx];
}

impl fmt::Display for Register {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Eax => "eax",
            Self::Ebx => "ebx",
            Self::Ecx => "ecx",
            Self::Edx => "edx",
        })
    }
}

/// The answer to one CPUID question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CpuidEntry {
    /// What was asked in EAX.
    pub leaf: u32,
    /// What was asked in ECX; 0 where the leaf has no subleaves.
    pub subleaf: u32,
    /// Answer in EAX.
    pub eax: u32,
    /// Answer in EBX.
    pub ebx: u32,
    /// Answer in ECX.
    pub ecx: u32,
    /// Answer in EDX.
    pub edx: u32,
}

impl CpuidEntry {
    /// The answer in `register`.
    pub fn register(&self, register: Register) -> u32 {
        match register {
            Register::Eax => self.eax,
            Register::Ebx => self.ebx,
            Register::Ecx => self.ecx,
            Register::Edx => self.edx,
        }
    }

    /// The answer in `register`, to be changed.
    pub fn register_mut(&mut self, register: Register) -> &mut u32 {
        match register {
            Register::Eax => &mut self.eax,
            Register::Ebx => &mut self.ebx,
            Register::Ecx => &mut self.ecx,
            Register::Edx => &mut self.edx,
        }
    }

    fn key(&self) -> (u32, u32) {
        (self.leaf, self.subleaf)
    }
}

/// Why a table of answers or registers was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError {
    /// More entries than the limit of the table.
    #[error("{count} entries are more than the {max} that a table may hold")]
    TooMany {
        /// Entries that were offered.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// One CPUID question is answered twice.
    #[error("CPUID leaf {leaf:#x}.{subleaf:#x} is answered twice")]
    DuplicateLeaf {
        /// The leaf.
        leaf: u32,
        /// The subleaf.
        subleaf: u32,
    },
    /// One model-specific register has two values.
    #[error("MSR {index:#x} is listed twice")]
    DuplicateMsr {
        /// The register's number.
        index: u32,
    },
}

/// All CPUID answers of one virtual processor, sorted by leaf and subleaf.
///
/// At most [`CPUID_ENTRIES_MAX`] entries, each question at most once. A question without an entry
/// reads as zero in all four registers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CpuidTable {
    entries: Vec<CpuidEntry>,
}

impl CpuidTable {
    /// Takes the answers in any order.
    ///
    /// # Errors
    /// When there are too many, or one question is answered twice.
    pub fn new(mut entries: Vec<CpuidEntry>) -> Result<Self, TableError> {
        if entries.len() > CPUID_ENTRIES_MAX {
            return Err(TableError::TooMany {
                count: entries.len(),
                max: CPUID_ENTRIES_MAX,
            });
        }
        entries.sort_unstable_by_key(CpuidEntry::key);
        let twice = entries
            .iter()
            .zip(entries.iter().skip(1))
            .find(|(a, b)| a.key() == b.key());
        match twice {
            Some((entry, _)) => Err(TableError::DuplicateLeaf {
                leaf: entry.leaf,
                subleaf: entry.subleaf,
            }),
            None => Ok(Self { entries }),
        }
    }

    /// The answers, sorted by leaf and subleaf.
    pub fn entries(&self) -> &[CpuidEntry] {
        &self.entries
    }

    /// The answer to one question, if the table has one.
    pub fn find(&self, leaf: u32, subleaf: u32) -> Option<&CpuidEntry> {
        let found = self
            .entries
            .binary_search_by_key(&(leaf, subleaf), CpuidEntry::key)
            .ok()?;
        self.entries.get(found)
    }

    /// One register of one answer; 0 when the table has no such entry.
    pub fn register(&self, leaf: u32, subleaf: u32, register: Register) -> u32 {
        self.find(leaf, subleaf)
            .map_or(0, |entry| entry.register(register))
    }

    /// Every question that this table or another has an answer to, sorted.
    pub(crate) fn questions_with(&self, other: &Self) -> Vec<(u32, u32)> {
        let both = self.entries.iter().chain(&other.entries);
        let mut questions: Vec<_> = both.map(CpuidEntry::key).collect();
        questions.sort_unstable();
        questions.dedup();
        questions
    }

    /// Whether software that asks for the highest leaf first ever asks for this one.
    pub(crate) fn reaches(&self, leaf: u32) -> bool {
        let range = leaf & 0xc000_0000;
        let highest = self.register(range, 0, Register::Eax);
        // Old kernels leave the hypervisor's highest leaf at 0 and mean 0x40000001.
        let highest = match (range, highest) {
            (0x4000_0000, 0) => 0x4000_0001,
            _ => highest,
        };
        leaf == range || leaf <= highest
    }

    /// Whether software learns anything by this question: not beyond the highest leaf or subleaf,
    /// and not about performance counters (0xa) that are not there.
    pub(crate) fn tells(&self, leaf: u32, subleaf: u32) -> bool {
        let asked = match leaf {
            0x7 => subleaf <= self.register(leaf, 0, Register::Eax),
            0xa => self.register(leaf, 0, Register::Eax) & 0xff != 0,
            _ => true,
        };
        asked && self.reaches(leaf)
    }

    /// Changes an answer; makes it first, of zeros, where there is none and there is room.
    pub(crate) fn change(&mut self, leaf: u32, subleaf: u32, change: impl FnOnce(&mut CpuidEntry)) {
        let found = self
            .entries
            .binary_search_by_key(&(leaf, subleaf), CpuidEntry::key);
        if let Err(place) = found
            && self.entries.len() < CPUID_ENTRIES_MAX
        {
            let entry = CpuidEntry {
                leaf,
                subleaf,
                ..CpuidEntry::default()
            };
            self.entries.insert(place, entry);
        }
        let (Ok(place) | Err(place)) = found;
        let entry = self.entries.get_mut(place);
        if let Some(entry) = entry.filter(|entry| entry.key() == (leaf, subleaf)) {
            change(entry);
        }
    }

    /// Keeps the answers that `keep` says yes to; their questions must stay as they are.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&CpuidEntry) -> bool) {
        self.entries.retain(keep);
    }

    /// Who made the processor that the table describes, from leaf 0.
    ///
    /// # Errors
    /// When the string is not one of the three that the rules were written for. There is silicon
    /// that calls itself `GenuineIotel`: it is unknown too, and never guessed.
    pub fn vendor(&self) -> Result<Vendor, UnknownVendor> {
        let leaf = self.find(0, 0).copied().unwrap_or_default();
        let mut name = [0_u8; 12];
        let words = [leaf.ebx, leaf.edx, leaf.ecx];
        for (part, word) in name.chunks_exact_mut(4).zip(words) {
            part.copy_from_slice(&word.to_le_bytes());
        }
        match &name {
            b"GenuineIntel" => Ok(Vendor::Intel),
            b"AuthenticAMD" => Ok(Vendor::Amd),
            b"HygonGenuine" => Ok(Vendor::Hygon),
            _ => Err(UnknownVendor(name)),
        }
    }
}

/// Makers of processors between whose products the rules can judge. A guest never crosses vendors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Vendor {
    /// `GenuineIntel`.
    Intel,
    /// `AuthenticAMD`.
    Amd,
    /// `HygonGenuine`: its features resemble AMD's, its errata and encryption do not.
    Hygon,
}

impl Vendor {
    /// The twelve letters of leaf 0.
    pub fn name(self) -> &'static str {
        match self {
            Self::Intel => "GenuineIntel",
            Self::Amd => "AuthenticAMD",
            Self::Hygon => "HygonGenuine",
        }
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A vendor string that no rule was written for, as it stands in leaf 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct UnknownVendor(pub [u8; 12]);

impl fmt::Display for UnknownVendor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "unknown vendor \"{}\"", self.0.escape_ascii())
    }
}

impl core::error::Error for UnknownVendor {}
