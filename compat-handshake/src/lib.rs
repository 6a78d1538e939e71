//! Can this guest live on that host? CPUID tables, feature rules and a judgement as plain data;
//! reads no processor, opens no file and moves no guest.
//!
//! The question is always the same: what **the guest was promised** ([`GuestCpu`]: the table the
//! VMM installed, not the CPUID of the source host) against what **an incoming guest may have**
//! on the target ([`HostCpu`]: what the target's own KVM answers). [`judge`] compares the two and
//! lists every mismatch; an empty list means that the guest fits.
//!
//! ```
//! use limosa_compat::{CpuidEntry, CpuidTable, GuestCpu, HostCpu, MsrTable, TscScaling, judge};
//!
//! // Leaf 0 names the vendor ("GenuineIntel"), leaf 7 lets the guest see AVX2 (ebx bit 5).
//! let (eax, ebx, ecx, edx) = (7, 0x756e_6547, 0x6c65_746e, 0x4965_6e69);
//! let intel = CpuidEntry { leaf: 0, subleaf: 0, eax, ebx, ecx, edx };
//! let with_avx2 = CpuidEntry { leaf: 7, ebx: 1 << 5, ..CpuidEntry::default() };
//! let without = CpuidEntry { leaf: 7, ..CpuidEntry::default() };
//!
//! let guest = GuestCpu {
//!     table: CpuidTable::new(vec![intel, with_avx2])?,
//!     feature_msrs: MsrTable::default(),
//!     tsc_khz: 2_000_000,
//!     vcpu_count: 4,
//! };
//! let host = HostCpu {
//!     accept: CpuidTable::new(vec![intel, without])?,
//!     feature_msrs: MsrTable::default(),
//!     tsc_khz: 2_000_000,
//!     tsc_scaling: TscScaling::No,
//! };
//! let judgement = judge(&guest, &host);
//! assert_eq!(judgement.mismatches[0].name, "avx2");
//! # Ok::<(), limosa_compat::TableError>(())
//! ```
//!
//! The rule is strict: whatever it does not know, it compares bit by bit and refuses when the host
//! lacks it. What belongs to the guest for its life (model, topology, caches, brand string) and
//! what mirrors the guest's own registers is not compared; each such exception is a row in
//! `features.rs` or `numbers.rs`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod cpuid;
mod features;
mod guest;
mod host;
mod judge;
mod mismatch;
mod msr;
mod numbers;
mod xsave;

pub use cpuid::{CPUID_ENTRIES_MAX, CpuidEntry, CpuidTable, Register, TableError};
pub use cpuid::{UnknownVendor, Vendor};
pub use features::{Feature, FeatureRule, features};
pub use guest::{CPU_ENVELOPE_BYTES_MAX, CpuDecodeError, GuestCpu};
pub use host::{HostCpu, TscScaling};
pub use judge::{Judgement, judge};
pub use mismatch::{Mismatch, MismatchKind, Place};
pub use msr::{FEATURE_MSRS_MAX, MsrTable};
