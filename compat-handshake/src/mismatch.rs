//! One reason why a guest does not fit a host: where it stands, what it is called, both values and
//! what an operator can do. Decides nothing.

use alloc::borrow::Cow;
use alloc::format;
use core::fmt;

use crate::controls;
use crate::cpuid::Register;
use crate::rules::Kind;

/// Where a mismatch stands. Ordered as a report lists them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    /// The processor's maker.
    Vendor,
    /// A CPUID answer.
    Cpuid {
        /// Leaf.
        leaf: u32,
        /// Subleaf; 0 where the leaf has none.
        subleaf: u32,
        /// Register of the answer.
        register: Register,
        /// The bit, when it is about one bit and not about a number.
        bit: Option<u8>,
    },
    /// A feature MSR.
    Msr {
        /// Number of the register.
        index: u32,
        /// The bit, when it is about one bit and not about the whole register.
        bit: Option<u8>,
    },
    /// The frequency of the time-stamp counter.
    Tsc,
}

impl Place {
    pub(crate) const fn cpuid(leaf: u32, subleaf: u32, register: Register) -> Self {
        Self::Cpuid {
            leaf,
            subleaf,
            register,
            bit: None,
        }
    }

    pub(crate) const fn msr(index: u32) -> Self {
        Self::Msr { index, bit: None }
    }

    /// One bit of the same register.
    pub(crate) const fn with_bit(mut self, bit: u8) -> Self {
        match &mut self {
            Self::Cpuid { bit: of, .. } | Self::Msr { bit: of, .. } => *of = Some(bit),
            Self::Vendor | Self::Tsc => {}
        }
        self
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bit = match *self {
            Self::Vendor => return out.write_str("CPUID 0 vendor"),
            Self::Tsc => return out.write_str("TSC kHz"),
            Self::Cpuid {
                leaf,
                subleaf,
                register,
                bit,
            } => {
                write!(out, "CPUID {leaf:#x}.{subleaf} {register}")?;
                bit
            }
            Self::Msr { index, bit } => {
                write!(out, "MSR {index:#x}")?;
                bit
            }
        };
        bit.map_or(Ok(()), |bit| write!(out, " bit {bit}"))
    }
}

/// In which way guest and host differ.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum MismatchKind {
    /// Different makers.
    Vendor,
    /// A maker that no rule was written for, on one side or on both.
    NoRules,
    /// The guest sees a named feature that the host lacks.
    Missing,
    /// The guest sees a bit without a known meaning that the host does not show.
    Unknown,
    /// The host has a lack that the guest was not told about.
    Appears,
    /// The guest's number exceeds the host's.
    TooLarge,
    /// Both must be equal and are not.
    Differs,
    /// One side did not say what the rule needs to know.
    NotStated,
}

impl MismatchKind {
    fn phrase(self) -> &'static str {
        match self {
            Self::Vendor => "not the same maker",
            Self::NoRules => "there are no rules for this maker",
            Self::Missing => "the host lacks it",
            Self::Unknown => "the host does not show it",
            Self::Appears => "the guest was not told of it",
            Self::TooLarge => "more than the host has",
            Self::Differs => "must be equal",
            Self::NotStated => "not stated",
        }
    }
}

/// What an operator can do about it.
fn remedy(place: Place, kind: MismatchKind, name: &str) -> Cow<'static, str> {
    if let (MismatchKind::Missing, Some(reason)) = (kind, controls::why_it_stays(name)) {
        return Cow::Owned(format!(
            "{reason}: power the guest off and start it without {name}"
        ));
    }
    let text = match kind {
        _ if place == Place::Tsc => {
            "choose a target of the guest's frequency, or one whose processor can scale it"
        }
        MismatchKind::Vendor => "choose a target with a processor of the guest's maker",
        MismatchKind::NoRules => {
            "guests move between processors of Intel, of AMD or of Hygon: choose hosts with such"
        }
        MismatchKind::Missing if controls::is_promise(name) => {
            return Cow::Owned(format!(
                "the target's processor is affected by what {name} rules out, or its kernel and \
                 microcode don't say that it is not: power the guest off and start it in mode \
                 `common` of both hosts, or choose a target that is not affected"
            ));
        }
        MismatchKind::Missing if controls::is_speculation(name) => {
            return Cow::Owned(format!(
                "the target's kernel or microcode hides {name}: bring it to the source's version, \
                 or power the guest off and start it in mode `common` of both hosts"
            ));
        }
        MismatchKind::Missing | MismatchKind::Unknown | MismatchKind::Appears => {
            "power the guest off and start it in mode `common` of both hosts, or choose a target \
             like the source"
        }
        MismatchKind::TooLarge => {
            "power the guest off and start it in mode `common` of both hosts, or choose a target \
             that offers as much"
        }
        MismatchKind::Differs => {
            "power the guest off and start it in mode `common` of both hosts, or choose a target \
             on which the value is the same"
        }
        MismatchKind::NotStated => "state the value in the guest's description",
    };
    Cow::Borrowed(text)
}

/// One reason why a guest does not fit a host. Its `Display` is one line, without the remedy.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Mismatch {
    /// Where it stands: leaf, subleaf, register and bit, or the MSR.
    pub place: Place,
    /// What it is called, as Linux and QEMU spell it; a bit without a name is called
    /// `unknown 7.0.edx bit 12`.
    pub name: Cow<'static, str>,
    /// In which way the two differ.
    pub kind: MismatchKind,
    /// How the rules compare such a field; `None` of what no row stands for.
    pub rule: Option<Kind>,
    /// The guest's value: the whole register for a bit, the field for a number, kHz for the TSC.
    pub guest: u64,
    /// The host's value, in the same unit.
    pub host: u64,
    /// What an operator can do about it.
    pub remedy: Cow<'static, str>,
}

/// Something that differs and is forgiven.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Warning {
    /// What differs.
    pub mismatch: Mismatch,
    /// Why the guest may come all the same.
    pub forgiven: &'static str,
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}; forgiven: {}", self.mismatch, self.forgiven)
    }
}

impl Mismatch {
    pub(crate) fn new(
        place: Place,
        name: impl Into<Cow<'static, str>>,
        kind: MismatchKind,
        rule: Option<Kind>,
        (guest, host): (u64, u64),
    ) -> Self {
        let name = name.into();
        Self {
            place,
            remedy: remedy(place, kind, &name),
            name,
            kind,
            rule,
            guest,
            host,
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            name,
            kind,
            rule,
            guest,
            host,
            ..
        } = self;
        let phrase = kind.phrase();
        match place {
            Place::Vendor => write!(out, "{name}: {phrase}"),
            Place::Tsc => write!(out, "{name}: {phrase} (guest {guest} kHz, host {host} kHz)"),
            Place::Cpuid { .. } | Place::Msr { .. } => {
                write!(out, "{name} ({place}")?;
                rule.map_or(Ok(()), |rule| write!(out, ", {rule}"))?;
                write!(out, "): {phrase} (guest {guest:#x}, host {host:#x})")
            }
        }
    }
}
