//! Which features need which others, and what follows when one is hidden: what builds on it is
//! hidden too, and everything that is computed from features is computed again.
//!
//! Sources: Intel SDM volumes 1 and 2A; AMD APM volume 3, appendix E; Linux
//! arch/x86/kernel/cpu/cpuid-deps.c; psABI for what compilers take for granted.

use crate::cpuid::{CpuidTable, Register, Vendor};
use crate::names::has;
use crate::processor::Processor;
use crate::xsave;

/// A feature, and those that go with it.
type Row = (&'static str, &'static [&'static str]);

#[rustfmt::skip]
const NEEDED_BY: &[Row] = &[
    ("fpu", &["mmx", "xsaveerptr"]),
    ("pse", &["pse36"]),
    ("pae", &["lm", "nx"]),
    ("tsc", &["tsc-deadline", "rdtscp", "tsc-adjust", "invtsc"]),
    // All three write whole lines of the size that is told with the first.
    ("clflush", &["clzero", "clflushopt", "clwb"]),
    ("mmx", &["mmxext", "3dnow"]),
    ("3dnow", &["3dnowext"]),
    ("fxsr", &["fxsr-opt", "sse"]),
    ("sse", &["sse2", "misalignsse"]),
    ("sse2", &["pni", "lm", "aes", "pclmulqdq", "sha-ni", "gfni"]),
    ("pni", &["ssse3", "sse4a"]),
    ("ssse3", &["sse4.1"]),
    // Not popcnt: it came with SSE4.2 and needs nothing of it.
    ("sse4.1", &["sse4.2"]),
    ("xsave", &[
        "xsaveopt", "xsavec", "xgetbv1", "xsaves", "avx", "mpx", "pku", "amx-tile", "xfd",
        "apx",
    ]),
    ("avx", &["fma", "fma4", "f16c", "avx2", "xop", "avx-ne-convert", "sm3"]),
    ("avx2", &[
        "avx512f", "vaes", "vpclmulqdq", "avx-vnni", "avx-ifma", "avx-vnni-int8",
        "avx-vnni-int16", "sha512", "sm4", "avx10",
    ]),
    ("avx512f", &[
        "avx512dq", "avx512ifma", "avx512pf", "avx512er", "avx512cd", "avx512bw", "avx512vl",
        "avx512-4vnniw", "avx512-4fmaps", "avx512vnni", "avx512-vpopcntdq",
        "avx512-vp2intersect",
    ]),
    ("avx512bw", &[
        "avx512vbmi", "avx512vbmi2", "avx512bitalg", "avx512-bf16", "avx512-fp16",
        "avx512-bmm",
    ]),
    ("pclmulqdq", &["vpclmulqdq"]),
    ("aes", &["vaes"]),
    ("lm", &[
        "cx16", "pcid", "lahf-lm", "pdpe1gb", "pku", "amx-tile", "cmpccxadd", "lkgs",
        "movrs", "fred", "la57",
    ]),
    // `ibrs-all` says that a bit may be left set in the register that comes with `spec-ctrl`.
    ("spec-ctrl", &[
        "stibp", "ssbd", "intel-psfd", "ibrs-all", "ipred-ctrl", "rrsba-ctrl", "bhi-ctrl",
    ]),
    ("ibrs", &[
        "amd-stibp", "amd-ssbd", "amd-psfd", "auto-ibrs", "ibrs-always-on", "ibrs-preferred",
        "ibrs-same-mode",
    ]),
    ("ibpb", &["ibpb-ret", "sbpb", "ibpb-brtype"]),
    ("amd-stibp", &["stibp-always-on"]),
    ("amd-psfd", &["epsf"]),
    ("rtm", &["tsx-ldtrk"]),
    ("sgx", &["sgxlc", "sgx-keys"]),
    ("amx-tile", &["amx-bf16", "amx-int8", "amx-fp16", "amx-complex", "xfd"]),
    ("lkgs", &["fred"]),
    ("wrmsrns", &["fred"]),
    ("avx10-128", &["avx10-256"]),
    ("avx10-256", &["avx10-512"]),
    ("kvmclock2", &["kvmclock-stable-bit"]),
];

/// Leaves that describe one feature and go with it.
const DESCRIBED_BY: &[(&str, &[u32])] = &[
    ("amx-tile", &[0x1d, 0x1e]),
    ("avx10", &[0x24]),
    ("sgx", &[0x12]),
    ("intel-pt", &[0x14]),
    ("svm", &[0x8000_000a]),
];

/// Numbers that mean something beside one feature only.
const COUNTED_BY: &[(&str, &[&str])] = &[
    ("invlpgb", &["invlpgb-max-pages"]),
    ("rdpru", &["rdpru-max"]),
    ("eraps", &["rap-size"]),
];

/// AMD's leaves of caches and of APIC ids, and the bit of 0x80000001.ecx that speaks of them.
const TOPOLOGY_LEAF: u32 = 0x8000_001e;
const TOPOEXT: u32 = 1 << 22;

/// Bits of leaf 1 that AMD repeats in 0x80000001.edx.
const ALIASES: u32 = 0x0183_f3ff;

/// Makes a processor whole after features were hidden in it.
pub(crate) fn settle(processor: &mut Processor) {
    // First: what can't be asked for describes nothing.
    cut(&mut processor.cpuid);
    while hide_dependents(processor)
        || xsave::hide_undescribed(&mut processor.cpuid)
        || hide_unsized(&mut processor.cpuid)
    {}
    settle_cpuid(&mut processor.cpuid);
    // Registers go with the features that show them.
    let whole = processor.clone();
    processor.msrs.retain(|index, _| whole.shows_msr(index));
}

fn settle_cpuid(table: &mut CpuidTable) {
    xsave::recompute(table);
    for (name, numbers) in COUNTED_BY {
        if !table.has(name) {
            numbers.iter().for_each(|number| table.clear_number(number));
        }
    }
    if !table.reaches(TOPOLOGY_LEAF) && table.find(0x8000_0001, 0).is_some() {
        table.change(0x8000_0001, 0, |entry| entry.ecx &= !TOPOEXT);
    }
    for (name, leaves) in DESCRIBED_BY {
        if !table.has(name) {
            table.retain(|entry| !leaves.contains(&entry.leaf));
        }
    }
    if !table.has("la57") && table.find(0x8000_0008, 0).is_some() {
        table.change(0x8000_0008, 0, |entry| {
            let bits = (entry.eax >> 8 & 0xff).min(48);
            entry.eax = entry.eax & !0xff00 | bits << 8;
        });
    }
    let repeats = matches!(table.vendor(), Ok(Vendor::Amd | Vendor::Hygon));
    let leaf_1 = table.register(1, 0, Register::Edx);
    if repeats && table.find(0x8000_0001, 0).is_some() {
        table.change(0x8000_0001, 0, |entry| {
            entry.edx = entry.edx & !ALIASES | leaf_1 & ALIASES;
        });
    }
    cut(table);
}

/// Says whether anything was hidden, so that more may have to be.
fn hide_dependents(processor: &mut Processor) -> bool {
    let mut hidden = false;
    for (needed, dependents) in NEEDED_BY {
        if !has(processor, needed) {
            for name in *dependents {
                hidden |= processor.hide(name);
            }
        }
    }
    hidden
}

/// A guest that flushes lines of no size never comes to the end of what it flushes.
fn hide_unsized(table: &mut CpuidTable) -> bool {
    let line = table.register(1, 0, Register::Ebx) >> 8 & 0xff;
    line == 0 && table.hide("clflush")
}

/// Takes away what lies beyond the highest leaf of its range, and the highest subleaf of leaf 7.
fn cut(table: &mut CpuidTable) {
    let whole = table.clone();
    let subleaf_max = whole.register(7, 0, Register::Eax);
    table.retain(|entry| {
        whole.reaches(entry.leaf) && (entry.leaf != 7 || entry.subleaf <= subleaf_max)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::is_feature;
    use crate::rules::{Kind, words};

    #[test]
    fn every_number_has_a_row() {
        let names = COUNTED_BY.iter().flat_map(|(owner, numbers)| {
            assert!(is_feature(owner), "{owner}");
            numbers.iter()
        });
        for name in names {
            let mut fields = words().flat_map(|word| word.fields);
            assert!(fields.any(|field| field.name == *name), "{name}");
        }
    }

    #[test]
    fn every_name_is_a_feature() {
        for (needed, dependents) in NEEDED_BY {
            assert!(is_feature(needed), "{needed}");
            for name in *dependents {
                assert!(is_feature(name), "{name}");
            }
        }
    }

    #[test]
    fn no_lack_is_hidden() {
        // A guest that is no longer told of a lack would be refused by every host that has it.
        let fields = words().flat_map(|word| word.fields);
        for lack in fields.filter(|field| matches!(field.kind, Kind::Inverse(_))) {
            let hides = |(_, dependents): &&Row| dependents.contains(&lack.name);
            assert_eq!(NEEDED_BY.iter().find(hides), None, "{}", lack.name);
        }
    }

    #[test]
    fn nothing_needs_itself() {
        // Whatever order the rows are followed in, the way ends.
        fn reaches(from: &str, to: &str, left: usize) -> bool {
            left > 0
                && NEEDED_BY
                    .iter()
                    .filter(|(needed, _)| *needed == from)
                    .flat_map(|(_, dependents)| *dependents)
                    .any(|next| *next == to || reaches(next, to, left - 1))
        }
        for (needed, _) in NEEDED_BY {
            assert!(!reaches(needed, needed, 12), "{needed}");
        }
    }
}
