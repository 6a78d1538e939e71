//! The fixed baselines: which features a guest of each sees, as what each adds to an earlier one.
//!
//! A row never changes once released; a correction is a new row with a new name. A model is an
//! allow-list: what it does not name is hidden. Named here are instructions and system features
//! that software asks for. Left to other rules (`controls.rs`) are the speculation controls, what
//! KVM emulates on every host, and what vanishes or does not travel; left out are hints about
//! speed, `xsaves` (no state of these models needs it) and `la57` (for guests beyond 64 TiB).
//!
//! Sources: psABI for x86-64, "Low Level System Information"; QEMU's and libvirt's processor
//! models; Intel SDM; AMD APM; compared with CPUID answers of processors of each generation.

use crate::cpuid::Vendor::{self, Amd, Hygon, Intel};

/// One fixed baseline as it stands in the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// Whose processors it is for; `None` for any known vendor's.
    pub(crate) vendor: Option<Vendor>,
    /// The earlier row that it builds on.
    pub(crate) from: Option<&'static str>,
    pub(crate) adds: &'static [&'static str],
    pub(crate) drops: &'static [&'static str],
    /// Width of physical addresses: that of the generation's smallest processor.
    pub(crate) phys_bits: u8,
    /// The highest leaf that the features need.
    pub(crate) max_basic_leaf: u32,
    pub(crate) max_extended_leaf: u32,
    pub(crate) source: &'static str,
}

const PSABI: &str = "psABI for x86-64";
const FLOOR: &str =
    "the least of all processors of the vendor that run guests; Hyper-V's standard mode";
const QEMU: &str = "the model of QEMU and libvirt, without TSX and mitigations";
const VENDOR: &str = "the manufacturer's manual, and CPUID answers of the generation";

const fn model(name: &'static str, vendor: Option<Vendor>, from: &'static str) -> Model {
    Model {
        name,
        vendor,
        from: Some(from),
        adds: &[],
        drops: &[],
        phys_bits: 36,
        max_basic_leaf: 1,
        max_extended_leaf: 0x8000_0008,
        source: QEMU,
    }
}

/// In an order in which each comes after what it builds on.
pub(crate) const MODELS: &[Model] = &[
    Model {
        from: None,
        // With what every operating system for it takes for granted. Not vme, which is of use in
        // 16-bit mode only, and which emulated processors lack.
        adds: &[
            "clflush", "cmov", "cx8", "de", "fpu", "fxsr", "lm", "mca", "mce", "mmx", "msr",
            "mtrr", "nx", "pae", "pat", "pge", "pse", "pse36", "sep", "sse", "sse2", "syscall",
            "tsc",
        ],
        source: PSABI,
        ..model("x86-64-v1", None, "")
    },
    Model {
        adds: &[
            "cx16", "lahf-lm", "pni", "popcnt", "sse4.1", "sse4.2", "ssse3",
        ],
        source: PSABI,
        ..model("x86-64-v2", None, "x86-64-v1")
    },
    Model {
        adds: &[
            "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave",
        ],
        phys_bits: 39,
        max_basic_leaf: 0xd,
        source: PSABI,
        ..model("x86-64-v3", None, "x86-64-v2")
    },
    Model {
        adds: &["avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"],
        phys_bits: 39,
        max_basic_leaf: 0xd,
        source: PSABI,
        ..model("x86-64-v4", None, "x86-64-v3")
    },
    Model {
        adds: &["cx16", "lahf-lm", "pni"],
        source: FLOOR,
        ..model("minimum-intel-v1", Some(Intel), "x86-64-v1")
    },
    model("nehalem", Some(Intel), "x86-64-v2"),
    Model {
        adds: &["aes", "pclmulqdq"],
        ..model("westmere", Some(Intel), "nehalem")
    },
    Model {
        adds: &["avx", "rdtscp", "xsave"],
        max_basic_leaf: 0xd,
        ..model("sandy-bridge", Some(Intel), "westmere")
    },
    Model {
        adds: &["f16c", "fsgsbase", "rdrand", "smep"],
        max_basic_leaf: 0xd,
        ..model("ivy-bridge", Some(Intel), "sandy-bridge")
    },
    Model {
        adds: &[
            "abm", "avx2", "bmi1", "bmi2", "fma", "invpcid", "movbe", "pcid",
        ],
        phys_bits: 39,
        max_basic_leaf: 0xd,
        ..model("haswell", Some(Intel), "ivy-bridge")
    },
    Model {
        adds: &["3dnowprefetch", "adx", "rdseed", "smap"],
        phys_bits: 39,
        max_basic_leaf: 0xd,
        ..model("broadwell", Some(Intel), "haswell")
    },
    Model {
        adds: &["xgetbv1", "xsavec", "xsaveopt"],
        phys_bits: 39,
        max_basic_leaf: 0xd,
        ..model("skylake-client", Some(Intel), "broadwell")
    },
    Model {
        adds: &[
            "avx512bw",
            "avx512cd",
            "avx512dq",
            "avx512f",
            "avx512vl",
            "clflushopt",
            "clwb",
            "pdpe1gb",
        ],
        phys_bits: 46,
        max_basic_leaf: 0xd,
        ..model("skylake-server", Some(Intel), "skylake-client")
    },
    Model {
        adds: &["avx512vnni"],
        phys_bits: 46,
        max_basic_leaf: 0xd,
        ..model("cascade-lake", Some(Intel), "skylake-server")
    },
    Model {
        adds: &[
            "avx512-vpopcntdq",
            "avx512bitalg",
            "avx512ifma",
            "avx512vbmi",
            "avx512vbmi2",
            "gfni",
            "pku",
            "rdpid",
            "sha-ni",
            "vaes",
            "vpclmulqdq",
            "wbnoinvd",
        ],
        phys_bits: 46,
        max_basic_leaf: 0xd,
        ..model("ice-lake-server", Some(Intel), "cascade-lake")
    },
    Model {
        adds: &[
            "avx-vnni",
            "avx512-bf16",
            "avx512-fp16",
            "movdir64b",
            "movdiri",
            "serialize",
        ],
        phys_bits: 46,
        max_basic_leaf: 0xd,
        ..model("sapphire-rapids", Some(Intel), "ice-lake-server")
    },
    Model {
        adds: &["prefetchiti"],
        phys_bits: 46,
        max_basic_leaf: 0xd,
        source: VENDOR,
        ..model("granite-rapids", Some(Intel), "sapphire-rapids")
    },
    Model {
        // The other branch: no AVX-512, and instructions that the large cores lack.
        adds: &[
            "avx-ifma",
            "avx-ne-convert",
            "avx-vnni",
            "avx-vnni-int8",
            "clflushopt",
            "clwb",
            "cmpccxadd",
            "gfni",
            "movdir64b",
            "movdiri",
            "pdpe1gb",
            "pku",
            "rdpid",
            "serialize",
            "sha-ni",
            "vaes",
            "vpclmulqdq",
            "wbnoinvd",
        ],
        phys_bits: 46,
        max_basic_leaf: 0xd,
        source: VENDOR,
        ..model("sierra-forest", Some(Intel), "skylake-client")
    },
    Model {
        adds: &["cx16", "lahf-lm", "pni", "rdtscp"],
        source: FLOOR,
        ..model("minimum-amd-v1", Some(Amd), "x86-64-v1")
    },
    Model {
        adds: &["abm", "misalignsse", "popcnt", "sse4a"],
        phys_bits: 48,
        ..model("opteron-g3", Some(Amd), "minimum-amd-v1")
    },
    Model {
        adds: &[
            "3dnowprefetch",
            "aes",
            "avx",
            "fma4",
            "pclmulqdq",
            "pdpe1gb",
            "sse4.1",
            "sse4.2",
            "ssse3",
            "xop",
            "xsave",
        ],
        phys_bits: 48,
        max_basic_leaf: 0xd,
        ..model("opteron-g4", Some(Amd), "opteron-g3")
    },
    Model {
        adds: &["f16c", "fma", "tbm"],
        phys_bits: 48,
        max_basic_leaf: 0xd,
        ..model("opteron-g5", Some(Amd), "opteron-g4")
    },
    Model {
        adds: &[
            "adx",
            "avx2",
            "bmi1",
            "bmi2",
            "clflushopt",
            "cr8legacy",
            "fsgsbase",
            "fxsr-opt",
            "mmxext",
            "movbe",
            "rdrand",
            "rdseed",
            "sha-ni",
            "smap",
            "smep",
            "xgetbv1",
            "xsavec",
            "xsaveopt",
        ],
        drops: &["fma4", "tbm", "xop"],
        phys_bits: 48,
        max_basic_leaf: 0xd,
        max_extended_leaf: 0x8000_001e,
        ..model("zen", Some(Amd), "opteron-g5")
    },
    Model {
        adds: &["clwb", "clzero", "rdpid", "wbnoinvd", "xsaveerptr"],
        phys_bits: 48,
        max_basic_leaf: 0xd,
        max_extended_leaf: 0x8000_001e,
        ..model("zen2", Some(Amd), "zen")
    },
    Model {
        // Not pcid: the processors of this generation for desktops lack it.
        adds: &["invpcid", "pku", "vaes", "vpclmulqdq"],
        phys_bits: 48,
        max_basic_leaf: 0xd,
        max_extended_leaf: 0x8000_0021,
        ..model("zen3", Some(Amd), "zen2")
    },
    Model {
        adds: &[
            "avx512-bf16",
            "avx512-vpopcntdq",
            "avx512bitalg",
            "avx512bw",
            "avx512cd",
            "avx512dq",
            "avx512f",
            "avx512ifma",
            "avx512vbmi",
            "avx512vbmi2",
            "avx512vl",
            "avx512vnni",
            "gfni",
        ],
        phys_bits: 48,
        max_basic_leaf: 0xd,
        max_extended_leaf: 0x8000_0021,
        source: VENDOR,
        ..model("zen4", Some(Amd), "zen3")
    },
    Model {
        adds: &["avx-vnni", "avx512-vp2intersect", "movdir64b", "movdiri"],
        phys_bits: 48,
        max_basic_leaf: 0xd,
        max_extended_leaf: 0x8000_0021,
        source: VENDOR,
        ..model("zen5", Some(Amd), "zen4")
    },
    Model {
        adds: &["cx16", "lahf-lm", "pni", "rdtscp"],
        phys_bits: 40,
        source: FLOOR,
        ..model("minimum-hygon-v1", Some(Hygon), "x86-64-v1")
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::{Baseline, baselines};
    use crate::controls::{not_in_common, stays};
    use crate::names::is_feature;

    #[test]
    fn each_row_builds_on_an_earlier_one_and_changes_something_of_it() {
        for (at, model) in MODELS.iter().enumerate() {
            let earlier = &MODELS[..at];
            assert!(earlier.iter().all(|other| other.name != model.name));
            let base = model.from.map(|from| {
                assert!(earlier.iter().any(|other| other.name == from), "{from}");
                Baseline::find(from).expect("an earlier row").features()
            });
            let base = base.unwrap_or_default();
            for name in model.adds {
                assert!(is_feature(name), "{}: {name}", model.name);
                assert!(!base.contains(name), "{}: {name} is there", model.name);
            }
            for name in model.drops {
                assert!(base.contains(name), "{}: {name} is not there", model.name);
            }
        }
    }

    #[test]
    fn no_row_has_what_does_not_travel_or_vanishes() {
        for baseline in baselines() {
            for row in stays().iter().chain(not_in_common()) {
                let features = baseline.features();
                assert!(!features.contains(&row.name), "{}", row.name);
            }
        }
    }

    #[test]
    fn the_floors_hide_what_hyper_v_hides_in_its_standard_mode() {
        let hidden = [
            "ssse3",
            "sse4.1",
            "sse4.2",
            "sse4a",
            "popcnt",
            "abm",
            "misalignsse",
            "3dnow",
            "3dnowext",
            "xsave",
            "avx",
            "avx2",
            "aes",
            "bmi1",
            "bmi2",
            "fma",
            "avx512f",
        ];
        for name in ["minimum-intel-v1", "minimum-amd-v1", "minimum-hygon-v1"] {
            let features = Baseline::find(name).expect("a floor").features();
            assert!(hidden.iter().all(|hidden| !features.contains(hidden)));
        }
    }

    #[test]
    fn the_order_is_partial() {
        let find = |name| Baseline::find(name).expect("a baseline");
        assert!(find("x86-64-v2") < find("x86-64-v4"));
        assert!(find("x86-64-v3") < find("haswell"));
        assert!(find("minimum-amd-v1") < find("zen5"));
        assert_eq!(
            find("granite-rapids").partial_cmp(find("sierra-forest")),
            None
        );
        // XOP, FMA4 and TBM went away again.
        assert_eq!(find("opteron-g5").partial_cmp(find("zen")), None);
        assert_eq!(find("haswell").partial_cmp(find("zen")), None);
    }
}
