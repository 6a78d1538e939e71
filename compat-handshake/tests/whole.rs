//! Baselines and common processors are whole: no number, lack or leaf in them outlives what it
//! belongs to, nothing is taken from one host by chance, and the hosts of a pool take them.

mod common;

use common::fixtures::{guest, host, judged, processor, refusals, with, with_capabilities};
use limosa_compat::{
    ARCH_CAPABILITIES, Baseline, CpuidEntry, CpuidTable, HostCpu, MismatchKind, Mode, MsrTable,
    Processor, Register, TscScaling, baseline, has, intersect, judge, restrict, shape, stays,
};

const RTM_ALWAYS_ABORT: u32 = 1 << 11;
const SPEC_CTRL: u32 = 1 << 26;
const IBRS_ALL: u64 = 1 << 1;
const VMX: u32 = 1 << 5;

fn common(pool: &[Processor]) -> Processor {
    baseline(Mode::Common, pool).unwrap().processor
}

fn fixed(name: &str, here: &Processor) -> Processor {
    let baseline = Baseline::find(name).unwrap_or_else(|| panic!("{name}"));
    shape(Mode::Named(baseline), here, &[]).unwrap().processor
}

fn minimum(here: &Processor) -> Processor {
    shape(Mode::Minimum, here, &[]).unwrap().processor
}

fn answer(of: &Processor, leaf: u32, register: Register) -> u32 {
    of.cpuid.register(leaf, 0, register)
}

/// The processor with one more answer, or another one.
fn answering(of: &Processor, entry: CpuidEntry) -> Processor {
    let mut entries = of.cpuid.entries().to_vec();
    entries.retain(|old| (old.leaf, old.subleaf) != (entry.leaf, entry.subleaf));
    entries.push(entry);
    Processor {
        cpuid: CpuidTable::new(entries).unwrap(),
        msrs: of.msrs.clone(),
    }
}

#[test]
fn transactions_that_always_abort_are_told_and_matter_to_those_who_see_transactions() {
    let plain = processor("cascade-lake-linux-6.1");
    let aborts = with(&plain, (7, Register::Edx), RTM_ALWAYS_ABORT, 0);
    for pool in [vec![aborts.clone()], vec![plain.clone(), aborts.clone()]] {
        let common = common(&pool);
        assert!(has(&common, "rtm-always-abort"));
        assert_eq!(refusals(&common, &aborts), [""; 0]);
    }
    // A guest without transactions has none that could abort.
    assert!(!has(&plain, "rtm"));
    let judgement = judged(&plain, &aborts);
    assert!(judgement.fits());
    assert_eq!(judgement.warnings[0].mismatch.name, "rtm-always-abort");
    let rtm = |of: &Processor| with(of, (7, Register::Ebx), 1 << 11, 0);
    assert_eq!(refusals(&rtm(&plain), &rtm(&aborts)), ["rtm-always-abort"]);
}

#[test]
fn enhanced_ibrs_goes_with_the_register_that_it_is_set_in() {
    let here = with_capabilities(&processor("ice-lake-linux-6.1"), IBRS_ALL);
    let without = with(&here, (7, Register::Edx), 0, SPEC_CTRL);
    assert!(has(&here, "spec-ctrl") && has(&without, "ibrs-all"));
    let common = common(&[here.clone(), without.clone()]);
    assert!(!has(&common, "spec-ctrl") && !has(&common, "ibrs-all"));
    assert_eq!(common.msrs.get(ARCH_CAPABILITIES), Some(0));
    let off = shape(Mode::Off, &without, &[]).unwrap().processor;
    assert!(!has(&off, "ibrs-all"));
    assert!(has(
        &shape(Mode::Off, &here, &[]).unwrap().processor,
        "ibrs-all"
    ));
}

#[test]
fn numbers_go_with_the_features_that_own_them() {
    let plain = processor("genoa-linux-6.18");
    let more = with(&plain, (0x8000_0008, Register::Ebx), 1 << 3 | 1 << 4, 0);
    let more = with(&more, (0x8000_0008, Register::Edx), 0x1_0007, 0);
    let more = with(&more, (0x8000_0021, Register::Eax), 1 << 24, 0);
    let more = with(&more, (0x8000_0021, Register::Ebx), 0x40 << 16, 0);
    let more = with(&more, (0x4000_0000, Register::Eax), 0x4000_0010, 0);
    for name in ["minimum-amd-v1", "x86-64-v3", "zen4"] {
        let given = fixed(name, &more);
        assert_eq!(answer(&given, 0x8000_0008, Register::Edx), 0, "{name}");
        assert_eq!(answer(&given, 0x8000_0021, Register::Ebx), 0, "{name}");
        let hypervisor = answer(&given, 0x4000_0000, Register::Eax);
        assert_eq!(hypervisor, 0x4000_0001, "{name}");
        assert_eq!(refusals(&given, &plain), [""; 0], "{name}");
    }
    // With their features they stay.
    let whole = common(std::slice::from_ref(&more));
    assert_eq!(answer(&whole, 0x8000_0008, Register::Edx), 0x1_0007);
    assert_eq!(answer(&whole, 0x8000_0021, Register::Ebx), 0x40 << 16);
}

#[test]
fn a_kernel_that_states_no_highest_leaf_of_its_own_has_one() {
    let plain = processor("genoa-linux-6.18");
    let stated = with(
        &plain,
        (0x4000_0000, Register::Eax),
        0x4000_0001,
        !0x4000_0001,
    );
    let silent = with(&plain, (0x4000_0000, Register::Eax), 0, u32::MAX);
    assert_eq!(refusals(&stated, &silent), [""; 0]);
    assert_eq!(refusals(&silent, &stated), [""; 0]);
}

#[test]
fn a_subleaf_that_shows_no_feature_is_not_asked_for() {
    let plain = processor("sapphire-rapids-linux-6.1");
    let entry = CpuidEntry {
        leaf: 7,
        subleaf: 1,
        eax: 1 << 30,
        ..CpuidEntry::default()
    };
    let given = minimum(&answering(&plain, entry));
    assert_eq!(answer(&given, 7, Register::Eax), 0);
    assert_eq!(given.cpuid.find(7, 1), None);
    assert_eq!(refusals(&given, &minimum(&plain)), [""; 0]);
}

#[test]
fn what_a_fixed_baseline_says_of_leaks_is_the_same_on_affected_hosts_and_on_others() {
    let affected = processor("cascade-lake-linux-6.1");
    let fb_clear = affected.msrs.get(ARCH_CAPABILITIES).unwrap() | 1 << 17;
    let affected = with_capabilities(&affected, fb_clear);
    let unaffected = processor("sapphire-rapids-linux-6.1");
    assert!(has(&affected, "fb-clear") && !has(&unaffected, "fb-clear"));
    let unaffected = with(&unaffected, (7, Register::Edx), 0, 1 << 10);
    let [of_affected, of_unaffected] = [minimum(&affected), minimum(&unaffected)];
    for name in ["md-clear", "fb-clear"] {
        assert!(
            has(&of_affected, name) && has(&of_unaffected, name),
            "{name}"
        );
        // Where it neither works nor is harmless, no guest is told.
        let bad = with_capabilities(&with(&unaffected, (7, Register::Edx), 0, 1 << 10), 0);
        assert!(!has(&minimum(&bad), name), "{name}");
    }
    assert_eq!(of_affected.msrs, of_unaffected.msrs);
    assert!(judged(&of_unaffected, &affected).fits());
    assert!(judged(&of_affected, &unaffected).fits());
}

#[test]
fn the_floor_of_amd_fits_its_smallest_processor() {
    let large = processor("zen");
    let bobcat = with(&large, (0x8000_0008, Register::Eax), 36, 0xff & !36);
    let given = minimum(&large);
    assert_eq!(answer(&given, 0x8000_0008, Register::Eax) & 0xff, 36);
    assert_eq!(refusals(&given, &bobcat), [""; 0]);
}

#[test]
fn a_topology_that_can_not_be_read_is_not_announced() {
    const TOPOEXT: u32 = 1 << 22;
    let here = with(&processor("zen3"), (0x8000_0001, Register::Ecx), TOPOEXT, 0);
    let shown = |of: &Processor| answer(of, 0x8000_0001, Register::Ecx) & TOPOEXT != 0;
    assert!(!shown(&minimum(&here)));
    assert!(shown(&fixed("zen3", &here)));
}

#[test]
fn frequencies_of_a_host_are_no_ones_else() {
    let mut here = processor("ice-lake-52-bits");
    for leaf in [0x15, 0x16, 0x4000_0010] {
        let entry = CpuidEntry {
            leaf,
            eax: 2,
            ebx: 0x8e,
            ecx: 24_000_000,
            ..CpuidEntry::default()
        };
        here = answering(&here, entry);
    }
    let here = with(&here, (0x4000_0000, Register::Eax), 0x4000_0010, 1);
    let common = common(std::slice::from_ref(&here));
    for leaf in [0x15, 0x16, 0x4000_0010] {
        let entry = common.cpuid.find(leaf, 0).copied().unwrap_or_default();
        assert_eq!((entry.eax, entry.ebx, entry.ecx), (0, 0, 0), "{leaf:#x}");
    }
}

#[test]
fn lines_of_two_sizes_are_not_flushed() {
    let here = processor("cascade-lake-linux-6.1");
    let small = with(&here, (1, Register::Ebx), 4 << 8, 0xfb << 8);
    let common = common(&[here.clone(), small.clone()]);
    for name in ["clflush", "clflushopt", "clwb"] {
        assert!(has(&here, name) && !has(&common, name), "{name}");
    }
    for member in [here, small] {
        assert_eq!(refusals(&common, &member), [""; 0]);
    }
}

#[test]
fn addresses_of_a_guest_that_are_not_stated_are_those_of_the_processor() {
    let here = processor("genoa-linux-6.1");
    let with_widths = |guest: u32, physical: u32| {
        let widths = guest << 16 | physical;
        with(
            &here,
            (0x8000_0008, Register::Eax),
            widths,
            0xff_00ff & !widths,
        )
    };
    let (silent, narrow) = (with_widths(0, 52), with_widths(48, 52));
    assert_eq!(refusals(&silent, &narrow), ["guest-phys-bits"]);
    assert_eq!(refusals(&narrow, &silent), [""; 0]);
    let common = common(&[silent.clone(), narrow.clone()]);
    assert_eq!(answer(&common, 0x8000_0008, Register::Eax) >> 16 & 0xff, 48);
    for member in [silent, narrow] {
        assert_eq!(refusals(&common, &member), [""; 0]);
    }
}

#[test]
fn a_big_pool_loses_no_answer_that_says_something() {
    let here = processor("genoa-linux-6.18");
    let crowd = |leaf: u32| {
        let mut entries = here.cpuid.entries().to_vec();
        let room = 256 - entries.len() as u32;
        entries.extend((0..room).map(|subleaf| CpuidEntry {
            leaf,
            subleaf: 0x100 + subleaf,
            eax: 1,
            ..CpuidEntry::default()
        }));
        Processor {
            cpuid: CpuidTable::new(entries).unwrap(),
            msrs: here.msrs.clone(),
        }
    };
    // No row stands for the first, so nothing of it is kept; the second is noise of the host.
    let pool = [crowd(0x9), crowd(0x3)];
    let found = intersect(&pool).unwrap();
    for name in ["lm", "nx", "syscall", "pdpe1gb"] {
        assert!(has(&found, name), "{name}");
    }
}

#[test]
fn a_host_that_pretends_to_be_itself_takes_what_it_takes() {
    let here = processor("sapphire-rapids-linux-6.1");
    // A hint beyond the highest subleaf, and bits that no row knows.
    let short = with(&here, (7, Register::Eax), 0, u32::MAX);
    let short = with(&short, (7, Register::Edx), 1 << 12, 0);
    let truth = HostCpu::new(short.clone(), 2_000_000, TscScaling::No);
    assert!(has(&truth.accept, "fzrm"));
    let pretended = restrict(&truth, &truth).unwrap();
    let mut has_all = guest(&truth.accept);
    has_all.tsc_khz = 2_000_000;
    assert_eq!(judge(&has_all, &truth).mismatches, []);
    assert_eq!(judge(&has_all, &pretended).mismatches, []);
    // And never more than it truly has.
    let lesser = HostCpu::plain(minimum(&here), 2_000_000, TscScaling::No);
    let lesser = restrict(&truth, &lesser).unwrap();
    let found = judge(&has_all, &lesser).mismatches;
    assert!(found.iter().any(|mismatch| mismatch.name == "avx2"));
    let unknown = "unknown CPUID 0x7.0 edx bit 12";
    assert!(found.iter().any(|mismatch| mismatch.name == unknown));
}

#[test]
fn registers_that_a_guest_shows_and_does_not_state_are_missed() {
    let here = processor("ice-lake-linux-6.1");
    let nested = with(&here, (1, Register::Ecx), VMX, 0);
    let states = |values: &[(u32, u64)]| {
        let mut all = here.msrs.values().to_vec();
        all.extend_from_slice(values);
        Processor {
            cpuid: nested.cpuid.clone(),
            msrs: MsrTable::new(all).unwrap(),
        }
    };
    let registers = [(0x480, 0x5), (0x48b, 0x7)];
    let found = judged(&nested, &states(&registers)).mismatches;
    let kinds: Vec<_> = found.iter().map(|mismatch| mismatch.kind).collect();
    assert_eq!(kinds, [MismatchKind::NotStated; 2]);
    assert_eq!(found[0].name, "feature MSR 0x480");
    assert_eq!(refusals(&states(&registers), &states(&registers)), [""; 0]);
}

#[test]
fn a_host_takes_in_no_guest_with_what_does_not_travel() {
    let here = processor("ice-lake-linux-6.1");
    let everything = stays().iter().fold(here, |of, row| {
        let (leaf, _, register, bit) = common::named::place(row.name).unwrap();
        with(&of, (leaf, register), 1 << bit, 0)
    });
    let host = HostCpu::new(everything.clone(), 2_000_000, TscScaling::No);
    let found = judge(&guest(&everything), &host).mismatches;
    for row in stays() {
        let mismatch = found.iter().find(|mismatch| mismatch.name == row.name);
        let remedy = &mismatch.unwrap_or_else(|| panic!("{}", row.name)).remedy;
        assert!(remedy.starts_with(row.reason), "{remedy}");
        assert!(remedy.ends_with(&format!("without {}", row.name)));
    }
}

#[test]
fn remedies_are_such_that_they_can_help() {
    let here = processor("sapphire-rapids-linux-6.1");
    let remedy = |guest_sees: &Processor, other: &Processor, name: &str| {
        let found = judge(&guest(guest_sees), &host(other)).mismatches;
        let mismatch = found.into_iter().find(|mismatch| mismatch.name == name);
        mismatch.unwrap_or_else(|| panic!("{name}")).remedy
    };
    let affected = with_capabilities(&here, 0);
    let promise = remedy(&here, &affected, "fbsdp-no");
    assert!(promise.contains("affected"), "{promise}");
    assert!(!promise.contains("version"), "{promise}");
    let skewed = with(&here, (7, Register::Edx), 0, SPEC_CTRL);
    let control = remedy(&here, &skewed, "spec-ctrl");
    assert!(control.contains("version"), "{control}");
    // Silicon that calls itself "GenuineIotel" is of the same maker as itself, and of no known one.
    let odd = processor("genuineiotel");
    let found = judge(&guest(&odd), &host(&odd)).mismatches;
    assert_eq!(found[0].kind, MismatchKind::NoRules);
    assert!(found[0].to_string().contains("no rules"), "{}", found[0]);
    assert!(found[0].remedy.contains("Intel, of AMD or of Hygon"));
}
