//! The program that runs inside the guest, and how to talk to it: a kernel-less payload that fills
//! memory, dirties it at a rate, measures its own stalls and verifies every byte. It knows no KVM:
//! a VMM loads [`Image`], enters the vCPUs and lends its memory as [`GuestBytes`].
//!
//! To run it, a VMM maps RAM over [`protocol::PVH_ENTRY`]`..`[`protocol::RESERVED_END`] and the
//! regions of the parameters, calls [`Image::load`], gives every vCPU flat 32-bit protected mode
//! (see [`EntryState`]) and a local APIC, and lets it go. From then on [`GuestProbe`] reads and
//! writes guest memory only.

pub mod content;
mod image;
mod params;
pub mod plan;
mod probe;
pub mod protocol;
mod report;
pub mod stats;

pub use image::{ENTRY_STATE, EntryState, Image, ImageError, Segment, pvh_elf};
pub use params::{GuestSpec, ParamsError, Serial, pc_memory};
pub use probe::{GuestBytes, GuestProbe, ProbeError};
pub use report::{CheckReport, Histogram, PhaseReport, VcpuReport};
