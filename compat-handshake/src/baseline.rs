//! How much of its host a guest sees: all that can travel, a fixed baseline, or what a pool of
//! hosts has in common. Chosen when a guest starts, and fixed for its life.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;

use crate::closure::settle;
use crate::controls::{
    STAYING_LEAVES, TOLD_ARCH_CAPABILITIES, handed_through, not_in_common, stays, told,
};
use crate::cpuid::{CpuidTable, Register, Vendor};
use crate::forgiven::{harmless, mitigations};
use crate::models::{MODELS, Model};
use crate::msr;
use crate::names::{has, is_state};
use crate::pool::{PoolError, intersect, vendor_of};
use crate::processor::Processor;
use crate::rules::{Inverse, Kind, cpuid_word};

/// How much of its host a new guest sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// Everything that can travel. The guest is judged on every move all the same.
    #[default]
    Off,
    /// The floor of its vendor: what every processor has that can run guests at all.
    Minimum,
    /// A generation of processors, or a level of the x86-64 psABI.
    Named(&'static Baseline),
    /// What a pool of hosts has in common.
    Common,
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => out.write_str("off"),
            Self::Minimum => out.write_str("minimum"),
            Self::Named(baseline) => write!(out, "named:{}", baseline.name()),
            Self::Common => out.write_str("common"),
        }
    }
}

/// A fixed set of features. It never changes once released: a correction has another name.
///
/// Some include others, most do not: features also disappear, so this is no ladder. Compare them by
/// [`PartialOrd`]: `a <= b` where every host that can give `b` can give `a`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Baseline(Model);

impl PartialEq for Baseline {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Baseline {}

impl PartialOrd for Baseline {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other {
            return Some(Ordering::Equal);
        }
        let includes = |large: &Self, small: &Self| {
            let features = large.features();
            small
                .vendor()
                .is_none_or(|vendor| large.vendor() == Some(vendor))
                && small.features().iter().all(|name| features.contains(name))
        };
        match (includes(self, other), includes(other, self)) {
            (true, false) => Some(Ordering::Greater),
            (false, true) => Some(Ordering::Less),
            _ => None,
        }
    }
}

impl Baseline {
    /// The baseline of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        baselines().iter().find(|baseline| baseline.name() == name)
    }

    /// Its name, such as `x86-64-v3`, `ice-lake-server` or `minimum-amd-v1`.
    pub const fn name(&self) -> &'static str {
        self.0.name
    }

    /// Whose processors it is for; `None` for any known vendor's.
    pub const fn vendor(&self) -> Option<Vendor> {
        self.0.vendor
    }

    /// Width of its physical addresses in bits, 36 to 52: memory of a guest must lie within.
    pub const fn phys_bits(&self) -> u8 {
        self.0.phys_bits
    }

    /// Where its list comes from.
    pub const fn source(&self) -> &'static str {
        self.0.source
    }

    /// What it is built on and differs from by few features.
    pub fn from(&self) -> Option<&'static Self> {
        Self::find(self.0.from?)
    }

    /// Its features, sorted.
    pub fn features(&self) -> Vec<&'static str> {
        let mut features = self.from().map_or_else(Vec::new, Self::features);
        features.retain(|name| !self.0.drops.contains(name));
        features.extend(self.0.adds);
        features.sort_unstable();
        features.dedup();
        features
    }
}

const fn baselines_of<const COUNT: usize>(models: &[Model]) -> [Baseline; COUNT] {
    let mut all = [Baseline(models[0]); COUNT];
    let mut at = 0;
    while at < COUNT {
        all[at] = Baseline(models[at]);
        at += 1;
    }
    all
}

/// Every fixed baseline, the floors of the vendors among them.
pub fn baselines() -> &'static [Baseline] {
    static ALL: [Baseline; MODELS.len()] = baselines_of(MODELS);
    &ALL
}

/// The floor of a vendor.
fn minimum(vendor: Vendor) -> Option<&'static Baseline> {
    Baseline::find(match vendor {
        Vendor::Intel => "minimum-intel-v1",
        Vendor::Amd => "minimum-amd-v1",
        Vendor::Hygon => "minimum-hygon-v1",
    })
}

/// What hosts lack of a baseline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lack {
    /// Which host of the pool, counted from 0.
    pub host: usize,
    /// The features, sorted.
    pub features: Vec<&'static str>,
}

/// Why a guest can't be given a processor.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShapeError {
    /// The hosts are no pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The baseline is for processors of another maker.
    #[error("baseline {baseline} is for {wanted}, the host is {found}")]
    OtherVendor {
        /// The baseline's name.
        baseline: &'static str,
        /// Its vendor.
        wanted: Vendor,
        /// The hosts' vendor.
        found: Vendor,
    },
    /// Each host can give the baseline, and no two the same one.
    #[error(
        "the hosts keep the state of {} in different places: no guest of baseline {baseline} can \
         move between them",
        features.join(", ")
    )]
    Unlike {
        /// The baseline's name.
        baseline: &'static str,
        /// The features, sorted.
        features: Vec<&'static str>,
    },
    /// Hosts can't give all of a baseline.
    #[error("{}", lacks_text(baseline, lacks))]
    Lacks {
        /// The baseline's name.
        baseline: &'static str,
        /// What each host lacks; only those that lack something.
        lacks: Vec<Lack>,
    },
}

fn lacks_text(baseline: &str, lacks: &[Lack]) -> String {
    let mut text = alloc::format!("baseline {baseline} needs more than the hosts have");
    for Lack { host, features } in lacks {
        text += &alloc::format!("; host {} lacks {}", host + 1, features.join(", "));
    }
    text
}

/// A processor for a new guest, and what the choice is called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shaped {
    /// What the guest is to see.
    pub processor: Processor,
    /// `off`, `common` or the name of a fixed baseline.
    pub name: &'static str,
}

/// The processor of a guest that starts on a host with the offer `here`, and may move to hosts with
/// the offers `others`; only [`Mode::Common`] and the fixed baselines look at those.
///
/// # Errors
/// [`ShapeError`]: what of the hosts does not go with the mode.
pub fn shape(mode: Mode, here: &Processor, others: &[Processor]) -> Result<Shaped, ShapeError> {
    let mut pool = alloc::vec![here.clone()];
    pool.extend_from_slice(others);
    baseline(mode, &pool)
}

/// The same for a pool of hosts of which none is special. [`Mode::Off`] looks at the first alone.
///
/// # Errors
/// As [`shape`].
pub fn baseline(mode: Mode, pool: &[Processor]) -> Result<Shaped, ShapeError> {
    let vendor = vendor_of(pool)?;
    let fixed_baseline = match mode {
        Mode::Off => {
            let here = pool.first().ok_or(PoolError::Empty)?;
            let processor = travelling(here);
            let name = "off";
            return Ok(Shaped { processor, name });
        }
        Mode::Common => {
            let processor = common(pool)?;
            let name = "common";
            return Ok(Shaped { processor, name });
        }
        Mode::Minimum => minimum(vendor).ok_or(PoolError::Empty)?,
        Mode::Named(baseline) => baseline,
    };
    let processor = fixed(fixed_baseline, vendor, pool)?;
    let name = fixed_baseline.name();
    Ok(Shaped { processor, name })
}

/// Everything of a host that can travel.
fn travelling(here: &Processor) -> Processor {
    let mut processor = here.clone();
    hide_what_stays(&mut processor);
    processor
}

fn hide_what_stays(processor: &mut Processor) {
    for row in stays() {
        processor.cpuid.hide(row.name);
    }
    processor
        .cpuid
        .retain(|entry| !STAYING_LEAVES.contains(&entry.leaf));
    settle(processor);
}

fn common(pool: &[Processor]) -> Result<Processor, PoolError> {
    let mut processor = intersect(pool)?;
    for row in not_in_common() {
        processor.cpuid.hide(row.name);
    }
    hide_what_stays(&mut processor);
    Ok(processor)
}

fn fixed(
    baseline: &'static Baseline,
    vendor: Vendor,
    pool: &[Processor],
) -> Result<Processor, ShapeError> {
    if let Some(wanted) = baseline.vendor().filter(|wanted| *wanted != vendor) {
        return Err(ShapeError::OtherVendor {
            baseline: baseline.name(),
            wanted,
            found: vendor,
        });
    }
    let features = baseline.features();
    let lacks = lacks_of(&features, pool);
    if !lacks.is_empty() {
        let baseline = baseline.name();
        return Err(ShapeError::Lacks { baseline, lacks });
    }
    let mut processor = intersect(pool)?;
    hide_what_stays(&mut processor);
    let kept = |name: &str| features.contains(&name) || handed_through(vendor).contains(&name);
    keep_features(&mut processor.cpuid, kept);
    limit_numbers(&mut processor.cpuid, &baseline.0, vendor);
    for name in told(vendor) {
        processor.cpuid.show(name);
    }
    processor.msrs.retain(|index, value| {
        if index == msr::ARCH_CAPABILITIES {
            *value = worst_case(*value);
        }
        true
    });
    tell_mitigations(&mut processor, pool);
    settle(&mut processor);
    let mut unlike = features;
    unlike.retain(|name| !has(&processor, name));
    if unlike.is_empty() {
        return Ok(processor);
    }
    Err(ShapeError::Unlike {
        baseline: baseline.name(),
        features: unlike,
    })
}

/// A feature whose state a host does not describe, or whose prerequisites it lacks, is lacking too.
fn lacks_of(features: &[&'static str], pool: &[Processor]) -> Vec<Lack> {
    let lacks = pool.iter().enumerate().map(|(host, member)| {
        let whole = intersect(core::slice::from_ref(member)).unwrap_or_default();
        let mut lacking = features.to_vec();
        lacking.retain(|name| !has(&whole, name));
        Lack {
            host,
            features: lacking,
        }
    });
    lacks.filter(|lack| !lack.features.is_empty()).collect()
}

/// Clears every feature that is not kept. Lacks and numbers stay, and so does what enables saved
/// state: without it features would seem to have no state, before it is computed anew from them.
fn keep_features(table: &mut CpuidTable, kept: impl Fn(&str) -> bool) {
    let questions = table.questions_with(&CpuidTable::default());
    for (leaf, subleaf) in questions {
        table.change(leaf, subleaf, |entry| {
            for register in Register::ALL {
                let Some(word) = cpuid_word(leaf, subleaf, register) else {
                    continue;
                };
                let is_hidden =
                    |name, kind| kind == Kind::Feature && !is_state(name) && !kept(name);
                let fields = word.fields.iter();
                let hidden = fields.filter(|field| is_hidden(field.name, field.kind));
                let mask = hidden.fold(0, |mask, field| mask | field.mask());
                *entry.register_mut(register) &= !(mask as u32);
            }
        });
    }
}

/// Tells the guest to clear what other hosts may leak, where that works or nothing is leaked: what
/// it is told is the same on hosts that are affected and on those that are not.
fn tell_mitigations(processor: &mut Processor, pool: &[Processor]) {
    for name in mitigations() {
        let is_good = |member: &Processor| has(member, name) || harmless(name, member).is_some();
        if pool.iter().all(is_good) {
            processor.show(name);
        }
    }
}

/// Whether a subleaf shows a feature; what it says besides is not worth to ask for it.
fn shows_features(table: &CpuidTable, leaf: u32, subleaf: u32) -> bool {
    Register::ALL.into_iter().any(|register| {
        let fields = cpuid_word(leaf, subleaf, register).map_or(&[][..], |word| word.fields);
        let mut features = fields.iter().filter(|field| field.kind == Kind::Feature);
        let shown = table.register(leaf, subleaf, register);
        features.any(|field| field.of(shown.into()) != 0)
    })
}

fn limit_numbers(table: &mut CpuidTable, model: &Model, vendor: Vendor) {
    let basic = match vendor {
        // The controls that are handed through stand in leaf 7.
        Vendor::Intel => model.max_basic_leaf.max(7),
        Vendor::Amd | Vendor::Hygon => model.max_basic_leaf,
    };
    let more_subleaves = (1..=2).filter(|&subleaf| shows_features(table, 7, subleaf));
    let subleaf_max = more_subleaves.max().unwrap_or(0);
    let limits = [
        (0, 0, u32::MAX, basic),
        (7, 0, u32::MAX, subleaf_max),
        (0x8000_0000, 0, u32::MAX, model.max_extended_leaf),
        (0x8000_0008, 0, 0xff, model.phys_bits.into()),
        (0x4000_0000, 0, u32::MAX, 0x4000_0001),
    ];
    for (leaf, low, mask, limit) in limits {
        if table.find(leaf, 0).is_some() {
            table.change(leaf, 0, |entry| {
                let field = ((entry.eax & mask) >> low).min(limit);
                entry.eax = entry.eax & !mask | field << low;
            });
        }
    }
    if table.find(0x8000_0008, 0).is_some() {
        table.change(0x8000_0008, 0, |entry| {
            let (guest, phys) = (entry.eax >> 16 & 0xff, entry.eax & 0xff);
            // 0 means the same as the physical addresses, which are shorter here.
            if guest >= phys {
                entry.eax &= !(0xff << 16);
            }
        });
    }
}

/// IA32_ARCH_CAPABILITIES without a promise: affected by everything, and told to do what helps.
fn worst_case(value: u64) -> u64 {
    let fields = crate::rules::msr_word(msr::ARCH_CAPABILITIES).map_or(&[][..], |word| word.fields);
    let told = fields
        .iter()
        .filter(|field| matches!(field.kind, Kind::Inverse(Inverse::Mitigation)));
    let kept = told.fold(0, |mask, field| mask | field.mask());
    value & kept | TOLD_ARCH_CAPABILITIES
}
