//! What a host says about itself: data that an embedder gathers, never read here.

use crate::cpuid::CpuidTable;
use crate::msr::MsrTable;

/// Whether a host can run a guest's time-stamp counter at a frequency other than its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TscScaling {
    /// It can (`KVM_CAP_TSC_CONTROL`).
    Yes,
    /// It can not: guests run at the host's frequency.
    No,
}

/// What an incoming guest may have on this host.
///
/// `accept` is what the host's hypervisor can give (for KVM: `KVM_GET_SUPPORTED_CPUID`), not what
/// the processor's own CPUID says. Features that the kernel emulates but does not list, such as
/// `tsc-deadline` on older kernels, must be added by whoever gathers it: here a bit that is not
/// shown is a bit that is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostCpu {
    /// CPUID answers that a guest may have.
    pub accept: CpuidTable,
    /// Feature MSRs that a guest may have, with the host's values.
    pub feature_msrs: MsrTable,
    /// Frequency of the host's time-stamp counter in kHz; 0 when it is not known.
    pub tsc_khz: u32,
    /// Whether guests may run at another frequency.
    pub tsc_scaling: TscScaling,
}
