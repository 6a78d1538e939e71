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
//! The tests build `migrate-bench` themselves (`cargo build --release`). Where something is
//! missing, they say `SKIPPED:` with what and how to get it; with `LIMOSA_FOREIGN_KVM=require` in
//! the environment they fail instead. Two real processors and 4 GiB of memory are enough.
//!
//! A host is a [`Machine`]: a kernel ([`Tools`]), a file system in memory ([`Initramfs`]) and a
//! shell on its serial console that takes steps. What each host has under QEMU 7.2:
//!
//! | model | is | judged features that tell it apart |
//! | --- | --- | --- |
//! | `Opteron_G1` | K8 | no CMPXCHG16B, LAHF or RDTSCP: below the floor `minimum-amd-v1` |
//! | `Opteron_G3` | K10 | no XSAVE, CPUID ends at leaf 5, `amd-no-ssb` |
//! | `phenom` | K10 | the same with `3dnow`, `3dnowext`, `mmxext`, `pdpe1gb` |
//! | `EPYC` | Zen | XSAVE, AVX2, BMI, ADX, SMAP, `virt-ssbd`, promises of ARCH_CAPABILITIES |
//! | `EPYC-Rome` | Zen 2 | the same with `clwb`, `umip` |
//! | `EPYC-Milan` | Zen 3 | the same with `pku` and its XSAVE component, `erms`; no `virt-ssbd` |
//!
//! `Opteron_G5` does not boot there.
//!
//! What can't be shown: times inside mean nothing, and processors take turns rather than run at
//! once. Emulation has no VMX: Intel's side is tested on tables.

mod initramfs;
mod machine;
mod tools;

pub use initramfs::{Initramfs, InitramfsError};
pub use machine::{Machine, MachineError, Model, Outcome};
pub use tools::{Missing, Tools, target_folder};
