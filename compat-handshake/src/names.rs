//! Features by their names: whether a processor shows one, which ones it shows, how one is given or
//! taken away. Only fields of one bit have names here.

use alloc::vec::Vec;

use crate::cpuid::{CpuidTable, Register};
use crate::processor::Processor;
use crate::rules::{Field, Kind, Registers, words};

/// Where a feature stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Spot {
    Cpuid {
        leaf: u32,
        subleaf: u32,
        register: Register,
        bit: u8,
    },
    Msr {
        index: u32,
        bit: u8,
    },
}

const fn is_named(field: &Field) -> bool {
    field.bits == 1 && matches!(field.kind, Kind::Feature | Kind::Inverse(_))
}

fn spot_of(registers: Registers, field: &Field) -> Spot {
    let bit = field.low;
    match registers {
        Registers::Cpuid {
            leaves,
            subleaves,
            registers,
        } => Spot::Cpuid {
            leaf: leaves.0,
            subleaf: subleaves.0,
            register: registers.first().copied().unwrap_or(Register::Eax),
            bit,
        },
        Registers::Msr(index, _) => Spot::Msr { index, bit },
    }
}

/// Every named bit of the table, in its order.
fn named() -> impl Iterator<Item = (&'static str, Spot)> {
    words().flat_map(|word| {
        let fields = word.fields.iter().filter(|field| is_named(field));
        fields.map(|field| (field.name, spot_of(word.registers, field)))
    })
}

/// Where the feature of this name stands; `None` for a name that no row has.
pub(crate) fn spot(name: &str) -> Option<Spot> {
    named()
        .find(|(known, _)| *known == name)
        .map(|(_, spot)| spot)
}

/// Whether a name is one of the table's.
pub fn is_feature(name: &str) -> bool {
    spot(name).is_some()
}

fn shows(processor: &Processor, spot: Spot) -> bool {
    match spot {
        Spot::Cpuid {
            leaf,
            subleaf,
            register,
            bit,
        } => processor.cpuid.register(leaf, subleaf, register) >> bit & 1 == 1,
        Spot::Msr { index, bit } => {
            let value = processor.msrs.get(index).unwrap_or(0);
            processor.shows_msr(index) && value >> bit & 1 == 1
        }
    }
}

/// Whether a processor shows the feature of this name. A name that no row has is never shown.
pub fn has(processor: &Processor, name: &str) -> bool {
    spot(name).is_some_and(|spot| shows(processor, spot))
}

/// Whether the bit of this name enables saved state, and so follows from features.
pub(crate) fn is_state(name: &str) -> bool {
    name.starts_with("xcr0.") || name.starts_with("xss.")
}

/// The names of all that a processor shows, sorted: features, and lacks that it tells of. Without
/// `xcr0.*` and `xss.*`, which follow from features.
pub fn feature_names(processor: &Processor) -> Vec<&'static str> {
    let shown = named().filter(|(name, spot)| !is_state(name) && shows(processor, *spot));
    let mut names: Vec<_> = shown.map(|(name, _)| name).collect();
    names.sort_unstable();
    names
}

impl Processor {
    /// Takes a feature away, of CPUID or of a register; says whether it was shown.
    pub(crate) fn hide(&mut self, name: &str) -> bool {
        let had = has(self, name);
        if had {
            self.put(name, 0);
        }
        had
    }

    /// Shows a feature; of a register only where CPUID shows the register and it is stated.
    pub(crate) fn show(&mut self, name: &str) {
        self.put(name, 1);
    }

    fn put(&mut self, name: &str, value: u32) {
        match spot(name) {
            Some(Spot::Msr { index, bit }) if self.shows_msr(index) => {
                self.msrs.retain(|of, register| {
                    if of == index {
                        *register = *register & !(1 << bit) | u64::from(value) << bit;
                    }
                    true
                });
            }
            Some(spot @ Spot::Cpuid { .. }) => self.cpuid.put(spot, value),
            Some(Spot::Msr { .. }) | None => {}
        }
    }
}

impl CpuidTable {
    /// Makes the number of this name 0 where it stands.
    pub(crate) fn clear_number(&mut self, name: &str) {
        for word in words() {
            let Registers::Cpuid {
                leaves: (leaf, _),
                subleaves: (subleaf, _),
                registers: &[register],
            } = word.registers
            else {
                continue;
            };
            let fields = word.fields.iter().filter(|field| field.name == name);
            let mask = fields.fold(0, |mask, field| mask | field.mask());
            if self.register(leaf, subleaf, register) & mask as u32 != 0 {
                self.change(leaf, subleaf, |entry| {
                    *entry.register_mut(register) &= !(mask as u32);
                });
            }
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match spot(name) {
            Some(Spot::Cpuid {
                leaf,
                subleaf,
                register,
                bit,
            }) => self.register(leaf, subleaf, register) >> bit & 1 == 1,
            Some(Spot::Msr { .. }) | None => false,
        }
    }

    /// Takes a feature away; says whether it was there.
    pub(crate) fn hide(&mut self, name: &str) -> bool {
        let had = self.has(name);
        if let (true, Some(spot)) = (had, spot(name)) {
            self.put(spot, 0);
        }
        had
    }

    /// Shows a feature.
    pub(crate) fn show(&mut self, name: &str) {
        if let Some(spot) = spot(name) {
            self.put(spot, 1);
        }
    }

    fn put(&mut self, spot: Spot, value: u32) {
        let Spot::Cpuid {
            leaf,
            subleaf,
            register,
            bit,
        } = spot
        else {
            return;
        };
        self.change(leaf, subleaf, |entry| {
            let word = entry.register_mut(register);
            *word = *word & !(1 << bit) | value << bit;
        });
    }
}
