//! Unlike hosts for real: emulated machines, each with a true kvm-amd, on one computer without any.
//!
//! QEMU's software emulation has AMD's SVM, so a distribution kernel inside it loads `kvm-amd` and
//! serves a true `/dev/kvm`. Every AMD model of QEMU is another host, `-smp 64` a host with 64
//! logical processors, and two such machines joined by a network are two hosts between which a
//! guest moves. There CPUID is what the VMM says, as on most hosts and unlike on some.
//!
//! One command prepares it and one runs it, on Debian or Ubuntu:
//!
//! ```console
//! $ sudo testbeds/foreign-kvm/prepare.sh
//! $ cargo test -p limosa-foreign-kvm -- --nocapture
//! ```
//!
//! Where something is missing, tests say `SKIPPED:` with what and how to get it; with
//! `LIMOSA_FOREIGN_KVM=require` in the environment they fail instead.
//!
//! What the models show under QEMU 7.2: `EPYC` (Zen) has AVX2, XSAVE, BMI and SMAP, 33 fields
//! that `Opteron_G3` (K10) lacks; K10 has no XSAVE at all and ends its CPUID at leaf 5.
//!
//! Times inside mean nothing. Emulation has no VMX: Intel's side is tested on tables.

mod initramfs;
mod machine;
mod tools;

pub use initramfs::{Initramfs, InitramfsError};
pub use machine::{Cable, ConsoleError, Machine, Model};
pub use tools::{Missing, Tools, target_folder};
