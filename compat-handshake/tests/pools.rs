//! What hosts have in common, and fixed baselines: laws that hold for any hosts, on random ones and
//! on real ones. With `LIMOSA_CPU_DUMPS` set to a folder of `.cpuid` files, on all of those too.

mod common;

use std::path::Path;
use std::time::Instant;

use common::{CASCADE_LAKE, GENOA, MILAN, SAPPHIRE_RAPIDS};
use limosa_compat::{
    ARCH_CAPABILITIES, Baseline, CpuidEntry, CpuidTable, GuestCpu, HostCpu, Kind, Mode, MsrTable,
    PoolError, Processor, Registers, ShapeError, TscScaling, Vendor, baseline, baselines,
    feature_names, has, intersect, judge, not_in_common, shape, stays, text, words,
};
use proptest::prelude::*;

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

/// A processor of this vendor with some of all features, made of a real one.
fn processor_of(real: &Processor, hidden: &[(u32, u32, u32, u32)]) -> Processor {
    let mut entries = real.cpuid.entries().to_vec();
    for (entry, mask) in entries.iter_mut().zip(hidden) {
        // The vendor and the highest leaves stay.
        if !matches!(entry.leaf, 0 | 0x8000_0000 | 0x4000_0000) {
            entry.eax &= mask.0;
            entry.ebx &= mask.1;
            entry.ecx &= mask.2;
            entry.edx &= mask.3;
        }
        // No processor with XSAVE is without the state of x87 and SSE, or too small for its own.
        if (entry.leaf, entry.subleaf) == (0xd, 0) {
            entry.eax |= 0b11;
            entry.ecx |= 0xffff;
        }
    }
    Processor {
        cpuid: CpuidTable::new(entries).unwrap(),
        msrs: real.msrs.clone(),
    }
}

fn any_of(real: Processor) -> impl Strategy<Value = Processor> {
    // Mostly ones: two random words OR'd.
    let word = (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(a, b, c)| a | b | c);
    let masks = (word.clone(), word.clone(), word.clone(), word);
    let count = real.cpuid.entries().len();
    prop::collection::vec(masks, count).prop_map(move |masks| processor_of(&real, &masks))
}

fn any_intel() -> impl Strategy<Value = Processor> {
    prop_oneof![
        any_of(CASCADE_LAKE.processor()),
        any_of(SAPPHIRE_RAPIDS.processor())
    ]
}

fn any_amd() -> impl Strategy<Value = Processor> {
    prop_oneof![any_of(MILAN.processor()), any_of(GENOA.processor())]
}

fn any_pool() -> impl Strategy<Value = Vec<Processor>> {
    prop_oneof![
        prop::collection::vec(any_intel(), 1..4),
        prop::collection::vec(any_amd(), 1..4)
    ]
}

proptest! {
    #[test]
    fn what_is_common_fits_every_member(pool in any_pool()) {
        let common = intersect(&pool).unwrap();
        let for_guests = baseline(Mode::Common, &pool).unwrap().processor;
        for member in &pool {
            prop_assert_eq!(reasons(&common, member), Vec::<String>::new());
            prop_assert_eq!(reasons(&for_guests, member), Vec::<String>::new());
        }
    }

    #[test]
    fn what_is_common_is_the_same_in_any_order_and_twice(pool in any_pool()) {
        let common = intersect(&pool).unwrap();
        let turned: Vec<_> = pool.iter().rev().cloned().collect();
        prop_assert_eq!(&intersect(&turned).unwrap(), &common);
        prop_assert_eq!(&intersect(&[common.clone(), common.clone()]).unwrap(), &common);
        let mut more = pool.clone();
        more.push(common.clone());
        // The result is a member that gives no more than the rest together.
        prop_assert_eq!(feature_names(&intersect(&more).unwrap()), feature_names(&common));
    }

    #[test]
    fn a_larger_pool_never_has_more(pool in any_pool(), amd in any_amd(), intel in any_intel()) {
        let next = if pool[0].vendor() == Ok(Vendor::Amd) { amd } else { intel };
        let before = intersect(&pool).unwrap();
        let mut larger = pool;
        larger.push(next);
        let after = intersect(&larger).unwrap();
        let lacks = lacks();
        let names = feature_names(&after).into_iter();
        for name in names.filter(|name| !lacks.contains(name)) {
            prop_assert!(has(&before, name), "{name}");
        }
    }

    #[test]
    fn no_pool_crosses_vendors(intel in any_intel(), amd in any_amd()) {
        let named = Mode::Named(Baseline::find("x86-64-v1").unwrap());
        for mode in [Mode::Common, Mode::Minimum, named] {
            let refused = baseline(mode, &[intel.clone(), amd.clone()]);
            let (first, other) = (Vendor::Intel, Vendor::Amd);
            let error = PoolError::VendorsDiffer { host: 1, first, other };
            prop_assert_eq!(refused, Err(ShapeError::Pool(error)));
        }
    }

    #[test]
    fn a_fixed_baseline_fits_its_host_or_says_what_is_lacking(
        host in prop_oneof![any_intel(), any_amd()],
        at in 0..baselines().len(),
    ) {
        let fixed = &baselines()[at];
        match shape(Mode::Named(fixed), &host, &[]) {
            Ok(shaped) => {
                prop_assert_eq!(reasons(&shaped.processor, &host), Vec::<String>::new());
                prop_assert!(fixed.features().iter().all(|name| has(&host, name)));
            }
            Err(ShapeError::Lacks { lacks, .. }) => {
                let named = lacks.iter().flat_map(|lack| &lack.features);
                for name in named {
                    prop_assert!(!has(&host, name) && fixed.features().contains(name));
                }
            }
            Err(ShapeError::OtherVendor { .. }) => {
                prop_assert_ne!(fixed.vendor(), host.vendor().ok());
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

/// Names of bits that state a lack: a larger pool may have more of those.
fn lacks() -> Vec<&'static str> {
    let fields = words().flat_map(|word| word.fields);
    let lacks = fields.filter(|field| matches!(field.kind, Kind::Inverse(_)));
    lacks.map(|field| field.name).collect()
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

#[test]
fn the_laws_hold_on_every_real_processor() {
    let Some(folder) = std::env::var_os("LIMOSA_CPU_DUMPS") else {
        eprintln!("SKIPPED: set LIMOSA_CPU_DUMPS to a folder of .cpuid files");
        return;
    };
    let dumps = dumps(Path::new(&folder));
    let begun = Instant::now();
    let mut fits = 0;
    for (_, here) in &dumps {
        let guest = guest(here);
        for (_, there) in &dumps {
            fits += usize::from(judge(&guest, &host(there)).fits());
        }
    }
    println!(
        "{} processors: {fits} of {} pairs fit, {:?}",
        dumps.len(),
        dumps.len().pow(2),
        begun.elapsed()
    );
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
