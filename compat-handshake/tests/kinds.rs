//! Each kind of field on real processors: numbers, lacks, flushes and bits that nobody knows, with
//! the name under which each is refused and the reason for which it is forgiven.

mod common;

use common::fixtures::{guest, host, judged, processor, refusals, with, with_capabilities};
use limosa_compat::{
    Baseline, HostCpu, MismatchKind, Mode, Processor, Register, TscScaling, baseline, has, judge,
    shape,
};

/// Bits of IA32_ARCH_CAPABILITIES.
const RSBA: u64 = 1 << 2;
const MDS_NO: u64 = 1 << 5;
const TAA_NO: u64 = 1 << 8;
const FB_CLEAR: u64 = 1 << 17;
const RRSBA: u64 = 1 << 19;
const RFDS_NO: u64 = 1 << 27;
const RFDS_CLEAR: u64 = 1 << 28;

fn fixed(name: &str) -> &'static Baseline {
    Baseline::find(name).unwrap_or_else(|| panic!("{name}"))
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
fn the_highest_leaf_may_grow_and_never_shrink() {
    let here = processor("ice-lake-linux-6.1");
    let [mut lower, mut fewer] = [here.clone(), here.clone()];
    let highest = |of: &mut Processor, leaf, eax| {
        *of = with(of, (leaf, Register::Eax), eax, !eax);
    };
    highest(&mut lower, 0, 0x16);
    assert_eq!(refusals(&lower, &here), [""; 0]);
    assert_eq!(refusals(&here, &lower), ["max-basic-leaf"]);
    highest(&mut fewer, 7, 0);
    assert_eq!(refusals(&fewer, &here), [""; 0]);
    assert_eq!(refusals(&here, &fewer), ["max-subleaf"]);
    let pool = [here.clone(), lower, fewer];
    let common = baseline(Mode::Common, &pool).unwrap().processor;
    assert_eq!(common.cpuid.register(0, 0, Register::Eax), 0x16);
    assert_eq!(common.cpuid.register(7, 0, Register::Eax), 0);
    // Beyond a limit nothing is left that only those could read who ignore it.
    assert!(
        common
            .cpuid
            .entries()
            .iter()
            .all(|entry| entry.leaf != 7 || entry.subleaf == 0)
    );
}

#[test]
fn what_can_not_be_asked_for_describes_nothing() {
    // A host whose highest leaf lies below that of saved state: its AVX is none.
    let here = processor("sapphire-rapids-linux-6.1");
    let low = with(&here, (0, Register::Eax), 0x7, !0x7);
    let common = baseline(Mode::Common, std::slice::from_ref(&low))
        .unwrap()
        .processor;
    assert!(has(&common, "sse4.2") && !has(&common, "avx"));
    assert_eq!(common.cpuid.find(0xd, 2), None);
    let refused = shape(Mode::Named(fixed("sandy-bridge")), &low, &[]);
    let error = refused.unwrap_err().to_string();
    assert!(error.ends_with("host 1 lacks avx"), "{error}");
}

#[test]
fn a_lack_outlives_what_it_is_about() {
    let here = processor("zen3");
    assert!(has(&here, "no-lmsle"));
    let short = with(&here, (0x8000_0001, Register::Edx), 0, 1 << 29);
    let common = baseline(Mode::Common, std::slice::from_ref(&short))
        .unwrap()
        .processor;
    assert!(!has(&common, "lm") && has(&common, "no-lmsle"));
    assert_eq!(refusals(&common, &here), [""; 0]);
}

#[test]
fn a_register_that_a_host_does_not_state_is_not_shown() {
    let stated = processor("ice-lake-linux-6.1");
    let silent = Processor::from(stated.cpuid.clone());
    assert!(has(&silent, "arch-capabilities"));
    let pool = [stated, silent];
    for mode in [Mode::Common, Mode::Minimum] {
        let given = baseline(mode, &pool).unwrap().processor;
        assert!(!has(&given, "arch-capabilities"), "{mode}");
        assert!(
            pool.iter()
                .all(|member| refusals(&given, member).is_empty())
        );
    }
}

#[test]
fn a_bit_of_the_future_fails_closed() {
    let here = processor("ice-lake-linux-6.1");
    let future = with(&here, (7, Register::Edx), 1 << 17, 0);
    assert_eq!(refusals(&here, &future), [""; 0]);
    assert_eq!(refusals(&future, &here), ["unknown CPUID 0x7.0 edx bit 17"]);
    assert_eq!(
        judged(&future, &here).mismatches[0].kind,
        MismatchKind::Unknown
    );
    // It may stay on hosts that all show it; no baseline has it.
    assert_eq!(refusals(&future, &future), [""; 0]);
    let pool = [future.clone(), future];
    for mode in [Mode::Common, Mode::Minimum, Mode::Named(fixed("x86-64-v3"))] {
        let given = baseline(mode, &pool).unwrap().processor;
        assert_eq!(
            given.cpuid.register(7, 0, Register::Edx) >> 17 & 1,
            0,
            "{mode}"
        );
    }
    let capabilities = here.msrs.get(0x10a).unwrap();
    let future = with_capabilities(&here, capabilities | 1 << 40);
    assert_eq!(refusals(&future, &here), ["unknown MSR 0x10a bit 40"]);
    assert_eq!(refusals(&here, &future), [""; 0]);
}

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
fn a_guest_is_told_of_the_lacks_of_every_host_of_its_pool() {
    let (old, new) = (
        processor("ice-lake-linux-6.1"),
        processor("granite-rapids-linux-6.18"),
    );
    assert!(!has(&old, "rrsba") && has(&new, "rrsba"));
    assert!(refusals(&old, &new).iter().any(|name| name == "rrsba"));
    let common = baseline(Mode::Common, &[old.clone(), new])
        .unwrap()
        .processor;
    assert!(has(&common, "rrsba"));
    // A guest of a fixed baseline is told the worst of its maker from the start.
    let given = shape(Mode::Named(fixed("ice-lake-server")), &old, &[])
        .unwrap()
        .processor;
    for name in ["rsba", "rrsba", "fdp-excptn-only", "zero-fcs-fds"] {
        assert!(has(&given, name), "{name}");
    }
}

#[test]
fn stale_mmio_data_is_harmless_only_where_none_of_five_leaks() {
    let here = processor("ice-lake-linux-6.1");
    let with = |value: u64| with_capabilities(&here, value);
    let unaffected = MDS_NO | TAA_NO | 0b111 << 13;
    let guest = with(FB_CLEAR);
    assert_eq!(refusals(&guest, &with(0)), ["fb-clear"]);
    assert_eq!(refusals(&guest, &with(unaffected)), [""; 0]);
    assert_eq!(
        judged(&guest, &with(unaffected)).warnings[0].mismatch.name,
        "fb-clear"
    );
    // This host has no transactions, so that taa-no says nothing new.
    for needed in [MDS_NO, 1 << 13, 1 << 14, 1 << 15] {
        assert_eq!(
            refusals(&guest, &with(unaffected & !needed)),
            ["fb-clear"],
            "{needed:#x}"
        );
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
