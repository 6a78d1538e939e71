//! Real processors from K8 to Zen 5 and from Merom to Granite Rapids: which baselines each can
//! give, where a guest of each can go, and why it can't go elsewhere.

mod common;

use common::fixtures::{Known, all, judged, of_vendor, processor, refusals};
use limosa_compat::{
    Baseline, CpuidTable, MismatchKind, Mode, PoolError, Processor, Register, ShapeError, Vendor,
    baseline, baselines, feature_names, has, shape,
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
    assert_eq!(found[0].kind, MismatchKind::NoRules);
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
fn state_in_unlike_places_is_named() {
    let here = processor("zen4");
    let mut entries = here.cpuid.entries().to_vec();
    for entry in &mut entries {
        if (entry.leaf, entry.subleaf) == (0xd, 9) {
            entry.ebx = 0xb00;
        }
    }
    let there = Processor::from(CpuidTable::new(entries).unwrap());
    let pool = [here, there];
    // Either gives it; no guest of it could move between them.
    for member in &pool {
        shape(Mode::Named(fixed("zen4")), member, &[]).unwrap();
    }
    let refused = baseline(Mode::Named(fixed("zen4")), &pool);
    let unlike = ShapeError::Unlike {
        baseline: "zen4",
        features: vec!["pku"],
    };
    assert_eq!(refused, Err(unlike));
    let common = baseline(Mode::Common, &pool).unwrap().processor;
    assert!(!has(&common, "pku") && has(&common, "avx512f"));
    assert!(
        pool.iter()
            .all(|member| refusals(&common, member).is_empty())
    );
}

#[test]
fn hygon_resembles_amd_and_has_a_floor_of_its_own() {
    let hygon = processor("hygon");
    assert_eq!(hygon.vendor(), Ok(Vendor::Hygon));
    assert!(has(&hygon, "avx2") && has(&hygon, "clzero"));
    let floor = shape(Mode::Minimum, &hygon, &[]).unwrap();
    assert_eq!(floor.name, "minimum-hygon-v1");
    // Its features are those of Zen. The baseline is for another maker all the same.
    assert!(
        fixed("zen")
            .features()
            .iter()
            .filter(|name| !has(&hygon, name))
            .count()
            < 3
    );
    let refused = shape(Mode::Named(fixed("zen")), &hygon, &[]);
    assert!(matches!(refused, Err(ShapeError::OtherVendor { .. })));
}
