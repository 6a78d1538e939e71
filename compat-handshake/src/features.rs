//! The one table of named processor features: where each bit stands, what it is called and how it
//! is compared. Numbers and whole leaves are in `numbers.rs`, MSR bits in `msr.rs`.
//!
//! Names are spelled as QEMU and Linux spell them. Sources: Intel SDM volume 2A (CPUID), AMD APM
//! volume 3 appendix E, Linux arch/x86/include/asm/cpufeatures.h and arch/x86/kvm/cpuid.c.

use crate::cpuid::Register;
use crate::cpuid::Register::{Eax, Ebx, Ecx, Edx};

/// How one bit of the guest is compared with the same bit of the host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FeatureRule {
    /// The guest relies on it: a guest that sees 1 needs a host with 1.
    Needed,
    /// The bit states a lack: a guest that saw 0 must not meet a host with 1.
    Lack,
    /// The guest's own: chosen by its VMM, or a mirror of its registers. Never compared.
    Owned,
}

/// One named CPUID bit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Feature {
    /// CPUID leaf.
    pub leaf: u32,
    /// CPUID subleaf; 0 where the leaf has none.
    pub subleaf: u32,
    /// Register of the answer.
    pub register: Register,
    /// Bit of the register, 0 to 31.
    pub bit: u8,
    /// Its usual name.
    pub name: &'static str,
    /// How it is compared.
    pub rule: FeatureRule,
}

/// Every named feature, by leaf; within a register by bit.
pub fn features() -> &'static [Feature] {
    FEATURES
}

const fn row(place: (u32, u32, Register, u8), name: &'static str, rule: FeatureRule) -> Feature {
    let (leaf, subleaf, register, bit) = place;
    Feature {
        leaf,
        subleaf,
        register,
        bit,
        name,
        rule,
    }
}

const fn feature(l: u32, s: u32, r: Register, bit: u8, name: &'static str) -> Feature {
    row((l, s, r, bit), name, FeatureRule::Needed)
}

const fn lack(l: u32, s: u32, r: Register, bit: u8, name: &'static str) -> Feature {
    row((l, s, r, bit), name, FeatureRule::Lack)
}

const fn owned(l: u32, s: u32, r: Register, bit: u8, name: &'static str) -> Feature {
    row((l, s, r, bit), name, FeatureRule::Owned)
}

// A set bit of a register in this table that has no row of its own is compared as `Needed` under
// the name "unknown": a newer guest is refused rather than broken.
//
// `md-clear` and `verw-clear` are `Needed`: the guest relies on VERW to flush a buffer.
// `owned` rows of 0x80000001.edx are AMD's aliases of leaf 1, which is compared already.
#[rustfmt::skip]
const FEATURES: &[Feature] = &[
    feature(0x1, 0, Ecx, 0, "pni"),
    feature(0x1, 0, Ecx, 1, "pclmulqdq"),
    feature(0x1, 0, Ecx, 2, "dtes64"),
    feature(0x1, 0, Ecx, 3, "monitor"),
    feature(0x1, 0, Ecx, 4, "ds-cpl"),
    feature(0x1, 0, Ecx, 5, "vmx"),
    feature(0x1, 0, Ecx, 6, "smx"),
    feature(0x1, 0, Ecx, 7, "est"),
    feature(0x1, 0, Ecx, 8, "tm2"),
    feature(0x1, 0, Ecx, 9, "ssse3"),
    feature(0x1, 0, Ecx, 10, "cid"),
    feature(0x1, 0, Ecx, 11, "sdbg"),
    feature(0x1, 0, Ecx, 12, "fma"),
    feature(0x1, 0, Ecx, 13, "cx16"),
    feature(0x1, 0, Ecx, 14, "xtpr"),
    feature(0x1, 0, Ecx, 15, "pdcm"),
    feature(0x1, 0, Ecx, 17, "pcid"),
    feature(0x1, 0, Ecx, 18, "dca"),
    feature(0x1, 0, Ecx, 19, "sse4.1"),
    feature(0x1, 0, Ecx, 20, "sse4.2"),
    feature(0x1, 0, Ecx, 21, "x2apic"),
    feature(0x1, 0, Ecx, 22, "movbe"),
    feature(0x1, 0, Ecx, 23, "popcnt"),
    feature(0x1, 0, Ecx, 24, "tsc-deadline"),
    feature(0x1, 0, Ecx, 25, "aes"),
    feature(0x1, 0, Ecx, 26, "xsave"),
    owned(0x1, 0, Ecx, 27, "osxsave"),
    feature(0x1, 0, Ecx, 28, "avx"),
    feature(0x1, 0, Ecx, 29, "f16c"),
    feature(0x1, 0, Ecx, 30, "rdrand"),
    owned(0x1, 0, Ecx, 31, "hypervisor"),

    feature(0x1, 0, Edx, 0, "fpu"),
    feature(0x1, 0, Edx, 1, "vme"),
    feature(0x1, 0, Edx, 2, "de"),
    feature(0x1, 0, Edx, 3, "pse"),
    feature(0x1, 0, Edx, 4, "tsc"),
    feature(0x1, 0, Edx, 5, "msr"),
    feature(0x1, 0, Edx, 6, "pae"),
    feature(0x1, 0, Edx, 7, "mce"),
    feature(0x1, 0, Edx, 8, "cx8"),
    owned(0x1, 0, Edx, 9, "apic"),
    feature(0x1, 0, Edx, 11, "sep"),
    feature(0x1, 0, Edx, 12, "mtrr"),
    feature(0x1, 0, Edx, 13, "pge"),
    feature(0x1, 0, Edx, 14, "mca"),
    feature(0x1, 0, Edx, 15, "cmov"),
    feature(0x1, 0, Edx, 16, "pat"),
    feature(0x1, 0, Edx, 17, "pse36"),
    feature(0x1, 0, Edx, 18, "pn"),
    feature(0x1, 0, Edx, 19, "clflush"),
    feature(0x1, 0, Edx, 21, "ds"),
    feature(0x1, 0, Edx, 22, "acpi"),
    feature(0x1, 0, Edx, 23, "mmx"),
    feature(0x1, 0, Edx, 24, "fxsr"),
    feature(0x1, 0, Edx, 25, "sse"),
    feature(0x1, 0, Edx, 26, "sse2"),
    feature(0x1, 0, Edx, 27, "ss"),
    owned(0x1, 0, Edx, 28, "ht"),
    feature(0x1, 0, Edx, 29, "tm"),
    feature(0x1, 0, Edx, 30, "ia64"),
    feature(0x1, 0, Edx, 31, "pbe"),

    feature(0x6, 0, Eax, 0, "dtherm"),
    feature(0x6, 0, Eax, 1, "ida"),
    feature(0x6, 0, Eax, 2, "arat"),
    feature(0x6, 0, Eax, 4, "pln"),
    feature(0x6, 0, Eax, 5, "ecmd"),
    feature(0x6, 0, Eax, 6, "pts"),
    feature(0x6, 0, Eax, 7, "hwp"),
    feature(0x6, 0, Eax, 8, "hwp-notify"),
    feature(0x6, 0, Eax, 9, "hwp-act-window"),
    feature(0x6, 0, Eax, 10, "hwp-epp"),
    feature(0x6, 0, Eax, 11, "hwp-pkg-req"),
    feature(0x6, 0, Eax, 13, "hdc"),
    feature(0x6, 0, Eax, 14, "turbo-max-3"),
    feature(0x6, 0, Eax, 15, "hwp-highest-perf-change"),
    feature(0x6, 0, Eax, 16, "hwp-peci-override"),
    feature(0x6, 0, Eax, 17, "hwp-flexible"),
    feature(0x6, 0, Eax, 18, "hwp-fast-access"),
    feature(0x6, 0, Eax, 19, "hfi"),
    feature(0x6, 0, Eax, 20, "hwp-ignore-idle"),
    feature(0x6, 0, Eax, 23, "itd"),
    feature(0x6, 0, Eax, 24, "thermal-intr-msr"),

    feature(0x6, 0, Ecx, 0, "aperfmperf"),
    feature(0x6, 0, Ecx, 3, "epb"),

    feature(0x7, 0, Ebx, 0, "fsgsbase"),
    feature(0x7, 0, Ebx, 1, "tsc-adjust"),
    feature(0x7, 0, Ebx, 2, "sgx"),
    feature(0x7, 0, Ebx, 3, "bmi1"),
    feature(0x7, 0, Ebx, 4, "hle"),
    feature(0x7, 0, Ebx, 5, "avx2"),
    lack(0x7, 0, Ebx, 6, "fdp-excptn-only"),
    feature(0x7, 0, Ebx, 7, "smep"),
    feature(0x7, 0, Ebx, 8, "bmi2"),
    feature(0x7, 0, Ebx, 9, "erms"),
    feature(0x7, 0, Ebx, 10, "invpcid"),
    feature(0x7, 0, Ebx, 11, "rtm"),
    feature(0x7, 0, Ebx, 12, "cqm"),
    lack(0x7, 0, Ebx, 13, "zero-fcs-fds"),
    feature(0x7, 0, Ebx, 14, "mpx"),
    feature(0x7, 0, Ebx, 15, "rdt-a"),
    feature(0x7, 0, Ebx, 16, "avx512f"),
    feature(0x7, 0, Ebx, 17, "avx512dq"),
    feature(0x7, 0, Ebx, 18, "rdseed"),
    feature(0x7, 0, Ebx, 19, "adx"),
    feature(0x7, 0, Ebx, 20, "smap"),
    feature(0x7, 0, Ebx, 21, "avx512ifma"),
    feature(0x7, 0, Ebx, 22, "pcommit"),
    feature(0x7, 0, Ebx, 23, "clflushopt"),
    feature(0x7, 0, Ebx, 24, "clwb"),
    feature(0x7, 0, Ebx, 25, "intel-pt"),
    feature(0x7, 0, Ebx, 26, "avx512pf"),
    feature(0x7, 0, Ebx, 27, "avx512er"),
    feature(0x7, 0, Ebx, 28, "avx512cd"),
    feature(0x7, 0, Ebx, 29, "sha-ni"),
    feature(0x7, 0, Ebx, 30, "avx512bw"),
    feature(0x7, 0, Ebx, 31, "avx512vl"),

    feature(0x7, 0, Ecx, 0, "prefetchwt1"),
    feature(0x7, 0, Ecx, 1, "avx512vbmi"),
    feature(0x7, 0, Ecx, 2, "umip"),
    feature(0x7, 0, Ecx, 3, "pku"),
    owned(0x7, 0, Ecx, 4, "ospke"),
    feature(0x7, 0, Ecx, 5, "waitpkg"),
    feature(0x7, 0, Ecx, 6, "avx512vbmi2"),
    feature(0x7, 0, Ecx, 7, "shstk"),
    feature(0x7, 0, Ecx, 8, "gfni"),
    feature(0x7, 0, Ecx, 9, "vaes"),
    feature(0x7, 0, Ecx, 10, "vpclmulqdq"),
    feature(0x7, 0, Ecx, 11, "avx512vnni"),
    feature(0x7, 0, Ecx, 12, "avx512bitalg"),
    feature(0x7, 0, Ecx, 13, "tme"),
    feature(0x7, 0, Ecx, 14, "avx512-vpopcntdq"),
    feature(0x7, 0, Ecx, 16, "la57"),
    feature(0x7, 0, Ecx, 22, "rdpid"),
    feature(0x7, 0, Ecx, 23, "key-locker"),
    feature(0x7, 0, Ecx, 24, "bus-lock-detect"),
    feature(0x7, 0, Ecx, 25, "cldemote"),
    feature(0x7, 0, Ecx, 27, "movdiri"),
    feature(0x7, 0, Ecx, 28, "movdir64b"),
    feature(0x7, 0, Ecx, 29, "enqcmd"),
    feature(0x7, 0, Ecx, 30, "sgxlc"),
    feature(0x7, 0, Ecx, 31, "pks"),

    feature(0x7, 0, Edx, 1, "sgx-keys"),
    feature(0x7, 0, Edx, 2, "avx512-4vnniw"),
    feature(0x7, 0, Edx, 3, "avx512-4fmaps"),
    feature(0x7, 0, Edx, 4, "fsrm"),
    feature(0x7, 0, Edx, 5, "uintr"),
    feature(0x7, 0, Edx, 8, "avx512-vp2intersect"),
    feature(0x7, 0, Edx, 9, "srbds-ctrl"),
    feature(0x7, 0, Edx, 10, "md-clear"),
    lack(0x7, 0, Edx, 11, "rtm-always-abort"),
    feature(0x7, 0, Edx, 13, "tsx-force-abort"),
    feature(0x7, 0, Edx, 14, "serialize"),
    owned(0x7, 0, Edx, 15, "hybrid"),
    feature(0x7, 0, Edx, 16, "tsx-ldtrk"),
    feature(0x7, 0, Edx, 18, "pconfig"),
    feature(0x7, 0, Edx, 19, "arch-lbr"),
    feature(0x7, 0, Edx, 20, "ibt"),
    feature(0x7, 0, Edx, 22, "amx-bf16"),
    feature(0x7, 0, Edx, 23, "avx512-fp16"),
    feature(0x7, 0, Edx, 24, "amx-tile"),
    feature(0x7, 0, Edx, 25, "amx-int8"),
    feature(0x7, 0, Edx, 26, "spec-ctrl"),
    feature(0x7, 0, Edx, 27, "stibp"),
    feature(0x7, 0, Edx, 28, "flush-l1d"),
    feature(0x7, 0, Edx, 29, "arch-capabilities"),
    feature(0x7, 0, Edx, 30, "core-capability"),
    feature(0x7, 0, Edx, 31, "ssbd"),

    feature(0x7, 1, Eax, 0, "sha512"),
    feature(0x7, 1, Eax, 1, "sm3"),
    feature(0x7, 1, Eax, 2, "sm4"),
    feature(0x7, 1, Eax, 3, "rao-int"),
    feature(0x7, 1, Eax, 4, "avx-vnni"),
    feature(0x7, 1, Eax, 5, "avx512-bf16"),
    feature(0x7, 1, Eax, 6, "lass"),
    feature(0x7, 1, Eax, 7, "cmpccxadd"),
    feature(0x7, 1, Eax, 8, "arch-perfmon-ext"),
    feature(0x7, 1, Eax, 10, "fzrm"),
    feature(0x7, 1, Eax, 11, "fsrs"),
    feature(0x7, 1, Eax, 12, "fsrc"),
    feature(0x7, 1, Eax, 17, "fred"),
    feature(0x7, 1, Eax, 18, "lkgs"),
    feature(0x7, 1, Eax, 19, "wrmsrns"),
    feature(0x7, 1, Eax, 20, "nmi-src"),
    feature(0x7, 1, Eax, 21, "amx-fp16"),
    feature(0x7, 1, Eax, 22, "hreset"),
    feature(0x7, 1, Eax, 23, "avx-ifma"),
    feature(0x7, 1, Eax, 26, "lam"),
    feature(0x7, 1, Eax, 27, "msrlist"),
    lack(0x7, 1, Eax, 30, "invd-disable-post-bios"),
    feature(0x7, 1, Eax, 31, "movrs"),

    feature(0x7, 1, Ebx, 0, "ppin"),
    feature(0x7, 1, Ebx, 1, "pbndkb"),
    feature(0x7, 1, Ebx, 3, "cpuid-limit-removed"),

    feature(0x7, 1, Ecx, 5, "msr-imm"),

    feature(0x7, 1, Edx, 4, "avx-vnni-int8"),
    feature(0x7, 1, Edx, 5, "avx-ne-convert"),
    feature(0x7, 1, Edx, 8, "amx-complex"),
    feature(0x7, 1, Edx, 10, "avx-vnni-int16"),
    feature(0x7, 1, Edx, 13, "utmr"),
    feature(0x7, 1, Edx, 14, "prefetchiti"),
    feature(0x7, 1, Edx, 15, "user-msr"),
    feature(0x7, 1, Edx, 17, "uiret-uif"),
    feature(0x7, 1, Edx, 18, "cet-sss"),
    feature(0x7, 1, Edx, 19, "avx10"),
    feature(0x7, 1, Edx, 21, "apx"),
    feature(0x7, 1, Edx, 24, "slsm"),

    feature(0x7, 2, Edx, 0, "intel-psfd"),
    feature(0x7, 2, Edx, 1, "ipred-ctrl"),
    feature(0x7, 2, Edx, 2, "rrsba-ctrl"),
    feature(0x7, 2, Edx, 3, "ddpd-u"),
    feature(0x7, 2, Edx, 4, "bhi-ctrl"),
    feature(0x7, 2, Edx, 5, "mcdt-no"),
    feature(0x7, 2, Edx, 6, "uc-lock-dis"),
    feature(0x7, 2, Edx, 7, "monitor-mitg-no"),

    feature(0xd, 0, Eax, 0, "xcr0.x87"),
    feature(0xd, 0, Eax, 1, "xcr0.sse"),
    feature(0xd, 0, Eax, 2, "xcr0.avx"),
    feature(0xd, 0, Eax, 3, "xcr0.bndregs"),
    feature(0xd, 0, Eax, 4, "xcr0.bndcsr"),
    feature(0xd, 0, Eax, 5, "xcr0.opmask"),
    feature(0xd, 0, Eax, 6, "xcr0.zmm-hi256"),
    feature(0xd, 0, Eax, 7, "xcr0.hi16-zmm"),
    feature(0xd, 0, Eax, 9, "xcr0.pkru"),
    feature(0xd, 0, Eax, 17, "xcr0.tilecfg"),
    feature(0xd, 0, Eax, 18, "xcr0.tiledata"),
    feature(0xd, 0, Eax, 19, "xcr0.apx"),

    feature(0xd, 0, Edx, 30, "xcr0.lwp"),

    feature(0xd, 1, Eax, 0, "xsaveopt"),
    feature(0xd, 1, Eax, 1, "xsavec"),
    feature(0xd, 1, Eax, 2, "xgetbv1"),
    feature(0xd, 1, Eax, 3, "xsaves"),
    feature(0xd, 1, Eax, 4, "xfd"),

    feature(0xd, 1, Ecx, 8, "xss.pt"),
    feature(0xd, 1, Ecx, 10, "xss.pasid"),
    feature(0xd, 1, Ecx, 11, "xss.cet-user"),
    feature(0xd, 1, Ecx, 12, "xss.cet-kernel"),
    feature(0xd, 1, Ecx, 13, "xss.hdc"),
    feature(0xd, 1, Ecx, 14, "xss.uintr"),
    feature(0xd, 1, Ecx, 15, "xss.arch-lbr"),
    feature(0xd, 1, Ecx, 16, "xss.hwp"),

    feature(0x14, 0, Ebx, 0, "pt.cr3-filtering"),
    feature(0x14, 0, Ebx, 1, "pt.psb-cyc"),
    feature(0x14, 0, Ebx, 2, "pt.ip-filtering"),
    feature(0x14, 0, Ebx, 3, "pt.mtc"),
    feature(0x14, 0, Ebx, 4, "pt.ptwrite"),
    feature(0x14, 0, Ebx, 5, "pt.power-event-trace"),
    feature(0x14, 0, Ebx, 6, "pt.psb-pmi-preserve"),
    feature(0x14, 0, Ebx, 7, "pt.event-trace"),
    feature(0x14, 0, Ebx, 8, "pt.tnt-disable"),

    feature(0x14, 0, Ecx, 0, "pt.topa"),
    feature(0x14, 0, Ecx, 1, "pt.topa-multi"),
    feature(0x14, 0, Ecx, 2, "pt.single-range"),
    feature(0x14, 0, Ecx, 3, "pt.transport"),
    feature(0x14, 0, Ecx, 31, "intel-pt-lip"),

    feature(0x40000001, 0, Eax, 0, "kvmclock"),
    feature(0x40000001, 0, Eax, 1, "kvm-nopiodelay"),
    feature(0x40000001, 0, Eax, 2, "kvm-mmu"),
    feature(0x40000001, 0, Eax, 3, "kvmclock2"),
    feature(0x40000001, 0, Eax, 4, "kvm-asyncpf"),
    feature(0x40000001, 0, Eax, 5, "kvm-steal-time"),
    feature(0x40000001, 0, Eax, 6, "kvm-pv-eoi"),
    feature(0x40000001, 0, Eax, 7, "kvm-pv-unhalt"),
    feature(0x40000001, 0, Eax, 9, "kvm-pv-tlb-flush"),
    feature(0x40000001, 0, Eax, 10, "kvm-asyncpf-vmexit"),
    feature(0x40000001, 0, Eax, 11, "kvm-pv-ipi"),
    feature(0x40000001, 0, Eax, 12, "kvm-poll-control"),
    feature(0x40000001, 0, Eax, 13, "kvm-pv-sched-yield"),
    feature(0x40000001, 0, Eax, 14, "kvm-asyncpf-int"),
    feature(0x40000001, 0, Eax, 15, "kvm-msi-ext-dest-id"),
    feature(0x40000001, 0, Eax, 16, "kvm-hc-map-gpa-range"),
    feature(0x40000001, 0, Eax, 17, "kvm-migration-control"),
    feature(0x40000001, 0, Eax, 24, "kvmclock-stable-bit"),

    feature(0x80000001, 0, Ecx, 0, "lahf-lm"),
    owned(0x80000001, 0, Ecx, 1, "cmp-legacy"),
    feature(0x80000001, 0, Ecx, 2, "svm"),
    feature(0x80000001, 0, Ecx, 3, "extapic"),
    feature(0x80000001, 0, Ecx, 4, "cr8legacy"),
    feature(0x80000001, 0, Ecx, 5, "abm"),
    feature(0x80000001, 0, Ecx, 6, "sse4a"),
    feature(0x80000001, 0, Ecx, 7, "misalignsse"),
    feature(0x80000001, 0, Ecx, 8, "3dnowprefetch"),
    feature(0x80000001, 0, Ecx, 9, "osvw"),
    feature(0x80000001, 0, Ecx, 10, "ibs"),
    feature(0x80000001, 0, Ecx, 11, "xop"),
    feature(0x80000001, 0, Ecx, 12, "skinit"),
    feature(0x80000001, 0, Ecx, 13, "wdt"),
    feature(0x80000001, 0, Ecx, 15, "lwp"),
    feature(0x80000001, 0, Ecx, 16, "fma4"),
    feature(0x80000001, 0, Ecx, 17, "tce"),
    feature(0x80000001, 0, Ecx, 19, "nodeid-msr"),
    feature(0x80000001, 0, Ecx, 21, "tbm"),
    owned(0x80000001, 0, Ecx, 22, "topoext"),
    feature(0x80000001, 0, Ecx, 23, "perfctr-core"),
    feature(0x80000001, 0, Ecx, 24, "perfctr-nb"),
    feature(0x80000001, 0, Ecx, 26, "dbext"),
    feature(0x80000001, 0, Ecx, 27, "perftsc"),
    feature(0x80000001, 0, Ecx, 28, "perfctr-llc"),
    feature(0x80000001, 0, Ecx, 29, "mwaitx"),
    feature(0x80000001, 0, Ecx, 30, "addr-mask-ext"),

    owned(0x80000001, 0, Edx, 0, "fpu (alias)"),
    owned(0x80000001, 0, Edx, 1, "vme (alias)"),
    owned(0x80000001, 0, Edx, 2, "de (alias)"),
    owned(0x80000001, 0, Edx, 3, "pse (alias)"),
    owned(0x80000001, 0, Edx, 4, "tsc (alias)"),
    owned(0x80000001, 0, Edx, 5, "msr (alias)"),
    owned(0x80000001, 0, Edx, 6, "pae (alias)"),
    owned(0x80000001, 0, Edx, 7, "mce (alias)"),
    owned(0x80000001, 0, Edx, 8, "cx8 (alias)"),
    owned(0x80000001, 0, Edx, 9, "apic (alias)"),
    feature(0x80000001, 0, Edx, 11, "syscall"),
    owned(0x80000001, 0, Edx, 12, "mtrr (alias)"),
    owned(0x80000001, 0, Edx, 13, "pge (alias)"),
    owned(0x80000001, 0, Edx, 14, "mca (alias)"),
    owned(0x80000001, 0, Edx, 15, "cmov (alias)"),
    owned(0x80000001, 0, Edx, 16, "pat (alias)"),
    owned(0x80000001, 0, Edx, 17, "pse36 (alias)"),
    feature(0x80000001, 0, Edx, 19, "mp"),
    feature(0x80000001, 0, Edx, 20, "nx"),
    feature(0x80000001, 0, Edx, 22, "mmxext"),
    owned(0x80000001, 0, Edx, 23, "mmx (alias)"),
    owned(0x80000001, 0, Edx, 24, "fxsr (alias)"),
    feature(0x80000001, 0, Edx, 25, "fxsr-opt"),
    feature(0x80000001, 0, Edx, 26, "pdpe1gb"),
    feature(0x80000001, 0, Edx, 27, "rdtscp"),
    feature(0x80000001, 0, Edx, 29, "lm"),
    feature(0x80000001, 0, Edx, 30, "3dnowext"),
    feature(0x80000001, 0, Edx, 31, "3dnow"),

    feature(0x80000007, 0, Ebx, 0, "overflow-recov"),
    feature(0x80000007, 0, Ebx, 1, "succor"),
    feature(0x80000007, 0, Ebx, 2, "hwa"),
    feature(0x80000007, 0, Ebx, 3, "scalable-mca"),

    feature(0x80000007, 0, Edx, 0, "ts"),
    feature(0x80000007, 0, Edx, 1, "fid"),
    feature(0x80000007, 0, Edx, 2, "vid"),
    feature(0x80000007, 0, Edx, 3, "ttp"),
    feature(0x80000007, 0, Edx, 4, "tm"),
    feature(0x80000007, 0, Edx, 5, "stc"),
    feature(0x80000007, 0, Edx, 6, "100mhzsteps"),
    feature(0x80000007, 0, Edx, 7, "hwpstate"),
    feature(0x80000007, 0, Edx, 8, "invtsc"),
    feature(0x80000007, 0, Edx, 9, "cpb"),
    feature(0x80000007, 0, Edx, 10, "eff-freq-ro"),
    feature(0x80000007, 0, Edx, 11, "proc-feedback"),
    feature(0x80000007, 0, Edx, 12, "acc-power"),
    feature(0x80000007, 0, Edx, 13, "connected-standby"),
    feature(0x80000007, 0, Edx, 14, "rapl"),
    feature(0x80000007, 0, Edx, 15, "fast-cppc"),

    feature(0x80000008, 0, Ebx, 0, "clzero"),
    feature(0x80000008, 0, Ebx, 1, "irperf"),
    feature(0x80000008, 0, Ebx, 2, "xsaveerptr"),
    feature(0x80000008, 0, Ebx, 3, "invlpgb"),
    feature(0x80000008, 0, Ebx, 4, "rdpru"),
    feature(0x80000008, 0, Ebx, 6, "mba"),
    feature(0x80000008, 0, Ebx, 8, "mcommit"),
    feature(0x80000008, 0, Ebx, 9, "wbnoinvd"),
    feature(0x80000008, 0, Ebx, 12, "ibpb"),
    feature(0x80000008, 0, Ebx, 13, "int-wbinvd"),
    feature(0x80000008, 0, Ebx, 14, "ibrs"),
    feature(0x80000008, 0, Ebx, 15, "amd-stibp"),
    feature(0x80000008, 0, Ebx, 16, "ibrs-always-on"),
    feature(0x80000008, 0, Ebx, 17, "stibp-always-on"),
    feature(0x80000008, 0, Ebx, 18, "ibrs-preferred"),
    feature(0x80000008, 0, Ebx, 19, "ibrs-same-mode"),
    lack(0x80000008, 0, Ebx, 20, "no-lmsle"),
    feature(0x80000008, 0, Ebx, 21, "invlpgb-nested"),
    feature(0x80000008, 0, Ebx, 23, "ppin"),
    feature(0x80000008, 0, Ebx, 24, "amd-ssbd"),
    feature(0x80000008, 0, Ebx, 25, "virt-ssbd"),
    feature(0x80000008, 0, Ebx, 26, "amd-no-ssb"),
    feature(0x80000008, 0, Ebx, 27, "cppc"),
    feature(0x80000008, 0, Ebx, 28, "amd-psfd"),
    feature(0x80000008, 0, Ebx, 29, "btc-no"),
    feature(0x80000008, 0, Ebx, 30, "ibpb-ret"),
    feature(0x80000008, 0, Ebx, 31, "branch-sampling"),

    feature(0x8000000a, 0, Edx, 0, "npt"),
    feature(0x8000000a, 0, Edx, 1, "lbrv"),
    feature(0x8000000a, 0, Edx, 2, "svm-lock"),
    feature(0x8000000a, 0, Edx, 3, "nrip-save"),
    feature(0x8000000a, 0, Edx, 4, "tsc-scale"),
    feature(0x8000000a, 0, Edx, 5, "vmcb-clean"),
    feature(0x8000000a, 0, Edx, 6, "flushbyasid"),
    feature(0x8000000a, 0, Edx, 7, "decodeassists"),
    feature(0x8000000a, 0, Edx, 10, "pause-filter"),
    feature(0x8000000a, 0, Edx, 12, "pfthreshold"),
    feature(0x8000000a, 0, Edx, 13, "avic"),
    feature(0x8000000a, 0, Edx, 15, "v-vmsave-vmload"),
    feature(0x8000000a, 0, Edx, 16, "vgif"),
    feature(0x8000000a, 0, Edx, 17, "gmet"),
    feature(0x8000000a, 0, Edx, 18, "x2avic"),
    feature(0x8000000a, 0, Edx, 19, "sss-check"),
    feature(0x8000000a, 0, Edx, 20, "v-spec-ctrl"),
    feature(0x8000000a, 0, Edx, 21, "rogpt"),
    feature(0x8000000a, 0, Edx, 23, "host-mce-override"),
    feature(0x8000000a, 0, Edx, 24, "tlbi-ctl"),
    feature(0x8000000a, 0, Edx, 25, "vnmi"),
    feature(0x8000000a, 0, Edx, 26, "ibs-virt"),
    feature(0x8000000a, 0, Edx, 27, "ext-lvt-av-change"),
    feature(0x8000000a, 0, Edx, 28, "svme-addr-chk"),
    feature(0x8000000a, 0, Edx, 29, "bus-lock-threshold"),
    feature(0x8000000a, 0, Edx, 30, "idle-hlt"),

    feature(0x80000021, 0, Eax, 0, "no-nested-data-bp"),
    lack(0x80000021, 0, Eax, 1, "fs-gs-base-ns"),
    feature(0x80000021, 0, Eax, 2, "lfence-always-serializing"),
    feature(0x80000021, 0, Eax, 3, "smm-pgcfg-lock"),
    feature(0x80000021, 0, Eax, 5, "verw-clear"),
    feature(0x80000021, 0, Eax, 6, "null-sel-clr-base"),
    feature(0x80000021, 0, Eax, 7, "upper-addr-ignore"),
    feature(0x80000021, 0, Eax, 8, "auto-ibrs"),
    feature(0x80000021, 0, Eax, 9, "no-smm-ctl-msr"),
    feature(0x80000021, 0, Eax, 10, "fsrs"),
    feature(0x80000021, 0, Eax, 11, "fsrc"),
    feature(0x80000021, 0, Eax, 13, "prefetch-ctl-msr"),
    feature(0x80000021, 0, Eax, 17, "cpuid-user-dis"),
    feature(0x80000021, 0, Eax, 18, "epsf"),
    feature(0x80000021, 0, Eax, 19, "fsrsc"),
    feature(0x80000021, 0, Eax, 20, "prefetchi"),
    feature(0x80000021, 0, Eax, 23, "avx512-bmm"),
    feature(0x80000021, 0, Eax, 24, "eraps"),
    feature(0x80000021, 0, Eax, 27, "sbpb"),
    feature(0x80000021, 0, Eax, 28, "ibpb-brtype"),
    feature(0x80000021, 0, Eax, 29, "srso-no"),
    feature(0x80000021, 0, Eax, 30, "srso-user-kernel-no"),
    feature(0x80000021, 0, Eax, 31, "srso-msr-fix"),

    feature(0x80000021, 0, Ecx, 1, "tsa-sq-no"),
    feature(0x80000021, 0, Ecx, 2, "tsa-l1-no"),

    feature(0x80000022, 0, Eax, 0, "perfmon-v2"),
    feature(0x80000022, 0, Eax, 1, "lbr-v2"),
    feature(0x80000022, 0, Eax, 2, "lbr-pmc-freeze"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_within_a_register_and_unique() {
        for (index, row) in FEATURES.iter().enumerate() {
            assert!(row.bit < 32, "{row:?}");
            for other in &FEATURES[index + 1..] {
                let one_word = (row.leaf, row.subleaf, row.register)
                    == (other.leaf, other.subleaf, other.register);
                assert!(!one_word || row.bit < other.bit, "{row:?} before {other:?}");
            }
        }
    }

    #[test]
    fn registers_are_contiguous() {
        let mut seen = alloc::vec::Vec::new();
        for row in FEATURES {
            let word = (row.leaf, row.subleaf, row.register);
            if seen.last() != Some(&word) {
                assert!(
                    !seen.contains(&word),
                    "{row:?} stands apart from its register"
                );
                seen.push(word);
            }
        }
    }
}
