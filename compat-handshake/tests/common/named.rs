//! Makes a processor of names: the bits stand where the rule table says, saved state where the
//! maker puts it.

use std::collections::BTreeMap;

use limosa_compat::{CpuidEntry, CpuidTable, Kind, Processor, Register, Registers, Vendor, words};

use super::cases::Names;

/// A leaf and a subleaf, and the four answers.
type Answers = BTreeMap<(u32, u32), CpuidEntry>;

/// What a component of saved state needs, its number, its size and its place with Intel and AMD.
const COMPONENTS: &[(&str, u32, u32, u32, u32)] = &[
    ("avx", 2, 0x100, 0x240, 0x240),
    ("mpx", 3, 0x40, 0x3c0, 0x3c0),
    ("mpx", 4, 0x40, 0x400, 0x400),
    ("avx512f", 5, 0x40, 0x440, 0x340),
    ("avx512f", 6, 0x200, 0x480, 0x380),
    ("avx512f", 7, 0x400, 0x680, 0x580),
    ("pku", 9, 0x8, 0xa80, 0x980),
];

/// Where the field of one bit with this name stands, whatever its kind; features come first.
pub(crate) fn place(name: &str) -> Option<(u32, u32, Register, u8)> {
    let mut places = Vec::new();
    for word in words() {
        let Registers::Cpuid {
            leaves: (leaf, _),
            subleaves: (subleaf, _),
            registers,
        } = word.registers
        else {
            continue;
        };
        let fields = word.fields.iter();
        let known = fields.filter(|field| field.bits == 1 && field.name == name);
        places.extend(known.map(|field| (field.kind, (leaf, subleaf, registers[0], field.low))));
    }
    places.sort_by_key(|(kind, _)| *kind != Kind::Feature);
    places.first().map(|(_, place)| *place)
}

/// A processor with exactly these; its numbers are the same whatever it has. Without a vendor it is
/// of no known one.
///
/// Panics at a name that no row has.
pub(crate) fn processor(vendor: Option<Vendor>, names: &Names) -> Processor {
    let mut answers = Answers::new();
    numbers(&mut answers, vendor);
    for name in names {
        let (leaf, subleaf, register, bit) = place(name).unwrap_or_else(|| panic!("{name}"));
        *answer(&mut answers, leaf, subleaf).register_mut(register) |= 1 << bit;
    }
    if names.contains("xsave") {
        saved_state(&mut answers, vendor, names);
    }
    CpuidTable::new(answers.into_values().collect())
        .unwrap()
        .into()
}

fn answer(answers: &mut Answers, leaf: u32, subleaf: u32) -> &mut CpuidEntry {
    answers.entry((leaf, subleaf)).or_insert(CpuidEntry {
        leaf,
        subleaf,
        ..CpuidEntry::default()
    })
}

fn numbers(answers: &mut Answers, vendor: Option<Vendor>) {
    let letters = vendor.map_or("            ", Vendor::name).as_bytes();
    let word = |at: usize| u32::from_le_bytes(letters[at..at + 4].try_into().unwrap());
    let leaf_0 = answer(answers, 0, 0);
    (leaf_0.eax, leaf_0.ebx, leaf_0.edx, leaf_0.ecx) = (0x24, word(0), word(4), word(8));
    answer(answers, 1, 0).ebx = 8 << 8;
    answer(answers, 7, 0).eax = 2;
    answer(answers, 0x8000_0000, 0).eax = 0x8000_0021;
    answer(answers, 0x8000_0001, 0);
    answer(answers, 0x8000_0008, 0).eax = 48 << 8 | 40;
}

fn saved_state(answers: &mut Answers, vendor: Option<Vendor>, names: &Names) {
    let (mut xcr0, mut bytes) = (0b11, 0x240);
    for &(needed, number, size, intel, amd) in COMPONENTS {
        if names.contains(needed) {
            let offset = if vendor == Some(Vendor::Intel) {
                intel
            } else {
                amd
            };
            let component = answer(answers, 0xd, number);
            (component.eax, component.ebx) = (size, offset);
            xcr0 |= 1 << number;
            bytes = bytes.max(offset + size);
        }
    }
    let leaf = answer(answers, 0xd, 0);
    (leaf.eax, leaf.ecx) = (xcr0, bytes);
}
