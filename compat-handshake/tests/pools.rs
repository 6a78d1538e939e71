//! What hosts have in common, and fixed baselines, on real processors. With `LIMOSA_CPU_DUMPS` set
//! to a folder of `.cpuid` files, the laws of `laws.rs` are held against all of those too.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{CASCADE_LAKE, GENOA, MILAN, SAPPHIRE_RAPIDS};
use limosa_compat::{
    ARCH_CAPABILITIES, CpuidEntry, CpuidTable, GuestCpu, HostCpu, Mode, MsrTable, PoolError,
    Processor, Registers, TscScaling, baseline, feature_names, has, intersect, judge,
    not_in_common, shape, stays, text, words,
};

/// Longest that judging every pair of the dumps may take.
const ALL_PAIRS_MAX: Duration = Duration::from_secs(1);

fn guest(processor: &Processor) -> GuestCpu {
    GuestCpu {
        processor: processor.clone(),
        tsc_khz: 0,
        vcpu_count: 1,
        baseline: "common".into(),
    }
}

fn host(processor: &Processor) -> HostCpu {
    HostCpu::plain(processor.clone(), 0, TscScaling::No)
}

fn reasons(guest_sees: &Processor, offered: &Processor) -> Vec<String> {
    let judgement = judge(&guest(guest_sees), &host(offered));
    judgement
        .mismatches
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_pool_needs_hosts_of_a_known_vendor() {
    assert_eq!(intersect(&[]), Err(PoolError::Empty));
    // Silicon that calls itself "GenuineIotel" exists.
    let mut entries = CASCADE_LAKE.table().entries().to_vec();
    entries[0].edx = 0x496f_6e69;
    let odd = Processor::from(CpuidTable::new(entries).unwrap());
    let refused = intersect(&[CASCADE_LAKE.processor(), odd]);
    assert!(matches!(
        refused,
        Err(PoolError::UnknownVendor { host: 1, .. })
    ));
}

#[test]
fn lacks_are_told_numbers_are_the_least_and_what_vanishes_is_left_out() {
    let pool = [CASCADE_LAKE.processor(), SAPPHIRE_RAPIDS.processor()];
    let common = baseline(Mode::Common, &pool).unwrap().processor;
    for row in stays().iter().chain(not_in_common()) {
        assert!(!has(&common, row.name), "{}", row.name);
    }
    let lack = |name| pool.iter().any(|member| has(member, name));
    for name in ["fdp-excptn-only", "zero-fcs-fds", "rsba", "rrsba"] {
        assert_eq!(has(&common, name), lack(name), "{name}");
    }
    let leaves = |of: &Processor| of.cpuid.find(0, 0).unwrap().eax;
    assert_eq!(leaves(&common), leaves(&pool[0]).min(leaves(&pool[1])));
    // MPX went away, and the places of its state with it: XCR0 is x87, SSE, AVX and AVX-512.
    assert_eq!(common.cpuid.find(0xd, 0).unwrap().eax & !(1 << 9), 0xe7);
    assert_eq!(common.cpuid.find(0xd, 3), None);
}

#[test]
fn state_follows_features_and_not_the_hosts_word_for_it() {
    // Some Zen 2 have the bit of PKRU in XCR0 without the feature.
    let mut entries = MILAN.table().entries().to_vec();
    entries.retain(|entry| entry.leaf != 7 || entry.subleaf != 0);
    entries.push(CpuidEntry {
        leaf: 7,
        ebx: 1 << 5,
        ..CpuidEntry::default()
    });
    let odd = Processor::from(CpuidTable::new(entries).unwrap());
    assert_eq!(odd.cpuid.find(0xd, 0).unwrap().eax >> 9 & 1, 1);
    let settled = intersect(&[odd]).unwrap();
    assert_eq!(settled.cpuid.find(0xd, 0).unwrap().eax, 0b111);
    assert_eq!(settled.cpuid.find(0xd, 0).unwrap().ecx, 0x340);
    assert_eq!(settled.cpuid.find(0xd, 9), None);
}

#[test]
fn what_builds_on_a_hidden_feature_is_hidden() {
    let mut entries = SAPPHIRE_RAPIDS.table().entries().to_vec();
    for entry in entries.iter_mut().filter(|entry| entry.leaf == 1) {
        // AVX.
        entry.ecx &= !(1 << 28);
    }
    let odd = Processor::from(CpuidTable::new(entries).unwrap());
    let settled = intersect(&[odd]).unwrap();
    for name in [
        "avx", "fma", "avx2", "avx512f", "avx512bw", "vaes", "avx-vnni",
    ] {
        assert!(!has(&settled, name), "{name}");
    }
    assert!(has(&settled, "sse4.2"));
    assert_eq!(settled.cpuid.find(0xd, 0).unwrap().eax & 0xfc, 0);
}

#[test]
fn fixed_baselines_show_their_features_and_controls_and_promise_nothing() {
    for known in [CASCADE_LAKE, SAPPHIRE_RAPIDS] {
        let here = known.processor();
        let shaped = shape(Mode::Minimum, &here, &[]).unwrap();
        assert_eq!(shaped.name, "minimum-intel-v1");
        let names = feature_names(&shaped.processor);
        for name in &names {
            assert!(!name.ends_with("-no"), "{name} is a promise");
        }
        for name in [
            "spec-ctrl",
            "stibp",
            "ssbd",
            "rsba",
            "rrsba",
            "fdp-excptn-only",
            "zero-fcs-fds",
        ] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        for name in [
            "ssse3", "sse4.1", "sse4.2", "popcnt", "xsave", "avx", "avx2",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
        assert_eq!(
            shaped.processor.cpuid.find(0x8000_0008, 0).unwrap().eax & 0xff,
            36
        );
        assert_eq!(shaped.processor.cpuid.find(0xd, 0), None);
    }
    let pool = [MILAN.processor(), GENOA.processor()];
    for known in &pool {
        let shaped = shape(Mode::Minimum, known, &[]).unwrap();
        for other in &pool {
            assert_eq!(reasons(&shaped.processor, other), [""; 0]);
        }
    }
}

/// Processors of a folder, with the name of each file. A dump of bare metal need not state
/// IA32_ARCH_CAPABILITIES: it counts as 0 then.
fn dumps(folder: &Path) -> Vec<(String, Processor)> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let dumps = paths.iter().map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut processor = text::parse(&std::fs::read_to_string(path).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        if has(&processor, "arch-capabilities") && processor.msrs.get(ARCH_CAPABILITIES).is_none() {
            let mut values = processor.msrs.values().to_vec();
            values.push((ARCH_CAPABILITIES, 0));
            processor.msrs = MsrTable::new(values).unwrap();
        }
        (name, processor)
    });
    dumps.collect()
}

/// Judges a guest of each on a host of each, and says how long that took.
fn all_pairs(dumps: &[(String, Processor)]) -> Duration {
    let begun = Instant::now();
    let mut fits = 0;
    for (_, here) in dumps {
        let guest = guest(here);
        for (_, there) in dumps {
            fits += usize::from(judge(&guest, &host(there)).fits());
        }
    }
    let (took, count) = (begun.elapsed(), dumps.len());
    println!(
        "{count} processors: {fits} of {} pairs fit, {took:?}",
        count.pow(2)
    );
    took
}

#[test]
fn the_laws_hold_on_every_real_processor() {
    let Some(folder) = std::env::var_os("LIMOSA_CPU_DUMPS") else {
        eprintln!("SKIPPED: no dumps of processors (LIMOSA_CPU_DUMPS is a folder of .cpuid files)");
        return;
    };
    let dumps = dumps(Path::new(&folder));
    // The best of a few: other work on the machine proves nothing about the rules.
    let took = (0..3).map(|_| all_pairs(&dumps)).min().unwrap();
    // Only a release build is meant to be fast.
    let is_fast = took < ALL_PAIRS_MAX;
    assert!(is_fast || cfg!(debug_assertions), "{took:?}");
    for (name, here) in &dumps {
        if here.vendor().is_err() {
            assert!(!reasons(here, here).is_empty(), "{name}");
            continue;
        }
        assert_eq!(reasons(here, here), [""; 0], "{name}");
        for (other, there) in dumps
            .iter()
            .filter(|(_, there)| there.vendor() == here.vendor())
        {
            let pool = [here.clone(), there.clone()];
            let common = baseline(Mode::Common, &pool).unwrap().processor;
            for member in &pool {
                assert_eq!(reasons(&common, member), [""; 0], "{name} and {other}");
            }
        }
    }
}

#[test]
fn every_row_says_what_it_is() {
    for word in words() {
        if let Registers::Cpuid { leaves, .. } = word.registers {
            assert!(leaves.0 <= leaves.1);
        }
        for field in word.fields {
            assert!(
                !field.name.is_empty() && !field.name.contains('_'),
                "{field:?}"
            );
            assert!(!field.kind.to_string().is_empty() && !word.source.to_string().is_empty());
        }
    }
}
