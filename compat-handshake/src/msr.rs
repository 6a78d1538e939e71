//! Feature MSRs: model-specific registers whose bits promise something to the guest.
//! Registers that are mere state (they change while the guest runs) do not belong here.

use alloc::vec::Vec;

use crate::cpuid::TableError;
use crate::features::FeatureRule;

/// Most registers of one [`MsrTable`]. KVM's own list of feature MSRs has about 25.
pub const FEATURE_MSRS_MAX: usize = 64;

/// Feature MSRs by number, sorted, without duplicates, at most [`FEATURE_MSRS_MAX`].
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct MsrTable {
    values: Vec<(u32, u64)>,
}

impl MsrTable {
    /// Takes (number, value) pairs in any order.
    ///
    /// # Errors
    /// When there are too many, or one register is listed twice.
    pub fn new(mut values: Vec<(u32, u64)>) -> Result<Self, TableError> {
        if values.len() > FEATURE_MSRS_MAX {
            return Err(TableError::TooMany {
                count: values.len(),
                max: FEATURE_MSRS_MAX,
            });
        }
        values.sort_unstable_by_key(|&(index, _)| index);
        let twice = values
            .iter()
            .zip(values.iter().skip(1))
            .find(|(a, b)| a.0 == b.0);
        match twice {
            Some((&(index, _), _)) => Err(TableError::DuplicateMsr { index }),
            None => Ok(Self { values }),
        }
    }

    /// The (number, value) pairs, sorted by number.
    pub fn values(&self) -> &[(u32, u64)] {
        &self.values
    }

    /// The value of one register, if it is listed.
    pub fn get(&self, index: u32) -> Option<u64> {
        let found = self
            .values
            .binary_search_by_key(&index, |&(index, _)| index)
            .ok()?;
        self.values.get(found).map(|&(_, value)| value)
    }
}

/// One named bit of a feature MSR.
pub(crate) struct MsrBit {
    pub(crate) bit: u8,
    pub(crate) name: &'static str,
    pub(crate) rule: FeatureRule,
}

const fn feature(bit: u8, name: &'static str) -> MsrBit {
    MsrBit {
        bit,
        name,
        rule: FeatureRule::Needed,
    }
}

const fn lack(bit: u8, name: &'static str) -> MsrBit {
    MsrBit {
        bit,
        name,
        rule: FeatureRule::Lack,
    }
}

/// Number of IA32_ARCH_CAPABILITIES: which side channels the guest may ignore.
pub(crate) const ARCH_CAPABILITIES: u32 = 0x10a;
/// Number of IA32_PERF_CAPABILITIES: seen only with `pdcm`.
pub(crate) const PERF_CAPABILITIES: u32 = 0x345;
/// Numbers of the nested-virtualization capabilities: seen only with `vmx`.
pub(crate) const VMX_CAPABILITIES: core::ops::RangeInclusive<u32> = 0x480..=0x491;
/// Number of IA32_BIOS_SIGN_ID: the micro-code's revision, which is state and promises nothing.
pub(crate) const MICROCODE_REVISION: u32 = 0x8b;

/// Bits of IA32_ARCH_CAPABILITIES, ascending. A bit without a row is compared as an unknown one.
///
/// Polarity is the trap here: `*-no` bits are promises ("not affected") that must stay true, while
/// `rsba` and `rrsba` state a weakness that a guest must have been prepared for. The `*-clear` bits
/// promise that VERW flushes a buffer; the guest relies on it, so the host must do it.
///
/// Source: Intel SDM volume 4, table 2-2; Linux arch/x86/include/asm/msr-index.h.
pub(crate) const ARCH_CAPABILITIES_BITS: &[MsrBit] = &[
    feature(0, "rdctl-no"),
    feature(1, "ibrs-all"),
    lack(2, "rsba"),
    feature(3, "skip-l1dfl-vmentry"),
    feature(4, "ssb-no"),
    feature(5, "mds-no"),
    feature(6, "pschange-mc-no"),
    feature(7, "tsx-ctrl"),
    feature(8, "taa-no"),
    feature(9, "mcu-control"),
    feature(10, "misc-package-ctls"),
    feature(11, "energy-filtering-ctl"),
    feature(12, "doitm"),
    feature(13, "sbdr-ssdp-no"),
    feature(14, "fbsdp-no"),
    feature(15, "psdp-no"),
    feature(16, "mcu-ext"),
    feature(17, "fb-clear"),
    feature(18, "fb-clear-ctrl"),
    lack(19, "rrsba"),
    feature(20, "bhi-no"),
    feature(21, "xapic-disable-status"),
    feature(23, "overclocking-status"),
    feature(24, "pbrsb-no"),
    feature(25, "gds-ctrl"),
    feature(26, "gds-no"),
    feature(27, "rfds-no"),
    feature(28, "rfds-clear"),
    feature(29, "ign-umonitor"),
    feature(30, "mon-umon-mitg"),
    feature(32, "pb-opt-ctrl"),
    feature(62, "its-no"),
    feature(63, "virtual-enum"),
];
