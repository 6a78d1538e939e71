//! Whether a guest really sees what it was promised: two descriptions of one processor, compared
//! for being the same and not for one being enough.

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;
use core::fmt;

use crate::cpuid::Register;
use crate::mismatch::Place;
use crate::processor::Processor;
use crate::rules::{Kind, Word, cpuid_word, msr_word};

/// A field in which what is seen differs from what was promised.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Difference {
    /// Where it stands.
    pub place: Place,
    /// Its usual name; `unknown …` where it has none.
    pub name: Cow<'static, str>,
    /// What was promised: the whole register for a bit, the field for a number.
    pub promised: u64,
    /// What is seen.
    pub seen: u64,
}

impl Difference {
    /// Whether more is seen than was promised: what should be hidden is not.
    pub fn is_extra(&self) -> bool {
        let bit = match self.place {
            Place::Cpuid { bit, .. } | Place::Msr { bit, .. } => bit,
            Place::Vendor | Place::Tsc => None,
        };
        match bit {
            Some(bit) => self.seen >> bit & 1 == 1,
            None => self.seen > self.promised,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            name,
            promised,
            seen,
        } = self;
        write!(
            out,
            "{name} ({place}): promised {promised:#x}, seen {seen:#x}"
        )
    }
}

/// Every field in which `seen` differs from `promised`, by place. Fields that mirror registers, or
/// belong to one vCPU or to the host alone, are left out, as in [`judge`](crate::judge).
pub fn differences(promised: &Processor, seen: &Processor) -> Vec<Difference> {
    let mut found = Vec::new();
    for (leaf, subleaf) in promised.cpuid.questions_with(&seen.cpuid) {
        // What lies beyond the highest leaf of both is never read.
        if !promised.cpuid.reaches(leaf) && !seen.cpuid.reaches(leaf) {
            continue;
        }
        for register in Register::ALL {
            let value = |processor: &Processor| {
                u64::from(processor.cpuid.register(leaf, subleaf, register))
            };
            let place = Place::cpuid(leaf, subleaf, register);
            let values = (value(promised), value(seen));
            compare(
                place,
                cpuid_word(leaf, subleaf, register),
                values,
                &mut found,
            );
        }
    }
    for &(index, promised_value) in promised.msrs.values() {
        if promised.shows_msr(index) {
            let values = (promised_value, seen.msrs.get(index).unwrap_or(0));
            compare(Place::msr(index), msr_word(index), values, &mut found);
        }
    }
    found
}

fn compare(
    place: Place,
    word: Option<&Word>,
    (promised, seen): (u64, u64),
    found: &mut Vec<Difference>,
) {
    if promised == seen {
        return;
    }
    let mut known = 0;
    for field in word.into_iter().flat_map(|word| word.fields) {
        known |= field.mask();
        let left_out = matches!(
            field.kind,
            Kind::Dynamic | Kind::Synthesized | Kind::Ignored
        );
        let (a, b) = (field.of(promised), field.of(seen));
        if left_out || a == b {
            continue;
        }
        let (place, promised, seen) = match field.bits {
            1 => (place.with_bit(field.low), promised, seen),
            _ => (place, a, b),
        };
        found.push(Difference {
            place,
            name: field.name.into(),
            promised,
            seen,
        });
    }
    let unknown = (promised ^ seen) & !known;
    if unknown != 0 {
        found.push(Difference {
            place,
            name: format!("unknown {place}").into(),
            promised: promised & !known,
            seen: seen & !known,
        });
    }
}
