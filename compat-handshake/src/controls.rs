//! Features that are not a matter of the processor's generation: which are handed through to every
//! guest, which no baseline has, and which no guest that is to move may have at all.

use crate::cpuid::Vendor;

/// A feature that some guests are not given, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exception {
    /// Its name.
    pub name: &'static str,
    /// The reason.
    pub reason: &'static str,
}

/// What no guest is given, whatever its mode: what belongs to it would not travel.
pub const fn stays() -> &'static [Exception] {
    STAYS
}

/// What [`Mode::Common`](crate::Mode::Common) leaves out although all hosts may have it.
pub const fn not_in_common() -> &'static [Exception] {
    NOT_IN_COMMON
}

/// Why no guest is given the feature of this name; `None` where guests are.
pub(crate) fn why_it_stays(name: &str) -> Option<&'static str> {
    let row = STAYS.iter().find(|row| row.name == name)?;
    Some(row.reason)
}

const fn except(name: &'static str, reason: &'static str) -> Exception {
    Exception { name, reason }
}

const NESTED: &str = "the state of inner guests does not travel";
const ENCLAVE: &str = "enclave memory can't be read, so it can't travel";
const TRACE: &str = "what is recorded and where does not travel";
const COUNTERS: &str = "performance counters do not travel";
const KEYS: &str = "keys that can't be read can't travel";
const PLATFORM: &str = "bound to a device or to the firmware of the host";

#[rustfmt::skip]
const STAYS: &[Exception] = &[
    except("vmx", NESTED),
    except("svm", NESTED),
    except("sgx", ENCLAVE),
    except("sgxlc", ENCLAVE),
    except("sgx-keys", ENCLAVE),
    except("intel-pt", TRACE),
    except("arch-lbr", TRACE),
    except("ds", COUNTERS),
    except("dtes64", COUNTERS),
    except("ds-cpl", COUNTERS),
    except("pdcm", COUNTERS),
    except("perfctr-core", COUNTERS),
    except("perfmon-v2", COUNTERS),
    except("key-locker", KEYS),
    except("sme", KEYS),
    except("sev", KEYS),
    except("sev-es", KEYS),
    except("sev-snp", KEYS),
    except("enqcmd", PLATFORM),
    except("uintr", PLATFORM),
    except("pconfig", PLATFORM),
    except("smx", PLATFORM),
    except("core-capability", PLATFORM),
];

/// Leaves that only describe what [`stays`]: performance counters, enclaves, trace, Key Locker,
/// branch records, nested SVM, encrypted guests.
pub(crate) const STAYING_LEAVES: &[u32] = &[
    0xa,
    0x12,
    0x14,
    0x19,
    0x1c,
    0x23,
    0x8000_000a,
    0x8000_001b,
    0x8000_001c,
    0x8000_001f,
    0x8000_0022,
];

const VANISHES: &str = "later generations of the same line lack it";
const SWITCHED: &str = "microcode or a boot option takes it away from the same processor";

#[rustfmt::skip]
const NOT_IN_COMMON: &[Exception] = &[
    except("mpx", VANISHES),
    except("hle", SWITCHED),
    except("rtm", SWITCHED),
    except("tsx-ldtrk", SWITCHED),
    except("monitor", "KVM shows it by the guest's own IA32_MISC_ENABLE"),
    except("amx-tile", "its permission is each host's to give"),
    except("amx-bf16", "belongs to AMX"),
    except("amx-int8", "belongs to AMX"),
    except("amx-fp16", "belongs to AMX"),
    except("amx-complex", "belongs to AMX"),
    except("xfd", "belongs to AMX"),
    except("invtsc", "a promise that holds on hosts of one frequency only"),
    except("virt-ssbd", "emulated; no processor has it"),
];

/// Hints about speed: the instructions are there without them. A guest that was told of one may
/// live where it is not true any more.
pub(crate) const HINTS: &[&str] = &[
    "erms", "fsrm", "fzrm", "fsrs", "fsrc", "amd-fsrs", "amd-fsrc", "fsrsc", "cldemote",
];

/// Controls by which a guest protects itself, and what KVM emulates on every host: a baseline that
/// fixes the rest hands these through where the host has them.
///
/// Hiding the controls would leave the guest without protection; giving them where they are missing
/// would make it write registers that fault. Since the microcode updates of 2018 every host of a
/// vendor has the same ones. Bits that promise "not affected" are not among them: a guest is told
/// the worst case of all hosts that it may come to.
pub(crate) const fn handed_through(vendor: Vendor) -> &'static [&'static str] {
    match vendor {
        Vendor::Intel => &[
            "spec-ctrl",
            "stibp",
            "ssbd",
            "arch-capabilities",
            "x2apic",
            "tsc-deadline",
            "kvmclock",
            "kvmclock2",
            "kvmclock-stable-bit",
            "kvm-nopiodelay",
        ],
        Vendor::Amd | Vendor::Hygon => &[
            "ibpb",
            "ibrs",
            "amd-stibp",
            "amd-ssbd",
            "x2apic",
            "tsc-deadline",
            "kvmclock",
            "kvmclock2",
            "kvmclock-stable-bit",
            "kvm-nopiodelay",
        ],
    }
}

/// Lacks that a guest of a fixed baseline is always told of: it must be prepared for the worst host
/// of its vendor.
pub(crate) const fn told(vendor: Vendor) -> &'static [&'static str] {
    match vendor {
        Vendor::Intel => &["fdp-excptn-only", "zero-fcs-fds", "invd-disable-post-bios"],
        Vendor::Amd | Vendor::Hygon => &["no-lmsle", "fs-gs-base-ns"],
    }
}

/// The same in IA32_ARCH_CAPABILITIES, of a guest that sees it: bits 2 (rsba) and 19 (rrsba).
pub(crate) const TOLD_ARCH_CAPABILITIES: u64 = 1 << 2 | 1 << 19;

/// Whether a feature promises that the processor is not affected by a leak.
pub(crate) fn is_promise(name: &str) -> bool {
    name.ends_with("-no") || name == "amd-no-ssb"
}

/// Whether a feature comes and goes with kernel and microcode: controls of speculation.
pub(crate) fn is_speculation(name: &str) -> bool {
    let known = [
        "spec-ctrl",
        "stibp",
        "ssbd",
        "arch-capabilities",
        "flush-l1d",
        "md-clear",
        "fb-clear",
        "rfds-clear",
        "verw-clear",
        "ibpb",
        "ibrs",
        "ibrs-all",
        "amd-stibp",
        "amd-ssbd",
        "virt-ssbd",
        "amd-psfd",
        "intel-psfd",
        "ipred-ctrl",
        "rrsba-ctrl",
        "bhi-ctrl",
        "ddpd-u",
        "auto-ibrs",
        "stibp-always-on",
        "ibrs-same-mode",
        "ibpb-ret",
        "sbpb",
        "ibpb-brtype",
        "srbds-ctrl",
        "tsx-ctrl",
    ];
    known.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::is_feature;
    use crate::rules::{Kind, words};

    #[test]
    fn every_name_is_a_feature() {
        let exceptions = STAYS.iter().chain(NOT_IN_COMMON).map(|row| row.name);
        let vendors = [Vendor::Intel, Vendor::Amd, Vendor::Hygon].into_iter();
        let lists = vendors.flat_map(|vendor| [handed_through(vendor), told(vendor), HINTS]);
        for name in exceptions.chain(lists.flatten().copied()) {
            assert!(is_feature(name), "{name}");
        }
    }

    #[test]
    fn no_lack_is_left_out() {
        // A guest that is no longer told of a lack would be refused by every host that has it.
        for field in words().flat_map(|word| word.fields) {
            let is_lack = matches!(field.kind, Kind::Inverse(_));
            let mut exceptions = STAYS.iter().chain(NOT_IN_COMMON);
            let excepted = exceptions.any(|row| row.name == field.name);
            assert!(!(is_lack && excepted), "{}", field.name);
        }
    }
}
