//! Can this guest live on that host? CPUID tables, feature rules and a judgement as plain data;
//! reads no processor, opens no file and moves no guest.
//!
//! The question is always the same: what **the guest was promised** ([`GuestCpu`]: the table the
//! VMM installed, not the CPUID of the source host) against what **an incoming guest may have**
//! on the target ([`HostCpu`]: what the target's own KVM answers). [`judge`] compares the two and
//! lists every mismatch; an empty list means that the guest fits.
//!
//! ```
//! use limosa_compat::{CpuidEntry, CpuidTable, GuestCpu, HostCpu, MsrTable, Processor, TscScaling};
//! use limosa_compat::judge;
//!
//! // Leaf 0 names the vendor ("GenuineIntel"), leaf 7 lets the guest see AVX2 (ebx bit 5).
//! let (eax, ebx, ecx, edx) = (7, 0x756e_6547, 0x6c65_746e, 0x4965_6e69);
//! let intel = CpuidEntry { leaf: 0, subleaf: 0, eax, ebx, ecx, edx };
//! let with_avx2 = CpuidEntry { leaf: 7, ebx: 1 << 5, ..CpuidEntry::default() };
//! let without = CpuidEntry { leaf: 7, ..CpuidEntry::default() };
//!
//! let processor = |leaf_7| -> Result<Processor, limosa_compat::TableError> {
//!     Ok(Processor {
//!         cpuid: CpuidTable::new(vec![intel, leaf_7])?,
//!         msrs: MsrTable::default(),
//!     })
//! };
//! let guest = GuestCpu {
//!     processor: processor(with_avx2)?,
//!     tsc_khz: 2_000_000,
//!     vcpu_count: 4,
//!     baseline: "off".into(),
//! };
//! let host = HostCpu {
//!     offer: processor(without)?,
//!     accept: processor(without)?,
//!     tsc_khz: 2_000_000,
//!     tsc_scaling: TscScaling::No,
//!     about: String::new(),
//! };
//! let judgement = judge(&guest, &host);
//! assert_eq!(judgement.mismatches[0].name, "avx2");
//! # Ok::<(), limosa_compat::TableError>(())
//! ```
//!
//! The rules are one table ([`words`]): each field of CPUID and of the feature MSRs with its name,
//! its [`Kind`] and its source. Whatever has no row is compared bit by bit and refused when the
//! host lacks it. What belongs to the guest for its life (model, topology, caches, brand string)
//! and what mirrors the guest's own registers is not compared.
//!
//! Which processor a guest gets is chosen when it starts: [`shape`] makes it of the host's offer
//! and a [`Mode`].

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod baseline;
mod closure;
mod controls;
mod cpuid;
mod differences;
mod envelope;
mod forgiven;
mod guest;
mod host;
mod judge;
mod mismatch;
mod models;
mod msr;
mod names;
mod pool;
mod processor;
mod restrict;
mod rules;
pub mod text;
mod xsave;

pub use baseline::{Baseline, Lack, Mode, ShapeError, Shaped, baseline, baselines, shape};
pub use controls::{Exception, not_in_common, stays};
pub use cpuid::{CPUID_ENTRIES_MAX, CpuidEntry, CpuidTable, Register, TableError};
pub use cpuid::{UnknownVendor, Vendor};
pub use differences::{Difference, differences};
pub use envelope::{CPU_ENVELOPE_BYTES_MAX, CpuDecodeError};
pub use guest::{BASELINE_NAME_BYTES_MAX, GuestCpu};
pub use host::{ABOUT_BYTES_MAX, HostCpu, TscScaling};
pub use judge::{Judgement, clock_mismatch, judge};
pub use mismatch::{Mismatch, MismatchKind, Place, Warning};
pub use msr::{ARCH_CAPABILITIES, FEATURE_MSRS_MAX, MsrTable};
pub use names::{feature_names, has, is_feature};
pub use pool::{PoolError, intersect, vendor_of};
pub use processor::Processor;
pub use restrict::restrict;
pub use rules::{Field, Inverse, Kind, Registers, Source, Word, cpuid_word, msr_word, words};
