//! Leaves of CPUID that the hypervisor makes, from 0x40000000 on.
//!
//! Source: Linux Documentation/virt/kvm/x86/cpuid.rst.

use super::Source::Kvm;
use super::{ALL, ANY, Word, at_most, equal, feature, noise, own, span, word};
use crate::cpuid::Register::{Eax, Ebx, Ecx, Edx};

#[rustfmt::skip]
pub(super) const WORDS: &[Word] = &[
    word(Kvm, 0x40000000, 0, Eax, &[
        at_most(0, 32, "max-hypervisor-leaf"),
    ]),
    span(Kvm, (0x40000000, 0x40000000), ANY, &[Ebx, Ecx, Edx], &[
        equal(0, 32, "hypervisor-signature"),
    ]),
    word(Kvm, 0x40000001, 0, Eax, &[
        feature(0, "kvmclock"),
        feature(1, "kvm-nopiodelay"),
        feature(2, "kvm-mmu"),
        feature(3, "kvmclock2"),
        feature(4, "kvm-asyncpf"),
        feature(5, "kvm-steal-time"),
        feature(6, "kvm-pv-eoi"),
        feature(7, "kvm-pv-unhalt"),
        feature(9, "kvm-pv-tlb-flush"),
        feature(10, "kvm-asyncpf-vmexit"),
        feature(11, "kvm-pv-ipi"),
        feature(12, "kvm-poll-control"),
        feature(13, "kvm-pv-sched-yield"),
        feature(14, "kvm-asyncpf-int"),
        feature(15, "kvm-msi-ext-dest-id"),
        feature(16, "kvm-hc-map-gpa-range"),
        feature(17, "kvm-migration-control"),
        feature(24, "kvmclock-stable-bit"),
    ]),
    word(Kvm, 0x40000001, 0, Edx, &[
        own(0, 1, "kvm-hint-dedicated"),
    ]),
    span(Kvm, (0x40000002, 0x4000000f), ANY, ALL, &[
        own(0, 32, "other-hypervisors-leaves"),
    ]),
    // Frequencies: the host's, as leaves 0x15 and 0x16.
    span(Kvm, (0x40000010, 0x40000010), ANY, ALL, &[
        noise(0, 32, "hypervisor-frequencies"),
    ]),
];
