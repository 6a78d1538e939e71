//! The strict rule: everything that the guest sees, the host must be able to give.
//! Lists every reason against; chooses no host and repairs nothing.

use alloc::format;
use alloc::vec::Vec;

use crate::cpuid::{CpuidTable, Register};
use crate::features::{Feature, FeatureRule, features};
use crate::guest::GuestCpu;
use crate::host::{HostCpu, TscScaling};
use crate::mismatch::{Mismatch, MismatchKind, Place};
use crate::msr::{self, MsrTable};
use crate::numbers::{NUMBERS, NumberRule, has_numbers, is_owned};
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
}

impl Judgement {
    /// Whether nothing speaks against it.
    pub fn fits(&self) -> bool {
        self.mismatches.is_empty()
    }
}

/// Compares what the guest was promised with what the host can give.
///
/// Symmetric in nothing: a guest that fits here may find no way back. A guest whose vendor is
/// unknown is always refused, even onto an equal host.
pub fn judge(guest: &GuestCpu, host: &HostCpu) -> Judgement {
    let mut mismatches = Vec::new();
    judge_vendor(&guest.table, &host.accept, &mut mismatches);
    judge_features(&guest.table, &host.accept, &mut mismatches);
    judge_numbers(&guest.table, &host.accept, &mut mismatches);
    xsave::judge_layout(&guest.table, &host.accept, &mut mismatches);
    judge_rest(&guest.table, &host.accept, &mut mismatches);
    judge_msrs(guest, &host.feature_msrs, &mut mismatches);
    judge_tsc(guest, host, &mut mismatches);
    mismatches.sort_by_key(|mismatch| mismatch.place);
    Judgement { mismatches }
}

fn judge_vendor(guest: &CpuidTable, host: &CpuidTable, found: &mut Vec<Mismatch>) {
    let name = match (guest.vendor(), host.vendor()) {
        (Ok(guest), Ok(host)) if guest == host => return,
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
    found.push(Mismatch::new(
        Place::Vendor,
        name,
        MismatchKind::Vendor,
        values,
    ));
}

fn same_register(a: &Feature, b: &Feature) -> bool {
    (a.leaf, a.subleaf, a.register) == (b.leaf, b.subleaf, b.register)
}

fn judge_features(guest: &CpuidTable, host: &CpuidTable, found: &mut Vec<Mismatch>) {
    for rows in features().chunk_by(same_register) {
        let Some(&Feature {
            leaf,
            subleaf,
            register,
            ..
        }) = rows.first()
        else {
            continue;
        };
        let guest_word = guest.register(leaf, subleaf, register);
        let host_word = host.register(leaf, subleaf, register);
        for bit in (0..32_u8).filter(|bit| (guest_word ^ host_word) >> bit & 1 == 1) {
            let row = rows
                .iter()
                .find(|row| row.bit == bit)
                .map(|row| (row.name, row.rule));
            let kind = bit_kind(row.map(|(_, rule)| rule), guest_word >> bit & 1 == 1);
            let Some(kind) = kind else { continue };
            let place = Place::Cpuid {
                leaf,
                subleaf,
                register,
                bit: Some(bit),
            };
            let values = (u64::from(guest_word), u64::from(host_word));
            found.push(match row {
                Some((name, _)) => Mismatch::new(place, name, kind, values),
                None => {
                    let name = format!("unknown {leaf:x}.{subleaf:x}.{register} bit {bit}");
                    Mismatch::new(place, name, kind, values)
                }
            });
        }
    }
}

/// What speaks against a bit in which guest and host differ; `rule` is `None` for a nameless bit.
fn bit_kind(rule: Option<FeatureRule>, guest_has_it: bool) -> Option<MismatchKind> {
    match (rule, guest_has_it) {
        (Some(FeatureRule::Needed), true) => Some(MismatchKind::Missing),
        (None, true) => Some(MismatchKind::Unknown),
        (Some(FeatureRule::Lack), false) => Some(MismatchKind::Appears),
        (Some(FeatureRule::Needed) | None, false)
        | (Some(FeatureRule::Lack), true)
        | (Some(FeatureRule::Owned), _) => None,
    }
}

fn judge_numbers(guest: &CpuidTable, host: &CpuidTable, found: &mut Vec<Mismatch>) {
    for number in NUMBERS {
        let (guest_value, host_value) = number.values(guest, host);
        let kind = match number.rule {
            NumberRule::AtMost | NumberRule::AtMostOr(_) if guest_value > host_value => {
                MismatchKind::TooLarge
            }
            NumberRule::Equal if guest_value != 0 && guest_value != host_value => {
                MismatchKind::Differs
            }
            NumberRule::AtMost | NumberRule::AtMostOr(_) | NumberRule::Equal => continue,
        };
        let (leaf, subleaf, register) = (number.leaf, number.subleaf, number.register);
        let place = Place::Cpuid {
            leaf,
            subleaf,
            register,
            bit: None,
        };
        let values = (u64::from(guest_value), u64::from(host_value));
        found.push(Mismatch::new(place, number.name, kind, values));
    }
}

/// Registers that no table knows: equal wherever the guest sees something.
fn judge_rest(guest: &CpuidTable, host: &CpuidTable, found: &mut Vec<Mismatch>) {
    for entry in guest.entries() {
        let (leaf, subleaf) = (entry.leaf, entry.subleaf);
        for register in Register::ALL {
            let has_features = features()
                .iter()
                .any(|row| (row.leaf, row.subleaf, row.register) == (leaf, subleaf, register));
            let known = has_features
                || has_numbers(leaf, subleaf, register)
                || is_owned(leaf, subleaf, register);
            let guest_value = entry.register(register);
            let host_value = host.register(leaf, subleaf, register);
            if known || guest_value == 0 || guest_value == host_value {
                continue;
            }
            let place = Place::Cpuid {
                leaf,
                subleaf,
                register,
                bit: None,
            };
            let name = format!("leaf {leaf:x}.{subleaf:x}.{register}");
            let values = (u64::from(guest_value), u64::from(host_value));
            found.push(Mismatch::new(place, name, MismatchKind::Differs, values));
        }
    }
}

fn judge_msrs(guest: &GuestCpu, host: &MsrTable, found: &mut Vec<Mismatch>) {
    let ecx = guest.table.register(1, 0, Register::Ecx);
    let (sees_vmx, sees_pdcm) = (ecx >> 5 & 1 == 1, ecx >> 15 & 1 == 1);
    let sees_arch_capabilities = guest.table.register(7, 0, Register::Edx) >> 29 & 1 == 1;
    if sees_arch_capabilities && guest.feature_msrs.get(msr::ARCH_CAPABILITIES).is_none() {
        let place = Place::Msr {
            index: msr::ARCH_CAPABILITIES,
            bit: None,
        };
        let host_value = host.get(msr::ARCH_CAPABILITIES).unwrap_or_default();
        let values = (0, host_value);
        found.push(Mismatch::new(
            place,
            "arch-capabilities",
            MismatchKind::NotStated,
            values,
        ));
    }
    for &(index, value) in guest.feature_msrs.values() {
        let visible = match index {
            msr::MICROCODE_REVISION => false,
            msr::ARCH_CAPABILITIES => sees_arch_capabilities,
            msr::PERF_CAPABILITIES => sees_pdcm,
            _ => sees_vmx || !msr::VMX_CAPABILITIES.contains(&index),
        };
        if visible {
            judge_msr(index, value, host.get(index), found);
        }
    }
}

fn judge_msr(index: u32, guest: u64, host: Option<u64>, found: &mut Vec<Mismatch>) {
    let whole = Place::Msr { index, bit: None };
    let Some(host) = host else {
        let name = format!("msr {index:x}");
        found.push(Mismatch::new(
            whole,
            name,
            MismatchKind::Missing,
            (guest, 0),
        ));
        return;
    };
    if index != msr::ARCH_CAPABILITIES {
        if guest != host {
            let name = format!("msr {index:x}");
            found.push(Mismatch::new(
                whole,
                name,
                MismatchKind::Differs,
                (guest, host),
            ));
        }
        return;
    }
    for bit in (0..64_u8).filter(|bit| (guest ^ host) >> bit & 1 == 1) {
        let row = msr::ARCH_CAPABILITIES_BITS
            .iter()
            .find(|row| row.bit == bit);
        let kind = bit_kind(row.map(|row| row.rule), guest >> bit & 1 == 1);
        let Some(kind) = kind else { continue };
        let place = Place::Msr {
            index,
            bit: Some(bit),
        };
        found.push(match row {
            Some(row) => Mismatch::new(place, row.name, kind, (guest, host)),
            None => {
                let name = format!("unknown msr {index:x} bit {bit}");
                Mismatch::new(place, name, kind, (guest, host))
            }
        });
    }
}

fn judge_tsc(guest: &GuestCpu, host: &HostCpu, found: &mut Vec<Mismatch>) {
    let (guest_khz, host_khz) = (u64::from(guest.tsc_khz), u64::from(host.tsc_khz));
    let apart = guest_khz.abs_diff(host_khz) * 1_000_000 > host_khz * TSC_TOLERANCE_PPM;
    let kind = match (guest_khz, host.tsc_scaling) {
        _ if !apart => return,
        (0, _) => MismatchKind::NotStated,
        (_, TscScaling::Yes) => return,
        (_, TscScaling::No) => MismatchKind::Differs,
    };
    found.push(Mismatch::new(
        Place::Tsc,
        "tsc-frequency",
        kind,
        (guest_khz, host_khz),
    ));
}
