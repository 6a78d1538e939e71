//! The processor: what this host's KVM can give a guest (`capture.rs`), what a guest is given, and
//! whether it then sees that. Which of two processors is enough is `limosa-compat`'s.

mod capture;
pub(crate) mod entries;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Kvm, VcpuFd};
use limosa_compat::{
    Difference, GuestCpu, Mode, MsrTable, Place, PoolError, Processor, Register, ShapeError,
    Shaped, TableError, differences, restrict, shape,
};
use limosa_pages::MemoryMap;

pub use capture::host_cpu;
pub(crate) use capture::{Answers, host_of};

use crate::spec::{CpuSpec, Enforcement};
use crate::state::{StateError, msrs};
use crate::vcpu::Vcpu;
use crate::vm::VmError;

/// Why a guest can't be given a processor, or a host's can't be described.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// KVM does not answer.
    #[error(transparent)]
    Kvm(#[from] VmError),
    /// KVM's answer breaks the rules of a table.
    #[error("KVM's description of the processor: {0}")]
    Table(#[from] TableError),
    /// The mode does not go with this host and its pool.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// This host can't pretend to be another one.
    #[error("this host can't pretend to be that one: {0}")]
    Pretend(PoolError),
    /// KVM shows guests another processor than it is told to.
    #[error("{}", not_enforced_text(baseline, shown, hidden))]
    NotEnforced {
        /// The baseline that was asked for.
        baseline: &'static str,
        /// What KVM shows although it is to be hidden.
        shown: Vec<String>,
        /// What KVM hides although it is to be shown.
        hidden: Vec<String>,
    },
    /// KVM shows the guest's vCPUs unlike processors: only one can be promised.
    #[error(
        "KVM shows vCPU {vcpu} another processor than the first: {}; start the guest with one \
         vCPU, or on a host whose processors are alike", found.join(", ")
    )]
    Uneven {
        /// Which vCPU, counted from 0.
        vcpu: usize,
        /// Each field, with what the first sees (promised) and what this one sees.
        found: Vec<String>,
    },
    /// Guest memory beyond the guest's physical addresses.
    #[error(
        "the guest's memory ends at {end:#x}, its physical addresses of {bits} bits before that: \
         give less memory, or a baseline with wider addresses"
    )]
    Memory {
        /// The end of its memory.
        end: u64,
        /// The width of its physical addresses.
        bits: u32,
    },
}

fn not_enforced_text(baseline: &str, shown: &[String], hidden: &[String]) -> String {
    let mut text = format!("mode {baseline} can't be kept on this host: ");
    if !shown.is_empty() {
        text += &format!(
            "its KVM can't hide {}, so the baseline would be a false promise",
            shown.join(", ")
        );
    }
    if !hidden.is_empty() {
        let and = if shown.is_empty() { "" } else { "; and " };
        text += &format!("{and}its KVM does not show {}", hidden.join(", "));
    }
    text + "; start the guest in mode off, on a host whose KVM obeys, or unenforced: it is judged \
            then by what it really sees"
}

/// What a new guest is to see on this host.
pub(crate) fn choose(kvm: &Kvm, spec: &CpuSpec) -> Result<Shaped, CpuError> {
    let truth = host_cpu(kvm)?;
    let here = match &spec.pretend {
        Some(pretended) => restrict(&truth, pretended).map_err(CpuError::Pretend)?,
        None => truth,
    };
    Ok(shape(spec.mode, &here.offer, &spec.pool)?)
}

/// Gives the vCPUs of a new guest what was chosen for it, and says what it was promised by that:
/// what KVM then shows it, which is what was chosen wherever KVM obeys.
///
/// # Errors
/// [`CpuError::NotEnforced`] where KVM does not, unless the spec allows that: the guest is promised
/// what it then really sees, which lacks all that KVM could hide.
pub(crate) fn give(
    kvm: &Kvm,
    vcpus: &mut [Vcpu],
    chosen: &Shaped,
    spec: &CpuSpec,
) -> Result<GuestCpu, CpuError> {
    let (guest, found) = install_on_all(kvm, vcpus, chosen)?;
    match (spec.mode, spec.enforcement) {
        (Mode::Off, _) => Ok(guest),
        (_, Enforcement::Strict) => check(chosen.name, &found).map(|()| guest),
        (_, Enforcement::Unenforced) if found.is_empty() => Ok(guest),
        (_, Enforcement::Unenforced) => Ok(GuestCpu {
            baseline: format!("{} (not enforced)", chosen.name),
            ..guest
        }),
    }
}

/// What the vCPUs see then, and where that differs from what was chosen.
fn install_on_all(
    kvm: &Kvm,
    vcpus: &mut [Vcpu],
    chosen: &Shaped,
) -> Result<(GuestCpu, Vec<Difference>), CpuError> {
    let vcpu_count = u16::try_from(vcpus.len()).unwrap_or(u16::MAX);
    let mut all_seen = Vec::with_capacity(vcpus.len());
    for vcpu in vcpus.iter_mut() {
        let wanted = entries::of_vcpu(&chosen.processor.cpuid, vcpu.index(), vcpu_count);
        let seen = install(vcpu.fd(), &wanted)?;
        // Once more, as it will be on each target: a host that refuses its own answer is found out
        // here and not in a migration.
        vcpu.set_cpuid(&seen)
            .map_err(|error| VmError::refused("KVM_SET_CPUID2", error))?;
        all_seen.push(Processor {
            cpuid: entries::table(&seen)?,
            msrs: give_msrs(kvm, vcpu.fd(), &chosen.processor)?,
        });
    }
    let processor = the_same_for_all(all_seen)?;
    let found = differences(&chosen.processor, &processor);
    let guest = GuestCpu {
        processor,
        tsc_khz: vcpus.first().map_or(0, Vcpu::native_tsc_khz),
        vcpu_count,
        baseline: chosen.name.into(),
    };
    Ok((guest, found))
}

/// The first vCPU's processor, once the others are found to see it too: a target keeps one promise
/// on every vCPU.
fn the_same_for_all(all_seen: Vec<Processor>) -> Result<Processor, CpuError> {
    let mut all_seen = all_seen.into_iter().enumerate();
    let first = all_seen.next().map(|(_, seen)| seen).unwrap_or_default();
    for (vcpu, seen) in all_seen {
        let found = differences(&first, &seen);
        if !found.is_empty() {
            let found = found.iter().map(ToString::to_string).collect();
            return Err(CpuError::Uneven { vcpu, found });
        }
    }
    Ok(first)
}

fn check(baseline: &'static str, found: &[Difference]) -> Result<(), CpuError> {
    // XCR0 and the sizes of leaf 0xd follow from features, which are named themselves.
    let follows = |difference: &Difference| match difference.place {
        Place::Cpuid { leaf, subleaf, .. } => leaf == 0xd && subleaf != 1,
        Place::Vendor | Place::Msr { .. } | Place::Tsc => false,
    };
    let all_follow = found.iter().all(follows);
    let names = |of: &dyn Fn(&&Difference) -> bool| -> Vec<String> {
        let named = found.iter().filter(|one| all_follow || !follows(one));
        named.filter(of).map(|one| one.name.to_string()).collect()
    };
    if found.is_empty() {
        return Ok(());
    }
    Err(CpuError::NotEnforced {
        baseline,
        shown: names(&|difference| difference.is_extra()),
        hidden: names(&|difference| !difference.is_extra()),
    })
}

/// Sets the feature MSRs that are to differ from what KVM gives a vCPU by itself, and reads those
/// that the guest is promised. What KVM refuses is seen in the answer.
fn give_msrs(kvm: &Kvm, vcpu: &VcpuFd, chosen: &Processor) -> Result<MsrTable, CpuError> {
    for (index, value) in misfits(chosen, &capture::feature_msrs(kvm, vcpu)?) {
        msrs::try_write(vcpu, index, value)
            .map_err(|error| VmError::refused("KVM_SET_MSRS", error))?;
    }
    let all = capture::feature_msrs(kvm, vcpu)?;
    let promised = all.values().iter().copied();
    let promised = promised.filter(|(index, _)| chosen.msrs.get(*index).is_some());
    Ok(MsrTable::new(promised.collect())?)
}

/// The promised MSRs that are not as promised, with the values that they should have.
fn misfits(promised: &Processor, msrs: &MsrTable) -> Vec<(u32, u64)> {
    let seen = Processor {
        cpuid: promised.cpuid.clone(),
        msrs: msrs.clone(),
    };
    let found = differences(promised, &seen).into_iter();
    let mut indices: Vec<u32> = found
        .filter_map(|difference| match difference.place {
            Place::Msr { index, .. } => Some(index),
            Place::Vendor | Place::Tsc | Place::Cpuid { .. } => None,
        })
        .collect();
    indices.dedup();
    let value = |index| Some((index, promised.msrs.get(index)?));
    indices.into_iter().filter_map(value).collect()
}

/// Keeps a promise on a vCPU that has been given its CPUID and has not run yet: sets the feature
/// MSRs, reads all back, and finds what differs.
pub(crate) fn keep(vcpu: &Vcpu, promised: &Processor) -> Result<(), StateError> {
    let (number, fd) = (vcpu.index(), vcpu.fd());
    let failed = |call| StateError::vcpu(number, call);
    let seen = fd
        .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
        .map_err(failed("KVM_GET_CPUID2"))?;
    let indices: Vec<u32> = promised.msrs.values().iter().map(|msr| msr.0).collect();
    let read = || -> Result<MsrTable, StateError> {
        let found = msrs::read_what_is_there(fd, &indices).map_err(failed("KVM_GET_MSRS"))?;
        let values = found.iter().map(|entry| (entry.index, entry.data));
        Ok(MsrTable::new(values.collect()).unwrap_or_default())
    };
    let mut msrs = read()?;
    let misfits = misfits(promised, &msrs);
    if !misfits.is_empty() {
        for (index, value) in misfits {
            msrs::try_write(fd, index, value).map_err(failed("KVM_SET_MSRS"))?;
        }
        msrs = read()?;
    }
    let cpuid = entries::table(seen.as_slice()).unwrap_or_default();
    let found = differences(promised, &Processor { cpuid, msrs });
    if found.is_empty() {
        return Ok(());
    }
    let found = found.iter().map(ToString::to_string).collect();
    Err(StateError::OtherProcessor {
        vcpu: number,
        found,
    })
}

/// Gives the vCPUs of a guest that is to arrive what it was promised, while nobody waits for it.
/// The state that comes has the last word: a vCPU of which it says otherwise, and one that could
/// not be given its CPUID now, gets it then, and what is wrong is said then.
pub(crate) fn give_ahead(vcpus: &mut [Vcpu], promised: &GuestCpu) {
    let processor = &promised.processor;
    for vcpu in vcpus {
        // What is promised is what the first vCPU sees.
        let wanted = match vcpu.index() {
            0 => entries::as_it_is(&processor.cpuid),
            index => entries::of_vcpu(&processor.cpuid, index, promised.vcpu_count),
        };
        let is_offered = sees_what_was_offered(vcpu.index().into(), &wanted, processor);
        let given = is_offered && vcpu.set_cpuid(&wanted).is_ok() && keep(vcpu, processor).is_ok();
        if !given {
            vcpu.forget_cpuid();
        }
    }
}

/// Whether CPUID entries are those of the processor that was offered: the first vCPU's to the bit,
/// the others' but for what tells vCPUs apart.
pub(crate) fn sees_what_was_offered(
    index: usize,
    entries: &[kvm_cpuid_entry2],
    offered: &Processor,
) -> bool {
    let Ok(cpuid) = entries::table(entries) else {
        return false;
    };
    let msrs = offered.msrs.clone();
    let exact = index > 0 || cpuid == offered.cpuid;
    exact && differences(offered, &Processor { cpuid, msrs }).is_empty()
}

/// Gives a vCPU its CPUID, and returns what it really sees.
pub(crate) fn install(
    vcpu: &VcpuFd,
    entries: &[kvm_cpuid_entry2],
) -> Result<Vec<kvm_cpuid_entry2>, VmError> {
    let too_many = |_| kvm_ioctls::Error::new(libc::E2BIG);
    let refused = |error| VmError::refused("KVM_SET_CPUID2", error);
    let cpuid = CpuId::from_entries(entries).map_err(too_many);
    let cpuid = cpuid.map_err(refused)?;
    vcpu.set_cpuid2(&cpuid).map_err(refused)?;
    let seen = vcpu
        .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
        .map_err(|error| VmError::refused("KVM_GET_CPUID2", error))?;
    Ok(seen.as_slice().to_vec())
}

/// Whether a guest's memory lies within its physical addresses.
pub(crate) fn check_memory(processor: &Processor, map: &MemoryMap) -> Result<(), CpuError> {
    let bits = processor.cpuid.register(0x8000_0008, 0, Register::Eax) & 0xff;
    let end = map.end().address().get();
    match 1_u64.checked_shl(bits) {
        Some(beyond) if bits > 0 && end > beyond => Err(CpuError::Memory { end, bits }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use limosa_compat::{CpuidEntry, CpuidTable};

    use super::*;

    /// A processor with one word of features.
    fn with(ecx: u32) -> Processor {
        let entry = |leaf, eax, ecx| CpuidEntry {
            leaf,
            eax,
            ecx,
            ..CpuidEntry::default()
        };
        CpuidTable::new(vec![entry(0, 1, 0), entry(1, 0, ecx)])
            .expect("table")
            .into()
    }

    #[test]
    fn what_is_promised_is_seen_by_every_vcpu() {
        let same = the_same_for_all(vec![with(1), with(1), with(1)]);
        assert_eq!(same.expect("alike"), with(1));
        // What tells vCPUs apart, the enabled XCR0 here, is no difference.
        assert!(the_same_for_all(vec![with(1), with(1 | 1 << 27)]).is_ok());
        let Err(error) = the_same_for_all(vec![with(1), with(1), with(1 | 1 << 20)]) else {
            panic!("the third has sse4.2 and the first has not");
        };
        let text = error.to_string();
        assert!(text.contains("vCPU 2"), "{text}");
        assert!(text.contains("sse4.2"), "{text}");
    }
}
