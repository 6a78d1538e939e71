//! Real processors of several generations, re-typed small: what changes between generations,
//! between kernels on one processor, and between makers that resemble each other.

use limosa_compat::{
    Baseline, CpuidTable, GuestCpu, HostCpu, Judgement, MismatchKind, Mode, MsrTable, Processor,
    TscScaling, Vendor, baseline, has, judge, shape, text,
};

macro_rules! known {
    ($name:ident, $file:literal) => {
        fn $name() -> Processor {
            text::parse(include_str!(concat!("data/", $file, ".cpuid"))).expect($file)
        }
    };
}

known!(milan_on_5_10, "milan-5.10");
known!(milan_on_6_18, "milan-6.18");
known!(granite_rapids, "granite-rapids");
known!(ice_lake, "ice-lake");
known!(ice_lake_bare, "ice-lake-bare");
known!(renoir, "renoir");
known!(vermeer, "vermeer");
known!(hygon, "hygon");

fn judged(guest: &Processor, host: &Processor) -> Judgement {
    let guest = GuestCpu {
        processor: guest.clone(),
        tsc_khz: 0,
        vcpu_count: 1,
        baseline: "off".into(),
    };
    judge(&guest, &HostCpu::plain(host.clone(), 0, TscScaling::No))
}

fn reasons(guest: &Processor, host: &Processor) -> Vec<String> {
    let mismatches = judged(guest, host).mismatches;
    mismatches
        .iter()
        .map(|mismatch| mismatch.name.to_string())
        .collect()
}

/// The same processor with other answers to one question.
fn changed(
    of: &Processor,
    leaf: u32,
    change: impl Fn(&mut limosa_compat::CpuidEntry),
) -> Processor {
    let mut entries = of.cpuid.entries().to_vec();
    let answers = entries
        .iter_mut()
        .filter(|entry| (entry.leaf, entry.subleaf) == (leaf, 0));
    answers.for_each(change);
    Processor {
        cpuid: CpuidTable::new(entries).unwrap(),
        msrs: of.msrs.clone(),
    }
}

#[test]
fn one_processor_under_two_kernels_is_two_hosts() {
    // The newer kernel does not repeat Intel's speculation control on AMD.
    let lost = reasons(&milan_on_5_10(), &milan_on_6_18());
    assert!(lost.iter().any(|name| name == "spec-ctrl"), "{lost:?}");
    let mismatches = judged(&milan_on_5_10(), &milan_on_6_18()).mismatches;
    let spec_ctrl = mismatches
        .iter()
        .find(|found| found.name == "spec-ctrl")
        .unwrap();
    assert!(
        spec_ctrl
            .remedy
            .contains("kernel or microcode hides spec-ctrl")
    );
    // And the way back is closed too: it knows things that the older one does not.
    assert!(!reasons(&milan_on_6_18(), &milan_on_5_10()).is_empty());
    let pool = [milan_on_5_10(), milan_on_6_18()];
    for mode in [Mode::Common, Mode::Minimum] {
        let shaped = baseline(mode, &pool).unwrap().processor;
        for host in &pool {
            assert_eq!(reasons(&shaped, host), [""; 0], "{mode}");
        }
    }
    // A guest of the floor needs no pool for that.
    let floor = shape(Mode::Minimum, &pool[0], &[]).unwrap().processor;
    assert_eq!(reasons(&floor, &pool[1]), [""; 0]);
}

#[test]
fn the_place_of_saved_keys_moved_between_zen_2_and_zen_3() {
    assert!(!has(&renoir(), "pku"));
    assert_eq!(
        renoir().cpuid.find(0xd, 0).unwrap().eax >> 9 & 1,
        1,
        "without the feature"
    );
    let moved = reasons(&renoir(), &vermeer());
    for name in ["xsave-component-size", "xsave-component-offset"] {
        assert!(moved.iter().any(|reason| reason == name), "{moved:?}");
    }
    // What they have in common has no such component, so nothing can move.
    let pool = [renoir(), vermeer()];
    let common = baseline(Mode::Common, &pool).unwrap().processor;
    assert_eq!(common.cpuid.find(0xd, 0).unwrap().eax, 0b111);
    assert_eq!(common.cpuid.find(0xd, 9), None);
    assert_eq!(reasons(&common, &pool[0]), [""; 0]);
    assert_eq!(reasons(&common, &pool[1]), [""; 0]);
}

#[test]
fn address_widths_may_grow_and_never_shrink() {
    let wide = changed(&ice_lake(), 0x8000_0008, |entry| {
        entry.eax = entry.eax & !0xff_00ff | 52;
    });
    let narrow = changed(&ice_lake(), 0x8000_0008, |entry| {
        entry.eax = entry.eax & !0xff_00ff | 46;
    });
    assert_eq!(reasons(&narrow, &wide), [""; 0]);
    assert_eq!(reasons(&wide, &narrow), ["phys-bits"]);
    let common = baseline(Mode::Common, &[wide, narrow]).unwrap().processor;
    assert_eq!(common.cpuid.find(0x8000_0008, 0).unwrap().eax & 0xff, 46);
}

#[test]
fn the_highest_leaf_may_grow_and_never_shrink() {
    let lower = changed(&ice_lake(), 0, |entry| entry.eax = 0x16);
    assert_eq!(reasons(&lower, &ice_lake()), [""; 0]);
    assert_eq!(reasons(&ice_lake(), &lower), ["max-basic-leaf"]);
}

#[test]
fn ice_lake_to_granite_rapids_gains_a_lack_that_a_guest_must_be_told_of() {
    // Restricted RSB alternate behaviour: the guest was not prepared for it.
    let gained = judged(&ice_lake(), &granite_rapids()).mismatches;
    let gained = gained
        .iter()
        .find(|found| found.kind == MismatchKind::Appears);
    assert_eq!(gained.map(|found| &*found.name), Some("rrsba"));
    let back = reasons(&granite_rapids(), &ice_lake());
    for name in ["avx512-bf16", "amx-tile", "serialize"] {
        assert!(back.iter().any(|reason| reason == name), "{name}: {back:?}");
    }
    let pool = [ice_lake(), granite_rapids()];
    let common = baseline(Mode::Common, &pool).unwrap().processor;
    assert!(has(&common, "rrsba"), "a guest of both is told");
    assert!(!has(&common, "amx-tile"));
    for host in &pool {
        assert_eq!(reasons(&common, host), [""; 0]);
    }
}

#[test]
fn large_and_small_cores_of_one_year_are_not_comparable() {
    let large = Baseline::find("granite-rapids").unwrap();
    let small = Baseline::find("sierra-forest").unwrap();
    assert_eq!(large.partial_cmp(small), None);
    let missing = shape(Mode::Named(small), &granite_rapids(), &[])
        .unwrap_err()
        .to_string();
    for name in ["avx-ifma", "avx-vnni-int8", "cmpccxadd"] {
        assert!(missing.contains(name), "{missing}");
    }
    shape(Mode::Named(large), &granite_rapids(), &[]).expect("it gives its own");
}

#[test]
fn a_clear_bit_may_be_lost_only_where_there_is_nothing_to_leak() {
    let with = |value: u64| Processor {
        msrs: MsrTable::new(vec![(0x10a, value)]).unwrap(),
        ..ice_lake()
    };
    // fb-clear; then mds-no, taa-no, sbdr-ssdp-no, fbsdp-no and psdp-no.
    let (fb_clear, unaffected) = (1 << 17, 1 << 5 | 1 << 8 | 0b111 << 13);
    let guest = with(fb_clear);
    assert_eq!(reasons(&guest, &with(0)), ["fb-clear"]);
    let judgement = judged(&guest, &with(unaffected));
    assert_eq!(judgement.mismatches, []);
    assert_eq!(judgement.warnings[0].mismatch.name, "fb-clear");
    assert!(judgement.warnings[0].forgiven.contains("nothing to flush"));
    // One of the five is not enough.
    assert_eq!(
        reasons(&guest, &with(unaffected & !(1 << 14))),
        ["fb-clear"]
    );
}

#[test]
fn lacks_of_the_floating_point_unit_must_have_been_told() {
    let told = ice_lake();
    for (bit, name) in [(6, "fdp-excptn-only"), (13, "zero-fcs-fds")] {
        let untold = changed(&told, 7, |entry| entry.ebx &= !(1 << bit));
        assert_eq!(reasons(&untold, &told), [name]);
        assert_eq!(reasons(&told, &untold), [""; 0]);
    }
}

#[test]
fn a_bit_of_the_future_fails_closed() {
    let future = changed(&ice_lake(), 7, |entry| entry.edx |= 1 << 17);
    assert_eq!(reasons(&ice_lake(), &future), [""; 0]);
    assert_eq!(
        reasons(&future, &ice_lake()),
        ["unknown CPUID 0x7.0 edx bit 17"]
    );
    let common = baseline(Mode::Common, &[future.clone(), future])
        .unwrap()
        .processor;
    assert_eq!(
        common.cpuid.find(7, 0).unwrap().edx >> 17 & 1,
        0,
        "no baseline has it"
    );
}

#[test]
fn hygon_is_not_amd_and_resembles_it() {
    assert_eq!(hygon().vendor(), Ok(Vendor::Hygon));
    assert!(has(&hygon(), "avx2") && has(&hygon(), "clzero"));
    for (guest, host) in [(hygon(), vermeer()), (vermeer(), hygon())] {
        let found = judged(&guest, &host).mismatches;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].kind, MismatchKind::Vendor);
        assert!(baseline(Mode::Common, &[guest, host]).is_err());
    }
    assert_eq!(reasons(&hygon(), &hygon()), [""; 0]);
    let floor = shape(Mode::Minimum, &hygon(), &[]).unwrap();
    assert_eq!(floor.name, "minimum-hygon-v1");
    let amd_only = Baseline::find("zen").unwrap();
    assert!(shape(Mode::Named(amd_only), &hygon(), &[]).is_err());
}

#[test]
fn silicon_and_a_kvm_on_it_are_two_things() {
    // The kernel hides what it does not virtualize, and adds what it emulates.
    let (silicon, kvm) = (ice_lake_bare(), ice_lake());
    assert!(has(&silicon, "vmx") && !has(&kvm, "vmx"));
    assert!(!reasons(&silicon, &kvm).is_empty());
}
