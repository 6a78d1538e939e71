//! Why a guest's state can't be taken or put in place, naming the vCPU, the call and the value.

use std::io;

use limosa_wire::{DecodeError, EncodeError, SectionKind};

/// Why a guest's state can't be taken or put in place. The guest must not run on it.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The kernel refused a call on a vCPU.
    #[error("vCPU {vcpu}: {call}: {source}")]
    Vcpu {
        /// Which vCPU.
        vcpu: u16,
        /// Which call.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a call on the machine.
    #[error("{call}: {source}")]
    Machine {
        /// Which call.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A model-specific register could be read before and can't now.
    #[error("vCPU {vcpu}: MSR {index:#x} can't be read any more")]
    MsrUnreadable {
        /// Which vCPU.
        vcpu: u16,
        /// Which register.
        index: u32,
    },
    /// The kernel refused a register's value.
    #[error("vCPU {vcpu}: KVM_SET_MSRS refused {value:#x} for MSR {index:#x}: {why}")]
    MsrRefused {
        /// Which vCPU.
        vcpu: u16,
        /// Which register.
        index: u32,
        /// What it was to hold.
        value: u64,
        /// Why that matters.
        why: String,
    },
    /// The kernel took a register's value and did not keep it.
    #[error("vCPU {vcpu}: MSR {index:#x} was set to {value:#x} and reads {found:#x}")]
    MsrNotKept {
        /// Which vCPU.
        vcpu: u16,
        /// Which register.
        index: u32,
        /// What it was to hold.
        value: u64,
        /// What it holds.
        found: u64,
    },
    /// The guest's TSC runs at a frequency that this host can't give it.
    #[error(
        "vCPU {vcpu}: KVM_SET_TSC_KHZ refused {wanted_khz} kHz ({source}); this host runs at \
         {host_khz} kHz: choose a host of the guest's frequency, or one with TSC scaling"
    )]
    TscFrequency {
        /// Which vCPU.
        vcpu: u16,
        /// The guest's frequency.
        wanted_khz: u32,
        /// This host's.
        host_khz: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The guest has more vector state than this host.
    #[error(
        "vCPU {vcpu}: {found} bytes of vector state, of which KVM takes {max} here, and what is \
         beyond isn't empty"
    )]
    VectorState {
        /// Which vCPU.
        vcpu: u16,
        /// Bytes that came.
        found: usize,
        /// Bytes that KVM takes.
        max: usize,
    },
    /// A section is missing.
    #[error("the state has no section \"{}\" of version {}", kind.name, kind.version)]
    Missing {
        /// Which.
        kind: SectionKind,
    },
    /// A section that this machine does not have, or one that came twice.
    #[error("the state has a section \"{}\" of version {} too many", kind.name, kind.version)]
    Surplus {
        /// Which.
        kind: SectionKind,
    },
    /// A section's bytes make no sense.
    #[error("section \"{section}\": {source}")]
    Decode {
        /// Which.
        section: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// A state that a receiver would refuse.
    #[error("section \"{section}\": {source}")]
    Encode {
        /// Which.
        section: String,
        /// What is wrong.
        source: EncodeError,
    },
    /// State for another number of vCPUs.
    #[error("the state is of {found} vCPUs, the guest has {expected}")]
    VcpuCount {
        /// vCPUs in the state.
        found: usize,
        /// vCPUs of the guest.
        expected: usize,
    },
    /// KVM shows the guest another processor than it was promised.
    #[error(
        "vCPU {vcpu}: this host's KVM shows another processor than the guest was promised: {}",
        found.join("; ")
    )]
    OtherProcessor {
        /// Which vCPU.
        vcpu: u16,
        /// What differs.
        found: Vec<String>,
    },
    /// The state's CPUID is another one than the offer's, which was judged.
    #[error("the state's CPUID is not the one that was offered and accepted")]
    OtherCpu,
}

impl StateError {
    pub(crate) fn vcpu(vcpu: u16, call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Vcpu {
            vcpu,
            call,
            source: io::Error::from_raw_os_error(error.errno()),
        }
    }

    pub(crate) fn machine(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Machine {
            call,
            source: io::Error::from_raw_os_error(error.errno()),
        }
    }
}
