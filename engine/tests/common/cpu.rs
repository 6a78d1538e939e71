//! The processors of test guests and hosts: few features, and all of a maker's choosing.

use limosa_compat::{CpuidEntry, CpuidTable, GuestCpu, HostCpu, MsrTable, Processor, TscScaling};

pub(crate) const INTEL: &[u8; 12] = b"GenuineIntel";
pub(crate) const AMD: &[u8; 12] = b"AuthenticAMD";

/// BMI1, AVX2 and BMI2 in leaf 7, which every test guest sees.
pub(crate) const FEATURES: u32 = 1 << 3 | 1 << 5 | 1 << 8;
/// MD_CLEAR in leaf 7, which a test guest sees too: a host that MDS does not affect need not have
/// it.
const MD_CLEAR: u32 = 1 << 10;
const ARCH_CAPABILITIES: u32 = 1 << 29;
const MDS_NO_AND_TAA_NO: u64 = 1 << 5 | 1 << 8;

/// A processor of this maker with, in leaf 7, these features.
fn processor(maker: &[u8; 12], ebx: u32, edx: u32) -> Processor {
    let word = |at: usize| u32::from_le_bytes(maker[at..at + 4].try_into().unwrap());
    let leaf_0 = CpuidEntry {
        eax: 7,
        ebx: word(0),
        edx: word(4),
        ecx: word(8),
        ..CpuidEntry::default()
    };
    let leaf_7 = CpuidEntry {
        leaf: 7,
        ebx,
        edx,
        ..CpuidEntry::default()
    };
    CpuidTable::new(vec![leaf_0, leaf_7]).unwrap().into()
}

/// A host of this maker with these features.
pub(crate) fn host_of(maker: &[u8; 12], features: u32) -> HostCpu {
    let processor = processor(maker, features, MD_CLEAR);
    HostCpu::plain(processor, 1_000_000, TscScaling::No)
}

/// A host that can give the test guest all that it sees.
pub(crate) fn test_host() -> HostCpu {
    host_of(INTEL, FEATURES)
}

/// A host that lacks `md-clear`, and does not need it.
pub(crate) fn unaffected_host() -> HostCpu {
    let mut processor = processor(INTEL, FEATURES, ARCH_CAPABILITIES);
    processor.msrs = MsrTable::new(vec![(0x10a, MDS_NO_AND_TAA_NO)]).unwrap();
    HostCpu::plain(processor, 1_000_000, TscScaling::No)
}

/// The processor of a test guest whose counter runs at this rate.
pub(crate) fn guest_cpu(tsc_khz: u32) -> GuestCpu {
    GuestCpu {
        processor: processor(INTEL, FEATURES, MD_CLEAR),
        tsc_khz,
        vcpu_count: 1,
        baseline: "off".into(),
    }
}

/// The digest of a test guest's processor.
pub(crate) fn digest() -> u64 {
    guest_cpu(1_000_000).digest()
}
