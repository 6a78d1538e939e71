//! STUB, replaced by the table of named baselines.
use crate::cpuid::Vendor;
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    pub(crate) vendor: Option<Vendor>,
    pub(crate) from: Option<&'static str>,
    pub(crate) adds: &'static [&'static str],
    pub(crate) drops: &'static [&'static str],
    pub(crate) phys_bits: u8,
    pub(crate) max_basic_leaf: u32,
    pub(crate) max_extended_leaf: u32,
    pub(crate) source: &'static str,
}
pub(crate) const MODELS: &[Model] = &[Model {
    name: "stub",
    vendor: None,
    from: None,
    adds: &[],
    drops: &[],
    phys_bits: 36,
    max_basic_leaf: 7,
    max_extended_leaf: 0x8000_0008,
    source: "",
}];
