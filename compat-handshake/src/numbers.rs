//! What is compared as a number, and what is not compared at all. Single bits are in `features.rs`.
//!
//! A register that stands in none of the three tables (features, numbers, owned) is compared as a
//! whole: where the guest sees a value other than zero, the host must show the same.

use core::ops::RangeInclusive;

use crate::cpuid::Register::{Eax, Ebx, Ecx, Edx};
use crate::cpuid::{CpuidTable, Register};

/// How a field of the guest is compared with the same field of the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NumberRule {
    /// The guest's value must not exceed the host's.
    AtMost,
    /// As `AtMost`, where a host that shows 0 means its 8-bit field at this bit instead.
    AtMostOr(u8),
    /// Equal, as soon as the guest's value is not zero.
    Equal,
}

/// A field of a CPUID register, read as a number.
pub(crate) struct Number {
    pub(crate) leaf: u32,
    pub(crate) subleaf: u32,
    pub(crate) register: Register,
    low: u8,
    bits: u8,
    pub(crate) name: &'static str,
    pub(crate) rule: NumberRule,
}

const fn number(
    place: (u32, u32, Register),
    field: (u8, u8),
    name: &'static str,
    rule: NumberRule,
) -> Number {
    let (leaf, subleaf, register) = place;
    let (low, bits) = field;
    Number {
        leaf,
        subleaf,
        register,
        low,
        bits,
        name,
        rule,
    }
}

impl Number {
    fn field(value: u32, low: u8, bits: u8) -> u32 {
        let mask = u32::MAX >> (32 - u32::from(bits));
        (value >> low) & mask
    }

    /// The field in one table, and in another: (guest, host).
    pub(crate) fn values(&self, guest: &CpuidTable, host: &CpuidTable) -> (u32, u32) {
        let guest = guest.register(self.leaf, self.subleaf, self.register);
        let host = host.register(self.leaf, self.subleaf, self.register);
        let host_field = Self::field(host, self.low, self.bits);
        let host_value = match self.rule {
            AtMostOr(low) if host_field == 0 => Self::field(host, low, 8),
            _ => host_field,
        };
        (Self::field(guest, self.low, self.bits), host_value)
    }
}

use NumberRule::{AtMost, AtMostOr, Equal};

// The rows of leaf 0xa are harmless without a virtual PMU: the guest then sees zeros, and zero
// passes either rule. `arch-event-not-available` is inverse (1 = missing); equality covers it.
#[rustfmt::skip]
pub(crate) const NUMBERS: &[Number] = &[
    number((0x0, 0, Eax), (0, 32), "max-basic-leaf", AtMost),
    number((0x1, 0, Ebx), (8, 8), "clflush-size", Equal),
    number((0x7, 0, Eax), (0, 32), "max-subleaf", AtMost),
    number((0xa, 0, Eax), (0, 8), "pmu-version", AtMost),
    number((0xa, 0, Eax), (8, 8), "pmu-counters", AtMost),
    number((0xa, 0, Eax), (16, 8), "pmu-counter-width", Equal),
    number((0xa, 0, Eax), (24, 8), "pmu-event-mask-length", Equal),
    number((0xa, 0, Edx), (0, 5), "pmu-fixed-counters", AtMost),
    number((0xa, 0, Edx), (5, 8), "pmu-fixed-counter-width", Equal),
    number((0xd, 0, Ecx), (0, 32), "xsave-size", AtMost),
    number((0x14, 0, Eax), (0, 32), "intel-pt-max-subleaf", AtMost),
    number((0x1d, 0, Eax), (0, 32), "amx-max-palette", AtMost),
    number((0x24, 0, Ebx), (0, 8), "avx10-version", AtMost),
    number((0x24, 0, Ebx), (16, 3), "avx10-vector-lengths", Equal),
    number((0x40000000, 0, Ebx), (0, 32), "hypervisor-signature", Equal),
    number((0x40000000, 0, Ecx), (0, 32), "hypervisor-signature", Equal),
    number((0x40000000, 0, Edx), (0, 32), "hypervisor-signature", Equal),
    number((0x80000000, 0, Eax), (0, 32), "max-extended-leaf", AtMost),
    number((0x80000008, 0, Eax), (0, 8), "phys-bits", AtMost),
    number((0x80000008, 0, Eax), (8, 8), "linear-bits", AtMost),
    // KVM reports this field since Linux 6.10; 0 means the same as phys-bits.
    number((0x80000008, 0, Eax), (16, 8), "guest-phys-bits", AtMostOr(0)),
    number((0x80000008, 0, Edx), (0, 16), "invlpgb-max-pages", AtMost),
    number((0x80000008, 0, Edx), (16, 16), "rdpru-max", AtMost),
    number((0x8000000a, 0, Eax), (0, 8), "svm-revision", AtMost),
    number((0x8000000a, 0, Ebx), (0, 32), "svm-nasid", AtMost),
    number((0x80000021, 0, Ebx), (16, 8), "rap-size", AtMost),
    number((0x80000022, 0, Ebx), (0, 4), "core-pmc", AtMost),
];

/// Registers that belong to the guest for its life, whatever host it lives on.
struct Owned {
    leaves: RangeInclusive<u32>,
    subleaves: RangeInclusive<u32>,
    registers: &'static [Register],
}

const fn owned(
    leaves: RangeInclusive<u32>,
    subleaves: RangeInclusive<u32>,
    registers: &'static [Register],
) -> Owned {
    Owned {
        leaves,
        subleaves,
        registers,
    }
}

const ANY: RangeInclusive<u32> = 0..=u32::MAX;
const ALL: &[Register] = &Register::ALL;

#[rustfmt::skip]
const OWNED: &[Owned] = &[
    owned(0x0..=0x0, ANY, &[Ebx, Ecx, Edx]),        // the vendor, which is judged by its name
    owned(0x1..=0x1, ANY, &[Eax, Ebx]),             // family and model; APIC id and topology
    owned(0x2..=0x2, ANY, ALL),                     // cache and TLB descriptors
    owned(0x4..=0x4, ANY, ALL),                     // caches
    owned(0xb..=0xb, ANY, ALL),                     // topology
    owned(0xd..=0xd, 0..=1, &[Ebx]),                // follows the guest's XCR0 and XSS
    owned(0xd..=0xd, 2..=63, ALL),                  // components, judged in `xsave.rs`
    owned(0x15..=0x16, ANY, ALL),                   // TSC and bus clocks: the TSC is judged itself
    owned(0x18..=0x18, ANY, ALL),                   // TLBs
    owned(0x1a..=0x1a, ANY, ALL),                   // hybrid core type
    owned(0x1f..=0x1f, ANY, ALL),                   // topology
    owned(0x40000000..=0x40000000, ANY, &[Eax]),    // last leaf that the VMM made
    owned(0x40000001..=0x40000001, ANY, &[Edx]),    // hints by the VMM
    owned(0x40000010..=0x40000010, ANY, ALL),       // TSC and APIC clocks by the VMM
    owned(0x80000000..=0x80000000, ANY, &[Ebx, Ecx, Edx]), // the vendor again
    owned(0x80000001..=0x80000001, ANY, &[Eax, Ebx]), // family and model, brand
    owned(0x80000002..=0x80000006, ANY, ALL),       // brand string, caches and TLBs
    owned(0x80000008..=0x80000008, ANY, &[Ecx]),    // topology
    owned(0x80000019..=0x8000001a, ANY, ALL),       // TLBs, performance hints
    owned(0x8000001d..=0x8000001e, ANY, ALL),       // cache and node topology
    owned(0x80000021..=0x80000021, ANY, &[Ebx]),    // size of a micro-code patch
];

/// Whether a register is the guest's own and never compared as a whole.
pub(crate) fn is_owned(leaf: u32, subleaf: u32, register: Register) -> bool {
    OWNED.iter().any(|row| {
        row.leaves.contains(&leaf)
            && row.subleaves.contains(&subleaf)
            && row.registers.contains(&register)
    })
}

/// Whether a register is compared field by field in [`NUMBERS`].
pub(crate) fn has_numbers(leaf: u32, subleaf: u32, register: Register) -> bool {
    NUMBERS
        .iter()
        .any(|row| row.leaf == leaf && row.subleaf == subleaf && row.register == register)
}
