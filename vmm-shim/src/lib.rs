//! A small true VMM on KVM, and a guest without KVM.
mod boot;
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
mod sys;
mod sys_kvm;
mod threads;
mod vcpu;
mod vm;
mod workload;

pub use cpu::{CpuError, host_cpu};
pub use error::{ShimError, Stage};
pub use guest::{KVM_MACHINE, KvmGuest};
pub use host::{HostSpec, KvmHost, ProcessHost};
pub use host_view::HostView;
pub use layout::memory_map;
pub use memory::{GuestRam, RamError};
pub use pages::GuestPages;
pub use process::{PROCESS_MACHINE, ProcessGuest, process_section_kinds};
pub use spec::{
    Backing, GUEST_BYTES_MAX, GUEST_BYTES_MIN, GuestSpec, HugePages, SpecError, VCPU_COUNT_MAX,
    WorkloadSpec,
};
pub use state::{StateError, section_kinds};
pub use threads::{PAUSE_MAX, RunState, ThreadError};
pub use vcpu::VcpuFault;
pub use vm::{VmError, open_kvm};
pub use workload::Workload;
