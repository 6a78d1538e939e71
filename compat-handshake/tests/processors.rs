//! Real processors from K8 to Zen 5 and from Merom to Granite Rapids: which baselines each can
//! give, where a guest of each can go, and why it can't go elsewhere.

mod common;

use common::fixtures::{Known, all, guest, host, judged, of_vendor, processor, refusals};
use limosa_compat::{
    Baseline, CpuidEntry, CpuidTable, HostCpu, MismatchKind, Mode, MsrTable, PoolError, Processor,
    Register, ShapeError, TscScaling, Vendor, baseline, baselines, feature_names, has, judge,
    shape,
};

/// For each processor the newest generation whose baseline it gives, and the first that it can't.
#[rustfmt::skip]
const GENERATIONS: &[(&str, &str, &str)] = &[
    ("merom",                      "minimum-intel-v1", "nehalem"),
    ("penryn",                     "minimum-intel-v1", "nehalem"),
    ("nehalem",                    "nehalem",          "westmere"),
    ("westmere",                   "westmere",         "sandy-bridge"),
    ("sandy-bridge",               "sandy-bridge",     "ivy-bridge"),
    ("ivy-bridge",                 "ivy-bridge",       "haswell"),
    ("haswell",                    "haswell",          "broadwell"),
    ("broadwell",                  "broadwell",        "skylake-client"),
    ("skylake-server",             "skylake-server",   "cascade-lake"),
    ("cascade-lake-linux-6.1",     "cascade-lake",     "ice-lake-server"),
    ("ice-lake-52-bits",           "ice-lake-server",  "sapphire-rapids"),
    ("ice-lake-linux-6.1",         "ice-lake-server",  "sapphire-rapids"),
    ("sapphire-rapids-linux-6.1",  "sapphire-rapids",  "granite-rapids"),
    ("sapphire-rapids-linux-6.18", "sapphire-rapids",  "granite-rapids"),
    ("granite-rapids-linux-6.18",  "granite-rapids",   "sierra-forest"),
    ("sierra-forest",              "sierra-forest",    "skylake-server"),
    ("k8",                         "minimum-amd-v1",   "opteron-g3"),
    ("k10",                        "opteron-g3",       "opteron-g4"),
    ("bulldozer",                  "opteron-g4",       "opteron-g5"),
    ("piledriver",                 "opteron-g5",       "zen"),
    ("zen",                        "zen",              "opteron-g4"),
    ("zen2",                       "zen2",             "zen3"),
    ("zen3",                       "zen3",             "zen4"),
    ("milan-linux-5.10",           "zen3",             "zen4"),
    ("milan-linux-6.18",           "zen3",             "zen4"),
    ("zen4",                       "zen4",             "zen5"),
    ("genoa-linux-6.1",            "zen4",             "zen5"),
    ("genoa-linux-6.18",           "zen4",             "zen5"),
    ("zen5",                       "zen5",             "opteron-g5"),
    ("hygon",                      "x86-64-v3",        "x86-64-v4"),
];

fn fixed(name: &str) -> &'static Baseline {
    Baseline::find(name).unwrap_or_else(|| panic!("{name}"))
}

#[test]
fn each_processor_gives_the_baseline_of_its_generation_and_not_the_next() {
    for (name, newest, beyond) in GENERATIONS {
        let here = processor(name);
        let shaped = shape(Mode::Named(fixed(newest)), &here, &[])
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .processor;
        let shown = feature_names(&shaped);
        for feature in fixed(newest).features() {
            assert!(shown.contains(&feature), "{name}: {feature}");
        }
        assert_eq!(refusals(&shaped, &here), [""; 0], "{name}");
        let refused = shape(Mode::Named(fixed(beyond)), &here, &[]);
        let Err(ShapeError::Lacks { lacks, .. }) = refused else {
            panic!("{name} gives {beyond}");
        };
        for feature in &lacks[0].features {
            assert!(!has(&here, feature), "{name}: {feature}");
        }
    }
    // Every file is one of the table, but for the one of nobody's making.
    let files = all();
    assert_eq!(files.len(), GENERATIONS.len() + 1);
    let generations: Vec<_> = GENERATIONS.iter().map(|row| row.1).collect();
    let is_met = |baseline: &&Baseline| generations.contains(&baseline.name());
    assert_eq!(baselines().iter().filter(is_met).count(), 23);
}

#[test]
fn every_known_processor_fits_itself() {
    for Known { name, processor } in all() {
        let found = refusals(&processor, &processor);
        match processor.vendor() {
            Ok(_) => assert_eq!(found, [""; 0], "{name}"),
            Err(_) => assert_eq!(found.len(), 1, "{name}"),
        }
    }
}

#[test]
fn silicon_of_an_unknown_maker_is_refused_even_to_itself() {
    let odd = processor("genuineiotel");
    let found = judged(&odd, &odd).mismatches;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].kind, MismatchKind::Vendor);
    let name = "vendor: guest has an unknown vendor \"GenuineIotel\", host an unknown vendor \
                \"GenuineIotel\"";
    assert_eq!(found[0].name, name);
    for mode in [
        Mode::Off,
        Mode::Minimum,
        Mode::Common,
        Mode::Named(fixed("x86-64-v1")),
    ] {
        let refused = shape(mode, &odd, &[]);
        let unknown = matches!(
            refused,
            Err(ShapeError::Pool(PoolError::UnknownVendor { host: 0, .. }))
        );
        assert!(unknown, "{mode}");
    }
    // It is a Haswell; that changes nothing.
    let haswell = processor("haswell");
    assert_eq!(judged(&odd, &haswell).mismatches.len(), 1);
    assert_eq!(judged(&haswell, &odd).mismatches.len(), 1);
}

#[test]
fn no_guest_crosses_makers_in_any_mode() {
    let all = all();
    let makers = [Vendor::Intel, Vendor::Amd, Vendor::Hygon].map(|maker| of_vendor(&all, maker));
    let [intel, amd, hygon] = &makers;
    for (ours, theirs) in [(intel, amd), (amd, hygon), (hygon, intel)] {
        for one in ours {
            for other in theirs {
                let (one, other) = (&one.processor, &other.processor);
                for (guest, host) in [(one, other), (other, one)] {
                    let found = judged(guest, host).mismatches;
                    assert_eq!(found.len(), 1);
                    assert_eq!(found[0].kind, MismatchKind::Vendor);
                }
                for mode in [Mode::Common, Mode::Minimum] {
                    let refused = baseline(mode, &[one.clone(), other.clone()]);
                    assert!(matches!(
                        refused,
                        Err(ShapeError::Pool(PoolError::VendorsDiffer { host: 1, .. }))
                    ));
                }
            }
        }
    }
}

#[test]
fn mpx_is_lost_between_generations_and_no_baseline_has_it() {
    let old = processor("cascade-lake-linux-6.1");
    for newer in [
        "ice-lake-linux-6.1",
        "sapphire-rapids-linux-6.18",
        "granite-rapids-linux-6.18",
    ] {
        let newer = processor(newer);
        let found = refusals(&old, &newer);
        for name in ["mpx", "xcr0.bndregs", "xcr0.bndcsr"] {
            assert!(found.iter().any(|found| found == name), "{found:?}");
        }
        let common = baseline(Mode::Common, &[old.clone(), newer.clone()]).unwrap();
        assert!(!has(&common.processor, "mpx"));
        assert_eq!(
            common.processor.cpuid.register(0xd, 0, Register::Eax) & 0b11000,
            0
        );
        let named = shape(Mode::Named(fixed("cascade-lake")), &old, &[]).unwrap();
        let named = refusals(&named.processor, &newer);
        let of_state = |name: &String| name == "mpx" || name.starts_with("xcr0.");
        assert!(!named.iter().any(of_state), "{named:?}");
    }
}

#[test]
fn what_vanished_from_amd_is_named() {
    let gone = refusals(&processor("piledriver"), &processor("zen"));
    for name in ["xop", "fma4", "tbm"] {
        assert!(gone.iter().any(|found| found == name), "{gone:?}");
    }
    let gone = refusals(&processor("k10"), &processor("zen"));
    for name in ["3dnow", "3dnowext"] {
        assert!(gone.iter().any(|found| found == name), "{gone:?}");
    }
}

#[test]
fn large_and_small_cores_of_one_year_are_refused_both_ways() {
    let (large, small) = (
        processor("granite-rapids-linux-6.18"),
        processor("sierra-forest"),
    );
    let lost = refusals(&large, &small);
    for name in ["avx512f", "amx-tile", "xcr0.opmask", "xcr0.tiledata"] {
        assert!(lost.iter().any(|found| found == name), "{lost:?}");
    }
    let lost = refusals(&small, &large);
    for name in ["avx-ifma", "avx-vnni-int8", "avx-ne-convert", "cmpccxadd"] {
        assert!(lost.iter().any(|found| found == name), "{lost:?}");
    }
    let pool = [large, small];
    let common = baseline(Mode::Common, &pool).unwrap().processor;
    for name in ["avx2", "avx-vnni", "vaes", "gfni", "serialize", "pku"] {
        assert!(has(&common, name), "{name}");
    }
    assert!(
        pool.iter()
            .all(|member| refusals(&common, member).is_empty())
    );
}

#[test]
fn one_generation_has_addresses_of_46_and_of_52_bits() {
    let (narrow, wide) = (
        processor("ice-lake-linux-6.1"),
        processor("ice-lake-52-bits"),
    );
    let bits = |of: &Processor| of.cpuid.register(0x8000_0008, 0, Register::Eax) & 0xff;
    assert_eq!((bits(&narrow), bits(&wide)), (46, 52));
    let is_width = |name: &&str| *name == "phys-bits";
    let found = |one, other| -> Vec<String> { refusals(one, other) };
    assert!(found(&wide, &narrow).iter().any(|name| name == "phys-bits"));
    assert!(
        !found(&narrow, &wide)
            .iter()
            .any(|name| is_width(&name.as_str()))
    );
    let common = baseline(Mode::Common, &[wide.clone(), narrow.clone()]).unwrap();
    assert_eq!(bits(&common.processor), 46);
    let named = shape(Mode::Named(fixed("ice-lake-server")), &wide, &[]).unwrap();
    assert_eq!(bits(&named.processor), 46);
}

#[test]
fn state_that_moved_is_refused_and_is_in_no_common_processor() {
    let (zen2, zen3) = (processor("zen2"), processor("zen3"));
    let component = |of: &Processor| of.cpuid.find(0xd, 9).map(|entry| (entry.eax, entry.ebx));
    assert_eq!(component(&zen2), Some((0x40, 0x340)));
    assert_eq!(component(&zen3), Some((8, 0x980)));
    // On Zen 2 XCR0 has the bit without the feature. A guest that saw it as it is can't go on.
    assert!(!has(&zen2, "pku") && has(&zen3, "pku"));
    let found = refusals(&zen2, &zen3);
    for name in ["xsave-component-size", "xsave-component-offset"] {
        assert!(found.iter().any(|found| found == name), "{found:?}");
    }
    // What guests are given on it has no such state, in any mode.
    for mode in [Mode::Off, Mode::Common, Mode::Named(fixed("zen2"))] {
        let given = shape(mode, &zen2, &[]).unwrap().processor;
        assert_eq!(given.cpuid.register(0xd, 0, Register::Eax), 0b111, "{mode}");
        assert_eq!(given.cpuid.register(0xd, 0, Register::Ecx), 0x340, "{mode}");
        assert_eq!(component(&given), None, "{mode}");
    }
    let given = shape(Mode::Named(fixed("zen2")), &zen2, &[]).unwrap();
    // Bare metal of desktops lacks it; on KVM every host has it.
    assert_eq!(refusals(&given.processor, &zen3), ["x2apic"]);
}

#[test]
fn intel_and_amd_put_the_same_state_elsewhere() {
    let places = |name: &str| {
        let of = processor(name);
        [5, 6, 7, 9].map(|component| of.cpuid.register(0xd, component, Register::Ebx))
    };
    assert_eq!(places("genoa-linux-6.1"), [0x340, 0x380, 0x580, 0x980]);
    assert_eq!(
        places("granite-rapids-linux-6.18"),
        [0x440, 0x480, 0x680, 0xa80]
    );
    // State that no feature needs, such as that of LWP, is in no processor that guests are given.
    let bulldozer = processor("bulldozer");
    assert_eq!(bulldozer.cpuid.register(0xd, 0, Register::Edx), 1 << 30);
    let given = shape(Mode::Off, &bulldozer, &[]).unwrap().processor;
    assert_eq!(given.cpuid.register(0xd, 0, Register::Edx), 0);
    assert_eq!(given.cpuid.register(0xd, 0, Register::Ecx), 0x340);
}

/// The processor with some bits of a register set and others cleared.
fn with(of: &Processor, (leaf, register): (u32, Register), set: u32, clear: u32) -> Processor {
    let mut entries = of.cpuid.entries().to_vec();
    if !entries
        .iter()
        .any(|entry| (entry.leaf, entry.subleaf) == (leaf, 0))
    {
        entries.push(CpuidEntry {
            leaf,
            ..CpuidEntry::default()
        });
    }
    for entry in &mut entries {
        if (entry.leaf, entry.subleaf) == (leaf, 0) {
            *entry.register_mut(register) |= set;
            *entry.register_mut(register) &= !clear;
        }
    }
    Processor {
        cpuid: CpuidTable::new(entries).unwrap(),
        msrs: of.msrs.clone(),
    }
}

fn with_capabilities(of: &Processor, value: u64) -> Processor {
    Processor {
        cpuid: of.cpuid.clone(),
        msrs: MsrTable::new(vec![(0x10a, value)]).unwrap(),
    }
}

/// Bits of IA32_ARCH_CAPABILITIES.
const RSBA: u64 = 1 << 2;
const MDS_NO: u64 = 1 << 5;
const TAA_NO: u64 = 1 << 8;
const RRSBA: u64 = 1 << 19;
const RFDS_NO: u64 = 1 << 27;
const RFDS_CLEAR: u64 = 1 << 28;

#[test]
fn lacks_that_a_guest_was_not_told_of_are_refused_by_name() {
    let intel = processor("ice-lake-linux-6.1");
    let capabilities = intel.msrs.get(0x10a).unwrap();
    for (lack, name) in [(RSBA, "rsba"), (RRSBA, "rrsba")] {
        let worse = with_capabilities(&intel, capabilities | lack);
        assert_eq!(refusals(&intel, &worse), [name]);
        // Whoever is prepared for it may also live without it.
        assert_eq!(refusals(&worse, &intel), [""; 0]);
    }
    for (bit, name) in [(6, "fdp-excptn-only"), (13, "zero-fcs-fds")] {
        let older = with(&intel, (7, Register::Ebx), 0, 1 << bit);
        assert_eq!(refusals(&older, &intel), [name]);
        assert_eq!(refusals(&intel, &older), [""; 0]);
    }
    // The same between real generations: both came with some of them.
    let found = refusals(&processor("ivy-bridge"), &processor("haswell"));
    assert!(found.iter().any(|name| name == "zero-fcs-fds"), "{found:?}");
    let found = refusals(&processor("broadwell"), &processor("skylake-server"));
    assert!(
        found.iter().any(|name| name == "fdp-excptn-only"),
        "{found:?}"
    );
    let (older, newer) = (processor("milan-linux-6.18"), processor("genoa-linux-6.18"));
    let found = refusals(&older, &newer);
    assert!(
        found.iter().any(|name| name == "fs-gs-base-ns"),
        "{found:?}"
    );
}

#[test]
fn a_flush_is_missed_only_where_there_is_something_to_flush() {
    let intel = processor("cascade-lake-linux-6.1");
    // The guest sees md-clear, and TSX away: what needs a transaction can't happen.
    let tsx = 1 << 4 | 1 << 11;
    let guest = with(&intel, (7, Register::Ebx), 0, tsx);
    assert!(has(&guest, "md-clear"));
    let host = with(&guest, (7, Register::Edx), 0, 1 << 10);
    let capabilities = host.msrs.get(0x10a).unwrap();
    let safe = with_capabilities(&host, capabilities | MDS_NO);
    let judgement = judged(&guest, &safe);
    assert_eq!(judgement.mismatches, []);
    assert_eq!(judgement.warnings.len(), 1);
    assert_eq!(judgement.warnings[0].mismatch.name, "md-clear");
    assert!(judgement.warnings[0].forgiven.contains("nothing to flush"));
    let leaky = with_capabilities(&host, capabilities & !MDS_NO);
    let found = refusals(&guest, &leaky);
    assert_eq!(found, ["md-clear", "mds-no"]);
    // Transactions leak what MDS does not, unless that is fixed too.
    let transactional = with(&safe, (7, Register::Ebx), tsx, 0);
    let without_fix = capabilities & !TAA_NO | MDS_NO;
    let found = refusals(&guest, &with_capabilities(&transactional, without_fix));
    assert!(found.iter().any(|name| name == "md-clear"), "{found:?}");
}

#[test]
fn each_flush_has_its_own_excuse() {
    let intel = processor("sierra-forest");
    let capabilities = intel.msrs.get(0x10a).unwrap() & !RFDS_NO;
    let guest = with_capabilities(&intel, capabilities | RFDS_CLEAR);
    let affected = with_capabilities(&intel, capabilities);
    assert_eq!(refusals(&guest, &affected), ["rfds-clear"]);
    let unaffected = with_capabilities(&intel, capabilities | RFDS_NO);
    assert_eq!(judged(&guest, &unaffected).warnings.len(), 1);
    assert_eq!(refusals(&guest, &unaffected), [""; 0]);

    let amd = processor("milan-linux-6.18");
    let leaf = (0x8000_0021, Register::Eax);
    let not_affected = (0x8000_0021, Register::Ecx);
    let guest = with(&with(&amd, leaf, 1 << 5, 0), not_affected, 0, u32::MAX);
    let affected = with(&guest, leaf, 0, 1 << 5);
    assert_eq!(refusals(&guest, &affected), ["verw-clear"]);
    // Both kinds of it must be impossible.
    let half = with(&affected, not_affected, 1 << 1, 0);
    assert_eq!(refusals(&guest, &half), ["verw-clear"]);
    let unaffected = with(&affected, not_affected, 1 << 1 | 1 << 2, 0);
    assert_eq!(refusals(&guest, &unaffected), [""; 0]);
    assert_eq!(judged(&guest, &unaffected).warnings.len(), 1);
}

#[test]
fn one_processor_under_a_newer_kernel_can_give_more_and_sometimes_less() {
    let (old, new) = (processor("milan-linux-5.10"), processor("milan-linux-6.18"));
    let lost = refusals(&old, &new);
    assert!(lost.iter().any(|name| name == "spec-ctrl"), "{lost:?}");
    let (old, new) = (
        processor("sapphire-rapids-linux-6.1"),
        processor("sapphire-rapids-linux-6.18"),
    );
    assert_eq!(refusals(&old, &new), [""; 0]);
    let gained = refusals(&new, &old);
    for name in ["shstk", "fzrm", "max-basic-leaf"] {
        assert!(gained.iter().any(|found| found == name), "{gained:?}");
    }
    let pool = [old, new];
    let common = baseline(Mode::Common, &pool).unwrap().processor;
    assert!(
        pool.iter()
            .all(|member| refusals(&common, member).is_empty())
    );
}

#[test]
fn the_floor_of_a_maker_moves_between_all_its_servers() {
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let mut servers = of_vendor(&all(), vendor);
        servers.retain(Known::is_seen_by_guests);
        assert!(servers.len() >= 4);
        for here in &servers {
            let floor = shape(Mode::Minimum, &here.processor, &[]).unwrap();
            for there in &servers {
                let found = refusals(&floor.processor, &there.processor);
                assert_eq!(found, [""; 0], "{} to {}", here.name, there.name);
            }
        }
    }
}

#[test]
fn a_baseline_moves_between_all_servers_that_can_give_it() {
    let all = all();
    for baseline in baselines() {
        let gives = |known: &&Known| {
            let given = shape(Mode::Named(baseline), &known.processor, &[]);
            known.is_seen_by_guests() && given.is_ok()
        };
        for here in all.iter().filter(gives) {
            let given = shape(Mode::Named(baseline), &here.processor, &[]).unwrap();
            let same = |there: &&Known| there.processor.vendor() == here.processor.vendor();
            for there in all.iter().filter(gives).filter(same) {
                let found = refusals(&given.processor, &there.processor);
                let (name, here, there) = (baseline.name(), &here.name, &there.name);
                assert_eq!(found, [""; 0], "{name}: {here} to {there}");
            }
        }
    }
}

#[test]
fn the_counter_runs_at_one_speed_or_is_scaled() {
    let here = processor("haswell");
    let guest = guest(&here);
    let at = |tsc_khz, tsc_scaling| HostCpu {
        tsc_khz,
        tsc_scaling,
        ..host(&here)
    };
    let names = |host: &HostCpu| -> Vec<String> {
        let found = judge(&guest, host).mismatches;
        found.iter().map(|found| found.name.to_string()).collect()
    };
    assert_eq!(names(&at(guest.tsc_khz, TscScaling::No)), [""; 0]);
    assert_eq!(names(&at(2_400_000, TscScaling::No)), ["tsc-frequency"]);
    assert_eq!(names(&at(2_400_000, TscScaling::Yes)), [""; 0]);
    // 250 parts per million are what two boots of one machine may differ by.
    let (near, far) = (guest.tsc_khz + 500, guest.tsc_khz + 501);
    assert_eq!(names(&at(near, TscScaling::No)), [""; 0]);
    assert_eq!(names(&at(far, TscScaling::No)), ["tsc-frequency"]);
}
