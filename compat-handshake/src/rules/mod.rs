//! The one table of what a processor can tell software: where each field stands, what it is
//! called, how it is compared and where that is written. It compares nothing itself.
//!
//! A field is one row; rows of one register make a [`Word`]. Names are spelled as QEMU and Linux
//! spell them. What has no row is unknown, and unknown fails closed: a guest that sees such a bit
//! needs a host that shows it too, and no baseline has it.

mod basic;
mod extended;
mod hypervisor;
mod leaf_7;
mod msrs;
mod state;

use core::fmt;

use crate::cpuid::Register;

/// How a field of the guest (G) is compared with the same field of the host (H), and what a pool of
/// hosts has of it in common.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// The guest relies on it: each bit of G needs its bit of H. Common: AND.
    Feature,
    /// The bit states a lack. Common: OR, because hardware can't hide it but a guest can be told.
    Inverse(Inverse),
    /// A number of which less is enough: G ≤ H. Common: the least.
    NumericMin,
    /// A number that is relied on as it is: G = H, unless G is 0. Common: dropped where it differs.
    NumericEqual,
    /// Mirrors the guest's own registers, such as CR4. Never compared.
    Dynamic,
    /// The virtual machine's own, for its life: model, topology, caches. Never compared.
    Synthesized,
    /// Says something about the host alone. Never compared; no baseline has it.
    Ignored,
}

/// The two sorts of [`Kind::Inverse`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Inverse {
    /// The processor behaves otherwise where it is 1: a guest that saw 0 must not meet 1.
    Behaviour,
    /// The guest is to do something about a leak, and the host makes that work. A guest that saw 1
    /// may lose it only where there is nothing to leak.
    Mitigation,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Feature => "feature",
            Self::Inverse(_) => "inverse",
            Self::NumericMin => "numeric minimum",
            Self::NumericEqual => "numeric equal",
            Self::Dynamic => "dynamic",
            Self::Synthesized => "synthesized",
            Self::Ignored => "ignored",
        })
    }
}

/// Where a row's meaning is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// Intel's Software Developer's Manual.
    Sdm,
    /// AMD's Architecture Programmer's Manual.
    Apm,
    /// Linux, Documentation/virt/kvm.
    Kvm,
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Sdm => "Intel SDM",
            Self::Apm => "AMD APM",
            Self::Kvm => "Linux, Documentation/virt/kvm",
        })
    }
}

/// One row: a field of a register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Lowest bit, 0 to 31 (63 of an MSR).
    pub low: u8,
    /// How many bits, 1 to 32 (64 of an MSR).
    pub bits: u8,
    /// Its usual name.
    pub name: &'static str,
    /// How it is compared.
    pub kind: Kind,
}

impl Field {
    /// The field's bits in its register.
    pub const fn mask(&self) -> u64 {
        (u64::MAX >> (64 - self.bits as u32)) << self.low
    }

    /// The field as a number.
    pub const fn of(&self, register: u64) -> u64 {
        (register & self.mask()) >> self.low
    }
}

/// Which registers a [`Word`] is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Registers {
    /// Answers of CPUID.
    Cpuid {
        /// First and last leaf.
        leaves: (u32, u32),
        /// First and last subleaf.
        subleaves: (u32, u32),
        /// Which of the four.
        registers: &'static [Register],
    },
    /// First and last number of model-specific registers.
    Msr(u32, u32),
}

/// The rows of one register, or of several that are alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    /// Which.
    pub registers: Registers,
    /// Where its rows are written.
    pub source: Source,
    /// Its rows, by bit.
    pub fields: &'static [Field],
}

/// Every word, in tables by range.
pub fn words() -> impl Iterator<Item = &'static Word> {
    let tables = [
        basic::WORDS,
        leaf_7::WORDS,
        state::WORDS,
        hypervisor::WORDS,
        extended::WORDS,
        msrs::WORDS,
    ];
    tables.into_iter().flatten()
}

/// The rows of one register of a CPUID answer; `None` where nothing is known about it.
pub fn cpuid_word(leaf: u32, subleaf: u32, register: Register) -> Option<&'static Word> {
    let table = match leaf {
        0x7 => leaf_7::WORDS,
        0xd | 0x12 | 0x14 | 0x19 | 0x1c..=0x1e | 0x24 => state::WORDS,
        0x4000_0000..=0x4fff_ffff => hypervisor::WORDS,
        0x8000_0000.. => extended::WORDS,
        _ => basic::WORDS,
    };
    // By leaf in ascending order: what ends before this leaf is skipped.
    let first = table.partition_point(|word| match word.registers {
        Registers::Cpuid { leaves, .. } => leaves.1 < leaf,
        Registers::Msr(..) => false,
    });
    table
        .get(first..)?
        .iter()
        .find(|word| match word.registers {
            Registers::Cpuid {
                leaves,
                subleaves,
                registers,
            } => {
                (leaves.0..=leaves.1).contains(&leaf)
                    && (subleaves.0..=subleaves.1).contains(&subleaf)
                    && registers.contains(&register)
            }
            Registers::Msr(..) => false,
        })
}

/// What a field means that older kernels leave at 0, in its register.
///
/// KVM fills in `guest-phys-bits` since Linux 6.10: until then they are `phys-bits`, which stand in
/// the lowest byte. The highest leaf of the hypervisor was 0x40000001 before KVM said so.
///
/// Source: Linux Documentation/virt/kvm/x86/cpuid.rst; AMD APM volume 3, appendix E.
pub(crate) fn meaning_of_zero(field: &Field, register: u64) -> u64 {
    match field.name {
        "guest-phys-bits" => register & 0xff,
        "max-hypervisor-leaf" => 0x4000_0001,
        _ => 0,
    }
}

/// The rows of one feature MSR; `None` where nothing is known about it.
pub fn msr_word(index: u32) -> Option<&'static Word> {
    msrs::WORDS.iter().find(|word| match word.registers {
        Registers::Msr(first, last) => (first..=last).contains(&index),
        Registers::Cpuid { .. } => false,
    })
}

const ALL: &[Register] = &Register::ALL;
const ANY: (u32, u32) = (0, u32::MAX);

const fn words_of(registers: Registers, source: Source, fields: &'static [Field]) -> Word {
    Word {
        registers,
        source,
        fields,
    }
}

const fn span(
    source: Source,
    leaves: (u32, u32),
    subleaves: (u32, u32),
    registers: &'static [Register],
    fields: &'static [Field],
) -> Word {
    let registers = Registers::Cpuid {
        leaves,
        subleaves,
        registers,
    };
    words_of(registers, source, fields)
}

const fn word(
    source: Source,
    leaf: u32,
    subleaf: u32,
    register: Register,
    fields: &'static [Field],
) -> Word {
    let registers = match register {
        Register::Eax => &[Register::Eax],
        Register::Ebx => &[Register::Ebx],
        Register::Ecx => &[Register::Ecx],
        Register::Edx => &[Register::Edx],
    };
    span(source, (leaf, leaf), (subleaf, subleaf), registers, fields)
}

const fn msr(source: Source, index: u32, fields: &'static [Field]) -> Word {
    words_of(Registers::Msr(index, index), source, fields)
}

const fn msr_span(source: Source, first: u32, last: u32, fields: &'static [Field]) -> Word {
    words_of(Registers::Msr(first, last), source, fields)
}

const fn row(low: u8, bits: u8, name: &'static str, kind: Kind) -> Field {
    Field {
        low,
        bits,
        name,
        kind,
    }
}

const fn feature(bit: u8, name: &'static str) -> Field {
    row(bit, 1, name, Kind::Feature)
}

const fn features(low: u8, bits: u8, name: &'static str) -> Field {
    row(low, bits, name, Kind::Feature)
}

const fn inverse(bit: u8, name: &'static str) -> Field {
    row(bit, 1, name, Kind::Inverse(Inverse::Behaviour))
}

const fn inverses(low: u8, bits: u8, name: &'static str) -> Field {
    row(low, bits, name, Kind::Inverse(Inverse::Behaviour))
}

const fn mitigation(bit: u8, name: &'static str) -> Field {
    row(bit, 1, name, Kind::Inverse(Inverse::Mitigation))
}

const fn at_most(low: u8, bits: u8, name: &'static str) -> Field {
    row(low, bits, name, Kind::NumericMin)
}

const fn equal(low: u8, bits: u8, name: &'static str) -> Field {
    row(low, bits, name, Kind::NumericEqual)
}

const fn dynamic(low: u8, bits: u8, name: &'static str) -> Field {
    row(low, bits, name, Kind::Dynamic)
}

const fn own(low: u8, bits: u8, name: &'static str) -> Field {
    row(low, bits, name, Kind::Synthesized)
}

const fn noise(low: u8, bits: u8, name: &'static str) -> Field {
    row(low, bits, name, Kind::Ignored)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn rows_are_in_order_and_within_their_register() {
        for word in words() {
            let bits = match word.registers {
                Registers::Cpuid { .. } => 32,
                Registers::Msr(..) => 64,
            };
            let mut end = 0;
            for field in word.fields {
                assert!(field.low >= end && field.bits > 0, "{field:?}");
                end = field.low + field.bits;
                assert!(end <= bits, "{field:?}");
            }
        }
    }

    #[test]
    fn leaves_of_each_table_ascend_and_every_word_is_found() {
        for table in [
            basic::WORDS,
            leaf_7::WORDS,
            state::WORDS,
            hypervisor::WORDS,
            extended::WORDS,
        ] {
            let ends = table.iter().filter_map(|word| match word.registers {
                Registers::Cpuid { leaves, .. } => Some(leaves),
                Registers::Msr(..) => None,
            });
            let ends: Vec<_> = ends.collect();
            assert_eq!(ends.len(), table.len());
            assert!(ends.is_sorted());
        }
        for word in words() {
            let found = match word.registers {
                Registers::Cpuid {
                    leaves,
                    subleaves,
                    registers,
                } => cpuid_word(leaves.1, subleaves.0, registers[0]),
                Registers::Msr(_, last) => msr_word(last),
            };
            assert_eq!(found, Some(word), "found another, or none");
        }
    }

    #[test]
    fn a_feature_has_one_place() {
        let mut places = BTreeMap::new();
        for word in words() {
            let single = |field: &&Field| field.bits == 1 && field.kind == Kind::Feature;
            for field in word.fields.iter().filter(single) {
                let other = places.insert(field.name, word.registers);
                assert_eq!(other, None, "{}", field.name);
            }
        }
        assert!(places.len() > 300);
    }
}
