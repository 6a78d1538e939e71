//! Leaves of CPUID that describe state which is saved and restored: XSAVE (0xd), enclaves (0x12),
//! processor trace (0x14), Key Locker (0x19), branch records (0x1c), AMX (0x1d, 0x1e), AVX10
//! (0x24).
//!
//! Sources: Intel SDM volume 1, chapter 13, and volume 2A, CPUID.

use super::Source::Sdm;
use super::{ALL, ANY, Word, at_most, dynamic, equal, feature, features, own, span, word};
use crate::cpuid::Register::{Eax, Ebx, Ecx, Edx};

#[rustfmt::skip]
pub(super) const WORDS: &[Word] = &[
    word(Sdm, 0xd, 0, Eax, &[
        feature(0, "xcr0.x87"),
        feature(1, "xcr0.sse"),
        feature(2, "xcr0.avx"),
        feature(3, "xcr0.bndregs"),
        feature(4, "xcr0.bndcsr"),
        feature(5, "xcr0.opmask"),
        feature(6, "xcr0.zmm-hi256"),
        feature(7, "xcr0.hi16-zmm"),
        feature(9, "xcr0.pkru"),
        feature(17, "xcr0.tilecfg"),
        feature(18, "xcr0.tiledata"),
        feature(19, "xcr0.apx"),
    ]),
    word(Sdm, 0xd, 0, Ebx, &[
        dynamic(0, 32, "xsave-size-now"),
    ]),
    word(Sdm, 0xd, 0, Ecx, &[
        at_most(0, 32, "xsave-size"),
    ]),
    word(Sdm, 0xd, 0, Edx, &[
        feature(30, "xcr0.lwp"),
    ]),
    word(Sdm, 0xd, 1, Eax, &[
        feature(0, "xsaveopt"),
        feature(1, "xsavec"),
        feature(2, "xgetbv1"),
        feature(3, "xsaves"),
        feature(4, "xfd"),
    ]),
    word(Sdm, 0xd, 1, Ebx, &[
        dynamic(0, 32, "xsave-size-compacted"),
    ]),
    word(Sdm, 0xd, 1, Ecx, &[
        feature(8, "xss.pt"),
        feature(10, "xss.pasid"),
        feature(11, "xss.cet-user"),
        feature(12, "xss.cet-kernel"),
        feature(13, "xss.hdc"),
        feature(14, "xss.uintr"),
        feature(15, "xss.arch-lbr"),
        feature(16, "xss.hwp"),
    ]),
    span(Sdm, (0xd, 0xd), (2, 62), &[Eax], &[
        equal(0, 32, "xsave-component-size"),
    ]),
    span(Sdm, (0xd, 0xd), (2, 62), &[Ebx], &[
        equal(0, 32, "xsave-component-offset"),
    ]),
    span(Sdm, (0xd, 0xd), (2, 62), &[Ecx], &[
        equal(0, 1, "xsave-component-supervisor"),
        equal(1, 1, "xsave-component-align64"),
        feature(2, "xfd-supported"),
    ]),
    word(Sdm, 0x12, 0, Eax, &[
        feature(0, "sgx1"),
        feature(1, "sgx2"),
        feature(5, "enclv"),
        feature(6, "encls-c"),
        feature(7, "everifyreport2"),
        feature(10, "eupdatesvn"),
        feature(11, "sgx-edeccssa"),
    ]),
    word(Sdm, 0x12, 0, Ebx, &[
        features(0, 32, "sgx-miscselect"),
    ]),
    word(Sdm, 0x12, 0, Edx, &[
        at_most(0, 8, "max-enclave-size-not64"),
        at_most(8, 8, "max-enclave-size-64"),
    ]),
    word(Sdm, 0x12, 1, Eax, &[
        feature(0, "secs.attr.init"),
        feature(1, "secs.attr.sgx-debug"),
        feature(2, "secs.attr.sgx-mode64"),
        feature(4, "secs.attr.sgx-provisionkey"),
        feature(5, "secs.attr.sgx-tokenkey"),
        feature(6, "secs.attr.cet"),
        feature(7, "secs.attr.sgx-kss"),
        feature(10, "secs.attr.sgx-aex-notify"),
    ]),
    span(Sdm, (0x12, 0x12), (1, 1), &[Ecx, Edx], &[
        features(0, 32, "secs.xfrm"),
    ]),
    span(Sdm, (0x12, 0x12), (2, u32::MAX), ALL, &[
        own(0, 32, "epc-sections"),
    ]),
    word(Sdm, 0x14, 0, Eax, &[
        at_most(0, 32, "pt.max-subleaf"),
    ]),
    word(Sdm, 0x14, 0, Ebx, &[
        feature(0, "pt.cr3-filtering"),
        feature(1, "pt.psb-cyc"),
        feature(2, "pt.ip-filtering"),
        feature(3, "pt.mtc"),
        feature(4, "pt.ptwrite"),
        feature(5, "pt.power-event-trace"),
        feature(6, "pt.psb-pmi-preserve"),
        feature(7, "pt.event-trace"),
        feature(8, "pt.tnt-disable"),
    ]),
    word(Sdm, 0x14, 0, Ecx, &[
        feature(0, "pt.topa"),
        feature(1, "pt.topa-multi"),
        feature(2, "pt.single-range"),
        feature(3, "pt.transport"),
        equal(31, 1, "pt.lip"),
    ]),
    word(Sdm, 0x14, 1, Eax, &[
        at_most(0, 3, "pt.address-ranges"),
        features(16, 16, "pt.mtc-periods"),
    ]),
    word(Sdm, 0x14, 1, Ebx, &[
        features(0, 16, "pt.cycle-thresholds"),
        features(16, 16, "pt.psb-frequencies"),
    ]),
    word(Sdm, 0x19, 0, Eax, &[
        feature(0, "kl.cpl0-only"),
        feature(1, "kl.no-encrypt"),
        feature(2, "kl.no-decrypt"),
    ]),
    word(Sdm, 0x19, 0, Ebx, &[
        dynamic(0, 1, "kl.enabled"),
        feature(2, "kl.wide"),
        feature(4, "kl.backup"),
    ]),
    word(Sdm, 0x19, 0, Ecx, &[
        features(0, 2, "kl.key-sources"),
    ]),
    span(Sdm, (0x1c, 0x1c), ANY, ALL, &[
        equal(0, 32, "arch-lbr-caps"),
    ]),
    word(Sdm, 0x1d, 0, Eax, &[
        at_most(0, 32, "amx-max-palette"),
    ]),
    word(Sdm, 0x1d, 1, Eax, &[
        equal(0, 16, "palette1.total-tile-bytes"),
        equal(16, 16, "palette1.bytes-per-tile"),
    ]),
    word(Sdm, 0x1d, 1, Ebx, &[
        equal(0, 16, "palette1.bytes-per-row"),
        equal(16, 16, "palette1.max-names"),
    ]),
    word(Sdm, 0x1d, 1, Ecx, &[
        equal(0, 16, "palette1.max-rows"),
    ]),
    word(Sdm, 0x1e, 0, Eax, &[
        at_most(0, 32, "amx-max-subleaf"),
    ]),
    word(Sdm, 0x1e, 0, Ebx, &[
        equal(0, 8, "amx-tmul-max-k"),
        equal(8, 16, "amx-tmul-max-n"),
    ]),
    word(Sdm, 0x1e, 1, Eax, &[
        feature(0, "tmul.int8"),
        feature(1, "tmul.bf16"),
        feature(2, "tmul.complex"),
        feature(3, "tmul.fp16"),
        feature(4, "tmul.fp8"),
        feature(5, "tmul.transpose"),
        feature(6, "tmul.tf32"),
        feature(7, "tmul.avx512"),
        feature(8, "tmul.movrs"),
    ]),
    word(Sdm, 0x24, 0, Ebx, &[
        at_most(0, 8, "avx10-version"),
        feature(16, "avx10-128"),
        feature(17, "avx10-256"),
        feature(18, "avx10-512"),
    ]),
];
