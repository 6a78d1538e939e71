//! What several hosts have in common: the largest processor that each of them can give, field by
//! field as the rules say, made whole again afterwards.

use alloc::vec::Vec;

use crate::closure::settle;
use crate::cpuid::{CPUID_ENTRIES_MAX, CpuidEntry, CpuidTable, Register};
use crate::cpuid::{UnknownVendor, Vendor};
use crate::forgiven;
use crate::msr::{ARCH_CAPABILITIES, MsrTable};
use crate::processor::Processor;
use crate::rules::{Field, Inverse, Kind, Word, cpuid_word, meaning_of_zero, msr_word};

/// Why hosts have no processor in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PoolError {
    /// There is no host.
    #[error("no host is given: name at least one")]
    Empty,
    /// A maker that no rule was written for.
    #[error("host {} of the pool has an {vendor}", host + 1)]
    UnknownVendor {
        /// Which host, counted from 0.
        host: usize,
        /// What it calls itself.
        vendor: UnknownVendor,
    },
    /// A guest never moves between vendors, so such hosts are no pool.
    #[error(
        "CPU vendors do not match: the first host of the pool is {first}, host {} is {other}",
        host + 1
    )]
    VendorsDiffer {
        /// Which host, counted from 0.
        host: usize,
        /// The vendor of the first.
        first: Vendor,
        /// The vendor of this one.
        other: Vendor,
    },
    /// What the hosts answer together is more than a guest's table may hold.
    #[error(
        "the hosts have {count} CPUID answers together, a guest has at most {CPUID_ENTRIES_MAX}: \
         take hosts of fewer kinds together"
    )]
    TooMany {
        /// How many answers.
        count: usize,
    },
}

/// The largest processor that all of `pool` can give: features that all have, lacks that any has,
/// the least of each number; closed under dependencies, with saved state computed anew. What
/// belongs to a virtual machine (model, topology, caches) is taken from the oldest member.
///
/// The same for any order of the pool. Of one host: what its rules know, made whole.
///
/// # Errors
/// [`PoolError`]: no host, not of one known vendor, or of so many kinds that no table holds it.
pub fn intersect(pool: &[Processor]) -> Result<Processor, PoolError> {
    vendor_of(pool)?;
    let cpuid = combine_cpuid(pool, Unknown::Dropped)?;
    let msrs = MsrTable::default();
    let mut common = Processor { cpuid, msrs };
    settle(&mut common);
    common.msrs = combine_msrs(&common, pool, Unknown::Dropped);
    // Shown but not stated it would be refused everywhere. Without it a guest expects the worst.
    if common.msrs.get(ARCH_CAPABILITIES).is_none() {
        common.cpuid.hide("arch-capabilities");
    }
    settle(&mut common);
    Ok(common)
}

/// What incoming guests may have where they must suit all of `pool`: as [`intersect`], with what no
/// row stands for, and not made whole, because nothing is to be shown to a guest.
pub(crate) fn accepted_by_all(pool: &[Processor]) -> Result<Processor, PoolError> {
    vendor_of(pool)?;
    let cpuid = combine_cpuid(pool, Unknown::Kept)?;
    let msrs = MsrTable::default();
    let mut accepted = Processor { cpuid, msrs };
    accepted.msrs = combine_msrs(&accepted, pool, Unknown::Kept);
    Ok(accepted)
}

/// What becomes of what no row stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    /// No guest is shown it.
    Dropped,
    /// It stays where all have it.
    Kept,
}

fn combine_cpuid(pool: &[Processor], unknown: Unknown) -> Result<CpuidTable, PoolError> {
    let oldest = pool.iter().min_by_key(|member| age(member));
    let Some(oldest) = oldest else {
        return Err(PoolError::Empty);
    };
    let mut answers = Vec::new();
    for (leaf, subleaf) in questions(pool) {
        let mut answer = CpuidEntry {
            leaf,
            subleaf,
            ..CpuidEntry::default()
        };
        for register in Register::ALL {
            let value =
                |member: &Processor| u64::from(member.cpuid.register(leaf, subleaf, register));
            let word = cpuid_word(leaf, subleaf, register);
            let own = value(oldest);
            *answer.register_mut(register) = combine(word, own, pool, value, unknown) as u32;
        }
        answers.push(answer);
    }
    if answers.len() > CPUID_ENTRIES_MAX {
        // What has no answer reads as zero too.
        let is_zero = |entry: &CpuidEntry| Register::ALL.iter().all(|at| entry.register(*at) == 0);
        answers.retain(|entry| !is_zero(entry));
    }
    let count = answers.len();
    CpuidTable::new(answers).map_err(|_| PoolError::TooMany { count })
}

/// The one vendor of a pool.
///
/// # Errors
/// As [`intersect`].
pub fn vendor_of(pool: &[Processor]) -> Result<Vendor, PoolError> {
    let mut first = None;
    for (host, member) in pool.iter().enumerate() {
        let vendor = member.vendor();
        let other = vendor.map_err(|vendor| PoolError::UnknownVendor { host, vendor })?;
        let first = *first.get_or_insert(other);
        if first != other {
            return Err(PoolError::VendorsDiffer { host, first, other });
        }
    }
    first.ok_or(PoolError::Empty)
}

/// By family, model and stepping; among equals by all that they say, so that order never matters.
fn age(member: &Processor) -> ((u32, u32, u32), &CpuidTable) {
    let signature = member.cpuid.register(1, 0, Register::Eax);
    let family = (signature >> 8 & 0xf) + (signature >> 20 & 0xff);
    let model = signature >> 12 & 0xf0 | signature >> 4 & 0xf;
    ((family, model, signature & 0xf), &member.cpuid)
}

fn questions(pool: &[Processor]) -> Vec<(u32, u32)> {
    let entries = pool.iter().flat_map(|member| member.cpuid.entries());
    let mut questions: Vec<_> = entries.map(|entry| (entry.leaf, entry.subleaf)).collect();
    questions.sort_unstable();
    questions.dedup();
    questions
}

/// One register of all members as one. `value` tells a member's register; `own` is what the virtual
/// machine keeps for itself.
fn combine(
    word: Option<&Word>,
    own: u64,
    pool: &[Processor],
    value: impl Fn(&Processor) -> u64,
    unknown: Unknown,
) -> u64 {
    let fields = word.map_or(&[][..], |word| word.fields);
    let known = fields.iter().fold(0, |mask, field| mask | field.mask());
    let in_all = pool
        .iter()
        .fold(u64::MAX, |all, member| all & value(member));
    let rest = match (unknown, word) {
        (Unknown::Dropped, _) => 0,
        (Unknown::Kept, Some(_)) => in_all & !known,
        // A register without any row has to be equal.
        (Unknown::Kept, None) if pool.iter().all(|member| value(member) == in_all) => in_all,
        (Unknown::Kept, None) => 0,
    };
    let fields = fields.iter().map(|field| {
        let values = pool.iter().map(|member| field.of(value(member)));
        let combined = match field.kind {
            Kind::Feature => values.fold(u64::MAX, |all, one| all & one),
            Kind::Inverse(Inverse::Behaviour) => values.fold(0, |any, one| any | one),
            Kind::Inverse(Inverse::Mitigation) => combine_mitigation(field, pool, &value),
            Kind::NumericMin => least(field, pool, &value),
            Kind::NumericEqual => {
                let mut values = values;
                let first = values.next().unwrap_or(0);
                if values.all(|other| other == first) {
                    first
                } else {
                    0
                }
            }
            Kind::Synthesized => field.of(own),
            Kind::Dynamic | Kind::Ignored => 0,
        };
        combined << field.low & field.mask()
    });
    fields.fold(rest, |register, field| register | field)
}

/// The least of a number. What all leave at 0 stays 0.
fn least(field: &Field, pool: &[Processor], value: impl Fn(&Processor) -> u64) -> u64 {
    let numbers = pool.iter().map(|member| {
        let register = value(member);
        match field.of(register) {
            0 => (0, meaning_of_zero(field, register)),
            number => (number, number),
        }
    });
    let (written, meant): (Vec<_>, Vec<_>) = numbers.unzip();
    if written.iter().all(|number| *number == 0) {
        return 0;
    }
    meant.into_iter().min().unwrap_or(0)
}

/// A guest is told to protect itself where any host needs it, as long as that works on all that do.
fn combine_mitigation(field: &Field, pool: &[Processor], value: impl Fn(&Processor) -> u64) -> u64 {
    let works = |member: &Processor| field.of(value(member)) != 0;
    let harmless = |member: &Processor| forgiven::harmless(field.name, member).is_some();
    let any = pool.iter().any(works);
    let all = pool.iter().all(|member| works(member) || harmless(member));
    u64::from(any && all)
}

/// The feature MSRs that the common CPUID shows and every member states.
fn combine_msrs(common: &Processor, pool: &[Processor], unknown: Unknown) -> MsrTable {
    let Some(first) = pool.first() else {
        return MsrTable::default();
    };
    let mut msrs = first.msrs.clone();
    msrs.retain(|index, register| {
        let stated = pool.iter().all(|member| member.msrs.get(index).is_some());
        let word = msr_word(index);
        let value = |member: &Processor| member.msrs.get(index).unwrap_or(0);
        *register = combine(word, 0, pool, value, unknown);
        stated && common.shows_msr(index) && (word.is_some() || unknown == Unknown::Kept)
    });
    msrs
}
