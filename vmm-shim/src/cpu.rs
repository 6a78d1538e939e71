//! The processor: what this host's KVM can give a guest, and what a guest is given. It compares
//! nothing: that is `limosa-compat`'s.

use kvm_bindings::{
    CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd};
use limosa_compat::{
    CpuidEntry, CpuidTable, FEATURE_MSRS_MAX, GuestCpu, HostCpu, MsrTable, Processor, Register,
    TableError, TscScaling,
};

use crate::state::msrs;
use crate::vm::VmError;

/// Why the processor can't be described.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// KVM does not answer.
    #[error(transparent)]
    Kvm(#[from] VmError),
    /// KVM's answer breaks the rules of a table.
    #[error("KVM's description of the processor: {0}")]
    Table(#[from] TableError),
}

/// Leaf, subleaf and registers that hold one feature per bit.
/// Source: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; Linux
/// Documentation/virt/kvm/x86/cpuid.rst.
const FEATURE_WORDS: &[(u32, u32, &[Register])] = &[
    (1, 0, &[Register::Ecx, Register::Edx]),
    (7, 0, &[Register::Ebx, Register::Ecx, Register::Edx]),
    (7, 1, &[Register::Eax, Register::Ebx, Register::Edx]),
    (7, 2, &[Register::Edx]),
    (0xd, 0, &[Register::Eax, Register::Edx]),
    (0xd, 1, &[Register::Eax, Register::Ecx, Register::Edx]),
    (0x4000_0001, 0, &[Register::Eax]),
    (0x8000_0001, 0, &[Register::Ecx, Register::Edx]),
    (0x8000_0007, 0, &[Register::Edx]),
    (0x8000_0008, 0, &[Register::Ebx]),
    (0x8000_0021, 0, &[Register::Eax]),
];

/// Features that guests are not given, because what belongs to them would not travel.
const WITHHELD: &[(u32, u32, Register, u32)] = &[
    // Nested virtualization (VMX, SVM): the inner guests' state.
    (1, 0, Register::Ecx, 1 << 5),
    (0x8000_0001, 0, Register::Ecx, 1 << 2),
    // Performance counters (PDCM, and AMD's core, north-bridge and last-level ones).
    (1, 0, Register::Ecx, 1 << 15),
    (0x8000_0001, 0, Register::Ecx, 1 << 23 | 1 << 24 | 1 << 28),
    // Enclaves (SGX), and processor trace.
    (7, 0, Register::Ebx, 1 << 2 | 1 << 25),
];

/// Leaves that only describe withheld features.
const WITHHELD_LEAVES: &[u32] = &[0xa, 0x12, 0x14, 0x8000_000a, 0x8000_0022];

/// CPUID entries as a table; of answers that come twice the first counts.
pub(crate) fn table(entries: &[kvm_cpuid_entry2]) -> Result<CpuidTable, TableError> {
    let mut found: Vec<CpuidEntry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let indexed = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
        let subleaf = if indexed { entry.index } else { 0 };
        let twice = |other: &CpuidEntry| other.leaf == entry.function && other.subleaf == subleaf;
        if !found.iter().any(twice) {
            found.push(CpuidEntry {
                leaf: entry.function,
                subleaf,
                eax: entry.eax,
                ebx: entry.ebx,
                ecx: entry.ecx,
                edx: entry.edx,
            });
        }
    }
    CpuidTable::new(found)
}

/// What a guest that comes to this host may have.
///
/// KVM's own list falls short on some hosts of what guests then see. So it is united with what a
/// vCPU reads back that was given that list: feature words bit by bit; all else as read back.
///
/// # Errors
/// [`CpuError`], when KVM can't be asked.
pub fn host_cpu(kvm: &Kvm) -> Result<HostCpu, CpuError> {
    let supported = supported(kvm)?;
    let vm = kvm.create_vm();
    let vm = vm.map_err(|error| VmError::refused("KVM_CREATE_VM", error))?;
    // A vCPU with its local APIC in the kernel, as guests have it.
    vm.create_irq_chip()
        .map_err(|error| VmError::refused("KVM_CREATE_IRQCHIP", error))?;
    let vcpu = vm.create_vcpu(0);
    let vcpu = vcpu.map_err(|error| VmError::refused("KVM_CREATE_VCPU", error))?;
    let seen = install(&vcpu, &supported)?;
    let tsc_scaling = if kvm.check_extension_int(Cap::TscControl) > 0 {
        TscScaling::Yes
    } else {
        TscScaling::No
    };
    let offer = Processor {
        cpuid: unite(&table(&supported)?, &table(&seen)?)?,
        msrs: feature_msrs(kvm, &vcpu)?,
    };
    let tsc_khz = vcpu.get_tsc_khz().unwrap_or(0);
    Ok(HostCpu::plain(offer, tsc_khz, tsc_scaling))
}

/// The processor that a guest is given: CPUID for each of its vCPUs.
pub(crate) fn guest_cpuid(
    kvm: &Kvm,
    vcpu_count: u16,
) -> Result<Vec<Vec<kvm_cpuid_entry2>>, VmError> {
    let mut given = supported(kvm)?;
    given.retain(|entry| !WITHHELD_LEAVES.contains(&entry.function));
    for entry in &mut given {
        for (leaf, subleaf, register, bits) in WITHHELD {
            if (entry.function, entry.index) == (*leaf, *subleaf) {
                *word(entry, *register) &= !bits;
            }
        }
    }
    let count = u32::from(vcpu_count);
    let vcpus = (0..count).map(|index| {
        let mut entries = given.clone();
        entries
            .iter_mut()
            .for_each(|entry| place(entry, index, count));
        entries
    });
    Ok(vcpus.collect())
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

/// The processor that a guest was promised, as it goes into an offer.
pub(crate) fn guest_cpu(
    kvm: &Kvm,
    vcpu: &VcpuFd,
    cpuid: &[kvm_cpuid_entry2],
    vcpu_count: u16,
) -> Result<GuestCpu, CpuError> {
    Ok(GuestCpu {
        processor: Processor {
            cpuid: table(cpuid)?,
            msrs: feature_msrs(kvm, vcpu)?,
        },
        tsc_khz: vcpu.get_tsc_khz().unwrap_or(0),
        vcpu_count,
        baseline: "off".into(),
    })
}

fn supported(kvm: &Kvm) -> Result<Vec<kvm_cpuid_entry2>, VmError> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(|error| VmError::refused("KVM_GET_SUPPORTED_CPUID", error))?;
    let mut entries = supported.as_slice().to_vec();
    // Older kernels have the deadline timer without listing it.
    // Source: Linux Documentation/virt/kvm/api.rst, KVM_GET_SUPPORTED_CPUID.
    if kvm.check_extension_int(Cap::TscDeadlineTimer) > 0 {
        let leaf_1 = entries.iter_mut().filter(|entry| entry.function == 1);
        leaf_1.for_each(|entry| entry.ecx |= 1 << 24);
    }
    Ok(entries)
}

/// As the vCPU sees them: those of a fresh vCPU are what KVM gives any guest here.
fn feature_msrs(kvm: &Kvm, vcpu: &VcpuFd) -> Result<MsrTable, CpuError> {
    let Ok(list) = kvm.get_msr_feature_index_list() else {
        // Linux before 4.18.
        return Ok(MsrTable::default());
    };
    let mut wanted = list.as_slice().to_vec();
    wanted.sort_unstable();
    wanted.dedup();
    wanted.truncate(FEATURE_MSRS_MAX);
    let found = msrs::read_what_is_there(vcpu, &wanted)
        .map_err(|error| VmError::refused("KVM_GET_MSRS", error))?;
    let values = found.iter().map(|entry| (entry.index, entry.data));
    Ok(MsrTable::new(values.collect())?)
}

fn unite(supported: &CpuidTable, seen: &CpuidTable) -> Result<CpuidTable, TableError> {
    let mut entries = seen.entries().to_vec();
    for entry in supported.entries() {
        if seen.find(entry.leaf, entry.subleaf).is_none() {
            entries.push(*entry);
        }
    }
    for entry in &mut entries {
        let key = (entry.leaf, entry.subleaf);
        let words = FEATURE_WORDS.iter();
        let words = words.filter(|word| (word.0, word.1) == key);
        for register in words.flat_map(|word| word.2) {
            *entry.register_mut(*register) |=
                supported.register(entry.leaf, entry.subleaf, *register);
        }
        if (entry.leaf, entry.subleaf) == (0xd, 0) {
            // The size of the vector state with everything that either knows.
            entry.ecx = entry.ecx.max(supported.register(0xd, 0, Register::Ecx));
        }
    }
    CpuidTable::new(entries)
}

fn word(entry: &mut kvm_cpuid_entry2, register: Register) -> &mut u32 {
    match register {
        Register::Eax => &mut entry.eax,
        Register::Ebx => &mut entry.ebx,
        Register::Ecx => &mut entry.ecx,
        Register::Edx => &mut entry.edx,
    }
}

/// Says which vCPU it is, of how many: one package, a core per vCPU, a thread per core.
fn place(entry: &mut kvm_cpuid_entry2, index: u32, count: u32) {
    let id_bits = count.next_power_of_two().trailing_zeros();
    match (entry.function, entry.index) {
        (1, _) => {
            entry.ebx = entry.ebx & 0xffff | count << 16 | index << 24;
            if count > 1 {
                entry.edx |= 1 << 28;
            }
        }
        (0xb | 0x1f, 0) => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 1, 0x100, index);
        }
        (0xb | 0x1f, 1) => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (id_bits, count, 0x201, index);
        }
        (0xb | 0x1f, _) => entry.edx = index,
        (0x8000_0008, _) => entry.ecx = id_bits << 12 | (count - 1),
        (0x8000_001e, _) => (entry.eax, entry.ebx, entry.ecx) = (index, index, 0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            ..kvm_cpuid_entry2::default()
        }
    }

    #[test]
    fn feature_words_are_united_and_numbers_are_as_read_back() {
        let supported = [
            kvm_cpuid_entry2 {
                eax: 1,
                ecx: 0b0011,
                ..entry(1, 0)
            },
            kvm_cpuid_entry2 {
                ecx: 512,
                ..entry(0xd, 0)
            },
            entry(0x4000_0000, 0),
        ];
        let seen = [
            kvm_cpuid_entry2 {
                eax: 2,
                ecx: 0b0110,
                ..entry(1, 0)
            },
            kvm_cpuid_entry2 {
                ecx: 832,
                ..entry(0xd, 0)
            },
        ];
        let of = |entries: &[_]| table(entries).expect("table");
        let united = unite(&of(&supported), &of(&seen)).expect("table");
        assert_eq!(united.register(1, 0, Register::Ecx), 0b0111);
        assert_eq!(united.register(1, 0, Register::Eax), 2);
        assert_eq!(united.register(0xd, 0, Register::Ecx), 832);
        assert!(united.find(0x4000_0000, 0).is_some());
    }

    #[test]
    fn subleaves_count_only_where_they_are_significant() {
        let mut twice = [entry(2, 0), entry(2, 1), entry(4, 0), entry(4, 1)];
        twice[2].flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        twice[3].flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        let table = table(&twice).expect("table");
        let keys = table.entries().iter();
        let keys: Vec<_> = keys.map(|entry| (entry.leaf, entry.subleaf)).collect();
        assert_eq!(keys, [(2, 0), (4, 0), (4, 1)]);
    }

    #[test]
    fn every_vcpu_knows_its_place() {
        let mut leaf_1 = entry(1, 0);
        place(&mut leaf_1, 5, 6);
        assert_eq!(leaf_1.ebx >> 24, 5);
        assert_eq!(leaf_1.ebx >> 16 & 0xff, 6);
        let mut leaf_b = entry(0xb, 1);
        place(&mut leaf_b, 5, 6);
        assert_eq!((leaf_b.eax, leaf_b.ebx, leaf_b.edx), (3, 6, 5));
    }
}
