//! A small true VMM on KVM, and a guest without KVM: what the migration engine moves in tests and
//! benchmarks, and an example of how a VMM embeds it. It is no product: one machine, one payload, a
//! serial port, no disk and no network.
//!
//! A [`KvmGuest`] runs the payload of `limosa-payload` on KVM; a [`ProcessGuest`] is threads that
//! do the same work in the same memory layout on any host. Both are a [`Workload`], which a
//! benchmark asks how it fares, and both are source and target guests of the engine: a guest that
//! has arrived can leave again. [`KvmHost`] and [`ProcessHost`] take guests in.
//!
//! ```no_run
//! use std::time::Duration;
//! use limosa_shim::{GuestSpec, KvmGuest, Workload};
//!
//! let mut spec = GuestSpec::new(1 << 30);
//! spec.vcpu_count = 2;
//! spec.workload.working_set_bytes = 64 << 20;
//! spec.workload.dirty_pages_per_second = 20_000;
//! let guest = KvmGuest::boot(&spec)?;
//! guest.wait_ready(Duration::from_secs(60))?;
//! assert!(guest.check(Duration::from_secs(60))?.intact());
//! # Ok::<(), limosa_shim::ShimError>(())
//! ```
//!
//! # What travels besides memory
//!
//! Of each vCPU: CPUID, MP_STATE, general, system and debug registers, XCR0, vector state, local
//! APIC, MSRs, TSC, pending events. Of the machine: both 8259, I/O APIC, 8254, kvmclock, the serial
//! port. The order in which they are taken and put is on `state/vcpu.rs` and `state/mod.rs`. What
//! would not travel is not given to guests: nested virtualization, performance counters, enclaves,
//! processor trace.
//!
//! # Where unsafe code is
//!
//! In `memory.rs`, `vm.rs`, `vcpu.rs`, `sys.rs` and `sys_kvm.rs`, each with its rules at the top.

mod boot;
mod brake;
mod cpu;
mod devices;
mod embed;
mod error;
mod guest;
mod host;
mod host_view;
mod layout;
mod memory;
mod offer;
mod pages;
mod process;
mod spec;
mod state;
mod stock;
mod sys;
mod sys_kvm;
mod threads;
mod tracking;
mod vcpu;
mod vm;
mod workload;

pub use cpu::{CpuError, host_cpu};
pub use error::{ShimError, Stage};
pub use guest::{KVM_MACHINE, KvmGuest};
pub use host::{HostSpec, KvmHost, ProcessHost};
pub use host_view::HostView;
pub use layout::memory_map;
pub use limosa_dirty::GuestKind;
pub use memory::{GuestRam, RamError};
pub use pages::GuestPages;
pub use process::{PROCESS_MACHINE, ProcessGuest, process_section_kinds};
pub use spec::{
    Backing, CpuSpec, Enforcement, GUEST_BYTES_MAX, GUEST_BYTES_MIN, GuestSpec, HugePages,
    PROCESS_BYTES_MAX, Populate, Room, SpecError, VCPU_COUNT_MAX, WorkloadSpec,
};
pub use state::{StateError, section_kinds};
pub use threads::{PAUSE_MAX, RunState, ThreadError};
pub use tracking::Tracking;
pub use vcpu::VcpuFault;
pub use vm::{VmError, open_kvm};
pub use workload::Workload;
