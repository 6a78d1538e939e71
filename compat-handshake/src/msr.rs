//! Feature MSRs as a table that can't be wrong in form, and the numbers of those that other rules
//! name. What their bits mean is in `rules/msrs.rs`.

use alloc::vec::Vec;

use crate::cpuid::TableError;

/// Most registers of one [`MsrTable`]. KVM's own list of feature MSRs has about 25.
pub const FEATURE_MSRS_MAX: usize = 64;

/// Number of IA32_ARCH_CAPABILITIES: which side channels the guest may ignore.
pub const ARCH_CAPABILITIES: u32 = 0x10a;
/// Number of IA32_CORE_CAPABILITIES: seen only with `core-capability`.
pub(crate) const CORE_CAPABILITIES: u32 = 0xcf;
/// Number of IA32_PERF_CAPABILITIES: seen only with `pdcm`.
pub(crate) const PERF_CAPABILITIES: u32 = 0x345;
/// Numbers of the nested-virtualization capabilities: seen only with `vmx`.
pub(crate) const VMX_CAPABILITIES: core::ops::RangeInclusive<u32> = 0x480..=0x491;

/// Whether a register is seen only with a feature of CPUID.
pub(crate) fn is_gated(index: u32) -> bool {
    matches!(
        index,
        ARCH_CAPABILITIES | CORE_CAPABILITIES | PERF_CAPABILITIES
    ) || VMX_CAPABILITIES.contains(&index)
}

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

    /// Keeps the registers that `keep` says yes to, with what it makes of their values.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(u32, &mut u64) -> bool) {
        self.values.retain_mut(|(index, value)| keep(*index, value));
    }
}
