//! Feature MSRs: model-specific registers whose bits promise something to the guest.
//!
//! Polarity is the trap here: `*-no` bits are promises ("not affected") that must stay true, while
//! `rsba` and `rrsba` state a weakness that a guest must have been prepared for. The `*-clear` bits
//! say that VERW flushes a buffer.
//!
//! Sources: Intel SDM volume 4, table 2-2, and volume 3, appendix A; AMD APM volume 2; Linux
//! arch/x86/include/asm/msr-index.h and arch/x86/kvm/vmx/nested.c.

use super::Source::{Apm, Sdm};
use super::{
    Word, at_most, equal, feature, features, inverse, inverses, mitigation, msr, msr_span,
};
use super::{noise, own};

#[rustfmt::skip]
pub(super) const WORDS: &[Word] = &[
    msr(Sdm, 0x8b, &[
        own(0, 64, "microcode-revision"),
    ]),
    msr(Sdm, 0xce, &[
        own(8, 8, "max-non-turbo-ratio"),
        feature(31, "cpuid-faulting"),
    ]),
    msr(Sdm, 0xcf, &[
        feature(5, "split-lock-detect"),
    ]),
    msr(Sdm, 0x10a, &[
        feature(0, "rdctl-no"),
        feature(1, "ibrs-all"),
        inverse(2, "rsba"),
        feature(3, "skip-l1dfl-vmentry"),
        feature(4, "ssb-no"),
        feature(5, "mds-no"),
        feature(6, "pschange-mc-no"),
        feature(7, "tsx-ctrl"),
        feature(8, "taa-no"),
        noise(9, 1, "mcu-control"),
        noise(10, 1, "misc-package-ctls"),
        noise(11, 1, "energy-filtering-ctl"),
        noise(12, 1, "doitm"),
        feature(13, "sbdr-ssdp-no"),
        feature(14, "fbsdp-no"),
        feature(15, "psdp-no"),
        noise(16, 1, "mcu-ext"),
        mitigation(17, "fb-clear"),
        noise(18, 1, "fb-clear-ctrl"),
        inverse(19, "rrsba"),
        feature(20, "bhi-no"),
        noise(21, 1, "xapic-disable-status"),
        noise(23, 1, "overclocking-status"),
        feature(24, "pbrsb-no"),
        noise(25, 1, "gds-ctrl"),
        feature(26, "gds-no"),
        feature(27, "rfds-no"),
        mitigation(28, "rfds-clear"),
        noise(29, 1, "ign-umonitor"),
        noise(30, 1, "mon-umon-mitg"),
        noise(32, 1, "pb-opt-ctrl"),
        feature(62, "its-no"),
        noise(63, 1, "virtual-enum"),
    ]),
    msr(Sdm, 0x345, &[
        equal(0, 6, "perf-cap.lbr-format"),
        feature(6, "perf-cap.pebs-trap"),
        feature(7, "perf-cap.pebs-arch-regs"),
        features(8, 4, "perf-cap.pebs-format"),
        feature(12, "perf-cap.smm-freeze"),
        feature(13, "perf-cap.full-width-write"),
        feature(14, "perf-cap.pebs-baseline"),
    ]),
    msr(Sdm, 0x480, &[
        equal(0, 32, "vmx-basic.revision"),
        at_most(32, 13, "vmx-basic.region-size"),
        features(48, 16, "vmx-basic.features"),
    ]),
    msr_span(Sdm, 0x481, 0x484, &[
        inverses(0, 32, "vmx-controls.must-be-1"),
        features(32, 32, "vmx-controls.allowed-1"),
    ]),
    msr(Sdm, 0x485, &[
        equal(0, 5, "vmx-misc.preemption-timer-rate"),
        features(5, 11, "vmx-misc.features"),
        at_most(16, 9, "vmx-misc.cr3-targets"),
        at_most(25, 3, "vmx-misc.max-msr"),
        features(28, 4, "vmx-misc.features"),
        equal(32, 32, "vmx-misc.mseg-revision"),
    ]),
    msr(Sdm, 0x486, &[
        inverses(0, 64, "vmx-cr0-fixed0"),
    ]),
    msr(Sdm, 0x487, &[
        own(0, 64, "vmx-cr0-fixed1"),
    ]),
    msr(Sdm, 0x488, &[
        inverses(0, 64, "vmx-cr4-fixed0"),
    ]),
    msr(Sdm, 0x489, &[
        own(0, 64, "vmx-cr4-fixed1"),
    ]),
    msr(Sdm, 0x48a, &[
        own(0, 64, "vmx-vmcs-enum"),
    ]),
    msr(Sdm, 0x48b, &[
        inverses(0, 32, "vmx-procbased2.must-be-1"),
        features(32, 32, "vmx-procbased2.allowed-1"),
    ]),
    msr(Sdm, 0x48c, &[
        features(0, 64, "vmx-ept-vpid-cap"),
    ]),
    msr_span(Sdm, 0x48d, 0x490, &[
        inverses(0, 32, "vmx-true-controls.must-be-1"),
        features(32, 32, "vmx-true-controls.allowed-1"),
    ]),
    msr(Sdm, 0x491, &[
        features(0, 64, "vmx-vmfunc"),
    ]),
    msr(Apm, 0xc001_0015, &[
        own(0, 64, "hwcr"),
    ]),
    msr(Apm, 0xc001_1029, &[
        feature(1, "lfence-serialize"),
    ]),
];
