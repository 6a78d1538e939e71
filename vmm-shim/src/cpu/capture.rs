//! What this host's KVM can give a guest, asked of KVM itself: its list of features, what a vCPU
//! then reads back, the feature MSRs, and whether a time-stamp counter can be scaled.

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm, VcpuFd};
use limosa_compat::{FEATURE_MSRS_MAX, HostCpu, Mode, MsrTable, Processor, TscScaling, shape};

use super::entries::table;
use super::{CpuError, install};
use crate::state::msrs;
use crate::sys_kvm;
use crate::vm::VmError;

/// What KVM answered without a machine being made: as long as it stays the same, so does the host.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Answers {
    supported: Vec<kvm_cpuid_entry2>,
    feature_msrs: Vec<(u32, u64)>,
}

impl Answers {
    /// Asks, which takes less than a millisecond.
    ///
    /// The permission for AMX comes first: KVM leaves out what this process may not give a guest.
    /// Source: Linux Documentation/arch/x86/xstate.rst.
    pub(crate) fn ask(kvm: &Kvm) -> Result<Self, CpuError> {
        sys_kvm::permit_amx();
        Ok(Self {
            supported: supported(kvm)?,
            feature_msrs: feature_msrs_of_host(kvm),
        })
    }
}

/// What a guest may have on this host.
///
/// That is what a vCPU reads back that was given all that KVM lists. KVM's own list is no measure:
/// on some hosts it falls short of what guests then see, and names what no guest is shown.
///
/// # Errors
/// [`CpuError`], when KVM can't be asked.
pub fn host_cpu(kvm: &Kvm) -> Result<HostCpu, CpuError> {
    host_of(kvm, &Answers::ask(kvm)?)
}

/// The same with answers that are known already.
pub(crate) fn host_of(kvm: &Kvm, answers: &Answers) -> Result<HostCpu, CpuError> {
    let vm = kvm.create_vm();
    let vm = vm.map_err(|error| VmError::refused("KVM_CREATE_VM", error))?;
    // A vCPU with its local APIC in the kernel, as guests have it.
    vm.create_irq_chip()
        .map_err(|error| VmError::refused("KVM_CREATE_IRQCHIP", error))?;
    let vcpu = vm.create_vcpu(0);
    let vcpu = vcpu.map_err(|error| VmError::refused("KVM_CREATE_VCPU", error))?;
    let seen = install(&vcpu, &answers.supported)?;
    let tsc_scaling = if kvm.check_extension_int(Cap::TscControl) > 0 {
        TscScaling::Yes
    } else {
        TscScaling::No
    };
    let accept = Processor {
        cpuid: table(&seen)?,
        msrs: feature_msrs(kvm, &vcpu)?,
    };
    let tsc_khz = vcpu.get_tsc_khz().unwrap_or(0);
    Ok(HostCpu {
        offer: shape(Mode::Off, &accept, &[])?.processor,
        about: about(),
        ..HostCpu::new(accept, tsc_khz, tsc_scaling)
    })
}

fn supported(kvm: &Kvm) -> Result<Vec<kvm_cpuid_entry2>, VmError> {
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(|error| VmError::refused("KVM_GET_SUPPORTED_CPUID", error))?;
    let mut entries = supported.as_slice().to_vec();
    // Which processor of the host was asked is noise.
    // Source: Linux Documentation/virt/kvm/x86/errata.rst.
    for entry in &mut entries {
        match entry.function {
            1 => entry.ebx &= 0x00ff_ffff,
            0xb | 0x1f => entry.edx = 0,
            0x8000_001e => entry.eax = 0,
            _ => {}
        }
    }
    // Older kernels have the deadline timer without listing it.
    // Source: Linux Documentation/virt/kvm/api.rst, KVM_GET_SUPPORTED_CPUID.
    if kvm.check_extension_int(Cap::TscDeadlineTimer) > 0 {
        let leaf_1 = entries.iter_mut().filter(|entry| entry.function == 1);
        leaf_1.for_each(|entry| entry.ecx |= 1 << 24);
    }
    Ok(entries)
}

fn feature_msr_list(kvm: &Kvm) -> Vec<u32> {
    // Not there before Linux 4.18.
    let list = kvm.get_msr_feature_index_list();
    let mut wanted = list.map_or_else(|_| Vec::new(), |list| list.as_slice().to_vec());
    wanted.sort_unstable();
    wanted.dedup();
    wanted.truncate(FEATURE_MSRS_MAX);
    wanted
}

/// As the host gives them to new guests; what can't be read is left out.
fn feature_msrs_of_host(kvm: &Kvm) -> Vec<(u32, u64)> {
    let list = feature_msr_list(kvm);
    let read = list.iter().filter_map(|index| {
        let mut one = msrs::list([(*index, 0)].into_iter()).ok()?;
        let count = kvm.get_msrs(&mut one).ok()?;
        let entry = one.as_slice().first().filter(|_| count == 1)?;
        Some((entry.index, entry.data))
    });
    read.collect()
}

/// As a vCPU sees them: those of a fresh vCPU are what KVM gives any guest here.
pub(super) fn feature_msrs(kvm: &Kvm, vcpu: &VcpuFd) -> Result<MsrTable, CpuError> {
    let found = msrs::read_what_is_there(vcpu, &feature_msr_list(kvm))
        .map_err(|error| VmError::refused("KVM_GET_MSRS", error))?;
    let values = found.iter().map(|entry| (entry.index, entry.data));
    Ok(MsrTable::new(values.collect())?)
}

/// Kernel and microcode, for people; nothing is missing where a file can't be read.
fn about() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(key));
        let value = line.and_then(|line| line.split_once(':'));
        value.map_or("unknown", |(_, value)| value.trim())
    };
    let (model, microcode) = (value("model name"), value("microcode"));
    format!("Linux {}, {model}, microcode {microcode}", kernel.trim())
}
