//! Can this guest live on that host? Everything that the guest was promised, the host must be able
//! to give. Lists every reason against; chooses no host and repairs nothing.

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;

use crate::cpuid::{CpuidTable, Register};
use crate::forgiven;
use crate::guest::GuestCpu;
use crate::host::{HostCpu, TscScaling};
use crate::mismatch::{Mismatch, MismatchKind, Place, Warning};
use crate::msr;
use crate::processor::Processor;
use crate::rules::{Field, Inverse, Kind, Word, cpuid_word, meaning_of_zero, msr_word};
use crate::xsave;

/// Largest difference of two TSC frequencies that counts as none, in parts per million.
///
/// KVM runs a guest unscaled within this distance (its module parameter `tsc_tolerance_ppm`): two
/// boots of one machine already differ by a few parts through calibration.
const TSC_TOLERANCE_PPM: u64 = 250;

/// The answer to "can this guest live on that host?".
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Judgement {
    /// Every reason against it, in the order vendor, CPUID, MSRs, TSC. Empty: the guest fits.
    ///
    /// Bounded by the sizes of the two tables, so by what the decoder of an offer lets through.
    pub mismatches: Vec<Mismatch>,
    /// What differs and is forgiven, each with the reason why.
    pub warnings: Vec<Warning>,
}

impl Judgement {
    /// Whether nothing speaks against it.
    pub fn fits(&self) -> bool {
        self.mismatches.is_empty()
    }
}

/// Compares what the guest was promised with what the host accepts.
///
/// Symmetric in nothing: a guest that fits here may find no way back. A guest whose vendor is
/// unknown is always refused, even onto an equal host. Between vendors nothing else is compared:
/// the same bit means another thing there.
pub fn judge(guest: &GuestCpu, host: &HostCpu) -> Judgement {
    let mut found = Judgement::default();
    let (promised, accepted) = (&guest.processor, &host.accept);
    found
        .mismatches
        .extend(judge_vendor(&promised.cpuid, &accepted.cpuid));
    if found.fits() {
        judge_cpuid(promised, accepted, &mut found);
        judge_msrs(promised, accepted, &mut found);
        found.mismatches.extend(judge_tsc(guest, host));
    }
    found.mismatches.sort_by_key(|mismatch| mismatch.place);
    found
}

/// Two registers that are compared, and where they stand.
struct Pair<'a> {
    place: Place,
    guest: u64,
    host: u64,
    promised: &'a Processor,
    accepted: &'a Processor,
}

fn judge_vendor(guest: &CpuidTable, host: &CpuidTable) -> Option<Mismatch> {
    let name = match (guest.vendor(), host.vendor()) {
        (Ok(guest), Ok(host)) if guest == host => return None,
        (Ok(guest), Ok(host)) => format!("vendor: guest {guest}, host {host}"),
        (Err(guest), Ok(host)) => format!("vendor: guest has an {guest}, host {host}"),
        (Ok(guest), Err(host)) => format!("vendor: guest {guest}, host has an {host}"),
        (Err(guest), Err(host)) => format!("vendor: guest has an {guest}, host an {host}"),
    };
    let first_letters = |table: &CpuidTable| {
        let word = |register| u64::from(table.register(0, 0, register).swap_bytes());
        word(Register::Ebx) << 32 | word(Register::Edx)
    };
    let values = (first_letters(guest), first_letters(host));
    let kind = match (guest.vendor(), host.vendor()) {
        (Ok(_), Ok(_)) => MismatchKind::Vendor,
        _ => MismatchKind::NoRules,
    };
    Some(Mismatch::new(Place::Vendor, name, kind, None, values))
}

fn judge_cpuid(guest: &Processor, accepted: &Processor, found: &mut Judgement) {
    for (leaf, subleaf) in guest.cpuid.questions_with(&accepted.cpuid) {
        if !xsave::is_shared(leaf, subleaf, &guest.cpuid, &accepted.cpuid) {
            continue;
        }
        for register in Register::ALL {
            let value = |table: &CpuidTable| u64::from(table.register(leaf, subleaf, register));
            let pair = Pair {
                place: Place::cpuid(leaf, subleaf, register),
                guest: value(&guest.cpuid),
                host: value(&accepted.cpuid),
                promised: guest,
                accepted,
            };
            // A guest that can't ask was never told anything that may change.
            let told = guest.cpuid.tells(leaf, subleaf);
            if pair.guest != pair.host && (told || pair.guest != 0) {
                judge_register(&pair, cpuid_word(leaf, subleaf, register), found);
            }
        }
    }
}

fn judge_msrs(guest: &Processor, accepted: &Processor, found: &mut Judgement) {
    found.mismatches.extend(not_stated(guest, accepted));
    for &(index, value) in guest.msrs.values() {
        if !guest.shows_msr(index) {
            continue;
        }
        // What the host states and does not show, no guest of it can read.
        let shown = accepted
            .msrs
            .get(index)
            .filter(|_| accepted.shows_msr(index));
        let pair = Pair {
            place: Place::msr(index),
            guest: value,
            host: shown.unwrap_or(0),
            promised: guest,
            accepted,
        };
        if pair.guest != pair.host {
            judge_register(&pair, msr_word(index), found);
        }
    }
}

/// Registers that the guest's CPUID shows and its description leaves out: nobody knows what it has
/// read there. All that the host states, and IA32_ARCH_CAPABILITIES in any case.
fn not_stated(guest: &Processor, accepted: &Processor) -> Vec<Mismatch> {
    let of_host = accepted.msrs.values().iter().map(|&(index, _)| index);
    let mut asked: Vec<_> = of_host.filter(|index| msr::is_gated(*index)).collect();
    asked.retain(|index| accepted.shows_msr(*index));
    asked.push(msr::ARCH_CAPABILITIES);
    asked.sort_unstable();
    asked.dedup();
    asked.retain(|index| guest.shows_msr(*index) && guest.msrs.get(*index).is_none());
    let mismatch = |index: u32| {
        let place = Place::msr(index);
        let name = match index {
            msr::ARCH_CAPABILITIES => Cow::Borrowed("arch-capabilities"),
            _ => Cow::Owned(format!("feature {place}")),
        };
        let values = (0, accepted.msrs.get(index).unwrap_or(0));
        Mismatch::new(place, name, MismatchKind::NotStated, None, values)
    };
    asked.into_iter().map(mismatch).collect()
}

fn judge_register(pair: &Pair<'_>, word: Option<&Word>, found: &mut Judgement) {
    let &Pair {
        place, guest, host, ..
    } = pair;
    let Some(word) = word else {
        if guest != 0 {
            let (kind, values) = (MismatchKind::Differs, (guest, host));
            let name = format!("unknown {place}");
            let mismatch = Mismatch::new(place, name, kind, None, values);
            found.mismatches.push(mismatch);
        }
        return;
    };
    let mut known = 0;
    for field in word.fields {
        known |= field.mask();
        judge_field(pair, field, found);
    }
    let unknown = guest & !host & !known;
    for bit in (0..64_u8).filter(|bit| unknown >> bit & 1 == 1) {
        let place = place.with_bit(bit);
        let name = format!("unknown {place}");
        let (kind, values) = (MismatchKind::Unknown, (guest, host));
        let mismatch = Mismatch::new(place, name, kind, None, values);
        found.mismatches.push(mismatch);
    }
}

fn judge_field(pair: &Pair<'_>, field: &Field, found: &mut Judgement) {
    let (guest, host) = values_of(field, pair.guest, pair.host);
    let kind = match field.kind {
        Kind::Feature if guest & !host != 0 => MismatchKind::Missing,
        Kind::Inverse(Inverse::Behaviour) if host & !guest != 0 => MismatchKind::Appears,
        Kind::Inverse(Inverse::Mitigation) if guest & !host != 0 => MismatchKind::Missing,
        Kind::NumericMin if guest > host => MismatchKind::TooLarge,
        Kind::NumericEqual if guest != 0 && guest != host => MismatchKind::Differs,
        _ => return,
    };
    // Of a bit the whole register is shown, because that is what other tools print.
    let (place, values) = if field.bits == 1 {
        (pair.place.with_bit(field.low), (pair.guest, pair.host))
    } else {
        (pair.place, (guest, host))
    };
    let mismatch = Mismatch::new(place, field.name, kind, Some(field.kind), values);
    match forgiven::reason(field, pair.promised, pair.accepted) {
        Some(forgiven) => found.warnings.push(Warning { mismatch, forgiven }),
        None => found.mismatches.push(mismatch),
    }
}

/// A field of both sides. Where only one of them fills it in, the other's zero may mean something.
fn values_of(field: &Field, guest: u64, host: u64) -> (u64, u64) {
    match (field.of(guest), field.of(host)) {
        (0, 0) => (0, 0),
        (guest_value, host_value) => {
            let meant = |value, register| match value {
                0 => meaning_of_zero(field, register),
                value => value,
            };
            (meant(guest_value, guest), meant(host_value, host))
        }
    }
}

fn judge_tsc(guest: &GuestCpu, host: &HostCpu) -> Option<Mismatch> {
    clock_mismatch(guest.tsc_khz, host.tsc_khz, host.tsc_scaling)
}

/// Why a guest whose time-stamp counter has this frequency (kHz; 0: it has none) can't live on a
/// host with that one (kHz; 0: not known), as far as time is concerned; `None` where it can.
pub fn clock_mismatch(guest_khz: u32, host_khz: u32, host_scaling: TscScaling) -> Option<Mismatch> {
    let (guest_khz, host_khz) = (u64::from(guest_khz), u64::from(host_khz));
    let apart = guest_khz.abs_diff(host_khz) * 1_000_000 > host_khz * TSC_TOLERANCE_PPM;
    let kind = match (guest_khz, host_scaling) {
        _ if !apart => return None,
        (0, _) => MismatchKind::NotStated,
        (_, TscScaling::Yes) => return None,
        (_, TscScaling::No) => MismatchKind::Differs,
    };
    let values = (guest_khz, host_khz);
    Some(Mismatch::new(
        Place::Tsc,
        "tsc-frequency",
        kind,
        None,
        values,
    ))
}
