//! Leaves 0x0 to 0x23 of CPUID, without 0x7 and those that describe saved state.
//!
//! Sources: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.

use super::Source::Sdm;
use super::{
    ALL, ANY, Word, at_most, dynamic, equal, feature, features, inverse, inverses, noise, own,
    span, word,
};
use crate::cpuid::Register::{Eax, Ebx, Ecx, Edx};

// The vendor stands in leaf 0 too; it is judged by its name, not by its letters. Frequencies (0x15,
// 0x16) are the host's: a guest that believes those of another host keeps wrong time.
#[rustfmt::skip]
pub(super) const WORDS: &[Word] = &[
    word(Sdm, 0x0, 0, Eax, &[
        at_most(0, 32, "max-basic-leaf"),
    ]),
    word(Sdm, 0x0, 0, Ebx, &[
        own(0, 32, "vendor-string"),
    ]),
    word(Sdm, 0x0, 0, Ecx, &[
        own(0, 32, "vendor-string"),
    ]),
    word(Sdm, 0x0, 0, Edx, &[
        own(0, 32, "vendor-string"),
    ]),
    word(Sdm, 0x1, 0, Eax, &[
        own(0, 4, "stepping"),
        own(4, 4, "model"),
        own(8, 4, "family"),
        own(12, 2, "processor-type"),
        own(16, 4, "extended-model"),
        own(20, 8, "extended-family"),
    ]),
    word(Sdm, 0x1, 0, Ebx, &[
        noise(0, 8, "brand-index"),
        equal(8, 8, "clflush-size"),
        own(16, 8, "logical-processors-per-package"),
        own(24, 8, "initial-apic-id"),
    ]),
    word(Sdm, 0x1, 0, Ecx, &[
        feature(0, "pni"),
        feature(1, "pclmulqdq"),
        feature(2, "dtes64"),
        feature(3, "monitor"),
        feature(4, "ds-cpl"),
        feature(5, "vmx"),
        feature(6, "smx"),
        feature(7, "est"),
        feature(8, "tm2"),
        feature(9, "ssse3"),
        feature(10, "cid"),
        feature(11, "sdbg"),
        feature(12, "fma"),
        feature(13, "cx16"),
        feature(14, "xtpr"),
        feature(15, "pdcm"),
        feature(17, "pcid"),
        feature(18, "dca"),
        feature(19, "sse4.1"),
        feature(20, "sse4.2"),
        feature(21, "x2apic"),
        feature(22, "movbe"),
        feature(23, "popcnt"),
        feature(24, "tsc-deadline"),
        feature(25, "aes"),
        feature(26, "xsave"),
        dynamic(27, 1, "osxsave"),
        feature(28, "avx"),
        feature(29, "f16c"),
        feature(30, "rdrand"),
        own(31, 1, "hypervisor"),
    ]),
    word(Sdm, 0x1, 0, Edx, &[
        feature(0, "fpu"),
        feature(1, "vme"),
        feature(2, "de"),
        feature(3, "pse"),
        feature(4, "tsc"),
        feature(5, "msr"),
        feature(6, "pae"),
        feature(7, "mce"),
        feature(8, "cx8"),
        dynamic(9, 1, "apic"),
        feature(11, "sep"),
        feature(12, "mtrr"),
        feature(13, "pge"),
        feature(14, "mca"),
        feature(15, "cmov"),
        feature(16, "pat"),
        feature(17, "pse36"),
        noise(18, 1, "pn"),
        feature(19, "clflush"),
        feature(21, "ds"),
        feature(22, "acpi"),
        feature(23, "mmx"),
        feature(24, "fxsr"),
        feature(25, "sse"),
        feature(26, "sse2"),
        feature(27, "ss"),
        own(28, 1, "ht"),
        feature(29, "tm"),
        feature(30, "ia64"),
        feature(31, "pbe"),
    ]),
    span(Sdm, (0x2, 0x2), ANY, ALL, &[
        own(0, 32, "cache-tlb-descriptors"),
    ]),
    span(Sdm, (0x3, 0x3), ANY, ALL, &[
        noise(0, 32, "processor-serial"),
    ]),
    span(Sdm, (0x4, 0x4), ANY, ALL, &[
        own(0, 32, "deterministic-cache-parameters"),
    ]),
    span(Sdm, (0x5, 0x5), ANY, ALL, &[
        noise(0, 32, "monitor-mwait-line-sizes"),
    ]),
    word(Sdm, 0x6, 0, Eax, &[
        noise(0, 1, "dtherm"),
        noise(1, 1, "ida"),
        own(2, 1, "arat"),
        noise(4, 1, "pln"),
        noise(5, 1, "ecmd"),
        noise(6, 1, "pts"),
        noise(7, 1, "hwp"),
        noise(8, 1, "hwp-notify"),
        noise(9, 1, "hwp-act-window"),
        noise(10, 1, "hwp-epp"),
        noise(11, 1, "hwp-pkg-req"),
        noise(13, 1, "hdc"),
        noise(14, 1, "turbo-max-3"),
        noise(15, 1, "hwp-highest-perf-change"),
        noise(16, 1, "hwp-peci-override"),
        noise(17, 1, "hwp-flexible"),
        noise(18, 1, "hwp-fast-access"),
        noise(19, 1, "hfi"),
        noise(20, 1, "hwp-ignore-idle"),
        noise(23, 1, "itd"),
        noise(24, 1, "thermal-intr-msr"),
    ]),
    word(Sdm, 0x6, 0, Ebx, &[
        noise(0, 32, "thermal-thresholds"),
    ]),
    word(Sdm, 0x6, 0, Ecx, &[
        noise(0, 1, "aperfmperf"),
        noise(1, 2, "itd-classes"),
        noise(3, 1, "epb"),
        noise(4, 28, "itd-classes"),
    ]),
    word(Sdm, 0x6, 0, Edx, &[
        noise(0, 32, "hfi-capabilities"),
    ]),
    word(Sdm, 0xa, 0, Eax, &[
        at_most(0, 8, "pmu-version"),
        at_most(8, 8, "pmu-counters"),
        equal(16, 8, "pmu-counter-width"),
        at_most(24, 8, "pmu-event-mask-length"),
    ]),
    word(Sdm, 0xa, 0, Ebx, &[
        inverses(0, 32, "pmu-events-not-available"),
    ]),
    word(Sdm, 0xa, 0, Ecx, &[
        features(0, 32, "pmu-fixed-counter-bitmap"),
    ]),
    word(Sdm, 0xa, 0, Edx, &[
        at_most(0, 5, "pmu-fixed-counters"),
        equal(5, 8, "pmu-fixed-counter-width"),
        inverse(15, "pmu-anythread-deprecated"),
    ]),
    span(Sdm, (0xb, 0xb), ANY, ALL, &[
        own(0, 32, "x2apic-topology"),
    ]),
    span(Sdm, (0xf, 0xf), (0, 1), ALL, &[
        noise(0, 32, "rdt-monitoring"),
    ]),
    span(Sdm, (0x10, 0x10), (0, 3), ALL, &[
        noise(0, 32, "rdt-allocation"),
    ]),
    span(Sdm, (0x15, 0x15), ANY, &[Eax, Ebx], &[
        noise(0, 32, "tsc-crystal-ratio"),
    ]),
    word(Sdm, 0x15, 0, Ecx, &[
        noise(0, 32, "crystal-hz"),
    ]),
    span(Sdm, (0x16, 0x16), ANY, &[Eax, Ebx, Ecx], &[
        noise(0, 16, "base-max-bus-mhz"),
    ]),
    span(Sdm, (0x17, 0x17), (0, 3), ALL, &[
        noise(0, 32, "soc-vendor"),
    ]),
    span(Sdm, (0x18, 0x18), ANY, ALL, &[
        noise(0, 32, "tlb-parameters"),
    ]),
    word(Sdm, 0x1a, 0, Eax, &[
        noise(0, 32, "hybrid-core-type"),
    ]),
    span(Sdm, (0x1b, 0x1b), ANY, ALL, &[
        noise(0, 32, "pconfig-targets"),
    ]),
    span(Sdm, (0x1f, 0x1f), ANY, ALL, &[
        own(0, 32, "v2-topology"),
    ]),
    span(Sdm, (0x20, 0x20), ANY, ALL, &[
        noise(0, 32, "hreset"),
    ]),
    span(Sdm, (0x21, 0x21), ANY, ALL, &[
        noise(0, 32, "tdx-signature"),
    ]),
    span(Sdm, (0x23, 0x23), ANY, ALL, &[
        noise(0, 32, "arch-perfmon-ext"),
    ]),
];
