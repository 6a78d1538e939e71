//! What the strict rule accepts and refuses, feature by feature and on real processors.

mod common;

use common::{CASCADE_LAKE, GENOA, MILAN, SAPPHIRE_RAPIDS};
use limosa_compat::{
    CpuidEntry, CpuidTable, GuestCpu, HostCpu, Inverse, Judgement, Kind, Mismatch, MismatchKind,
    MsrTable, Place, Processor, Register, Registers, TscScaling, judge, words,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// One named bit of CPUID.
#[derive(Clone, Copy, Debug)]
struct Bit {
    leaf: u32,
    subleaf: u32,
    register: Register,
    bit: u8,
    name: &'static str,
    kind: Kind,
}

/// Every named bit of CPUID, but for those of single components of saved state.
fn bits() -> Vec<Bit> {
    let mut bits = Vec::new();
    for word in words() {
        let Registers::Cpuid {
            leaves: (leaf, _),
            subleaves: (subleaf, _),
            registers,
        } = word.registers
        else {
            continue;
        };
        if (leaf, subleaf) == (0xd, 2) {
            continue;
        }
        for field in word.fields.iter().filter(|field| field.bits == 1) {
            bits.push(Bit {
                leaf,
                subleaf,
                register: registers[0],
                bit: field.low,
                name: field.name,
                kind: field.kind,
            });
        }
    }
    bits
}

fn needed() -> impl Iterator<Item = Bit> {
    let needed =
        |bit: &Bit| bit.kind == Kind::Feature || bit.kind == Kind::Inverse(Inverse::Mitigation);
    bits().into_iter().filter(needed)
}

fn with_cpuid(guest: &GuestCpu, cpuid: CpuidTable) -> GuestCpu {
    let msrs = guest.processor.msrs.clone();
    GuestCpu {
        processor: Processor { cpuid, msrs },
        ..guest.clone()
    }
}

fn accepting(host: &HostCpu, cpuid: CpuidTable) -> HostCpu {
    let msrs = host.accept.msrs.clone();
    HostCpu {
        accept: Processor { cpuid, msrs },
        ..host.clone()
    }
}

/// A guest that sees every named feature but the lacks, so that each can be taken from the host.
fn guest_with_everything() -> GuestCpu {
    let highest = |leaf| CpuidEntry {
        leaf,
        eax: leaf | 0xff,
        ..CpuidEntry::default()
    };
    let mut table = vec![intel_leaf_0()];
    table.extend([0x4000_0000, 0x8000_0000].map(highest));
    // Subleaves of leaf 7, and performance counters: without them nothing is said about either.
    table.extend([0x7, 0xa].map(|leaf| CpuidEntry {
        leaf,
        eax: 2,
        ..CpuidEntry::default()
    }));
    needed().for_each(|row| set_bit(&mut table, &row));
    GuestCpu {
        processor: Processor {
            cpuid: CpuidTable::new(table).unwrap(),
            msrs: MsrTable::new(vec![(0x10a, 0), (0x345, 0), (0xcf, 0)]).unwrap(),
        },
        tsc_khz: 2_000_000,
        vcpu_count: 1,
        baseline: "off".into(),
    }
}

fn intel_leaf_0() -> CpuidEntry {
    CpuidEntry {
        eax: 0xff,
        ebx: 0x756e_6547,
        edx: 0x4965_6e69,
        ecx: 0x6c65_746e,
        ..CpuidEntry::default()
    }
}

fn set_bit(table: &mut Vec<CpuidEntry>, row: &Bit) {
    let known = table
        .iter()
        .position(|e| (e.leaf, e.subleaf) == (row.leaf, row.subleaf));
    let index = known.unwrap_or_else(|| {
        table.push(CpuidEntry {
            leaf: row.leaf,
            subleaf: row.subleaf,
            ..CpuidEntry::default()
        });
        table.len() - 1
    });
    *table[index].register_mut(row.register) |= 1 << row.bit;
}

fn host_like(guest: &GuestCpu) -> HostCpu {
    HostCpu::plain(guest.processor.clone(), guest.tsc_khz, TscScaling::No)
}

/// The table with one register changed; the entry is made where it is missing.
fn changed(
    table: &CpuidTable,
    leaf: u32,
    subleaf: u32,
    change: impl FnOnce(&mut CpuidEntry),
) -> CpuidTable {
    let mut entries = table.entries().to_vec();
    let known = entries
        .iter()
        .position(|e| (e.leaf, e.subleaf) == (leaf, subleaf));
    let index = known.unwrap_or_else(|| {
        entries.push(CpuidEntry {
            leaf,
            subleaf,
            ..CpuidEntry::default()
        });
        entries.len() - 1
    });
    change(&mut entries[index]);
    CpuidTable::new(entries).unwrap()
}

fn names(guest: &GuestCpu, host: &HostCpu) -> Vec<String> {
    judge(guest, host)
        .mismatches
        .iter()
        .map(|m| m.name.to_string())
        .collect()
}

#[test]
fn each_named_feature_taken_from_the_host_is_refused_by_its_name_alone() {
    let guest = guest_with_everything();
    let host = host_like(&guest);
    assert!(judge(&guest, &host).fits());
    for row in needed() {
        let accept = changed(&host.accept.cpuid, row.leaf, row.subleaf, |entry| {
            *entry.register_mut(row.register) &= !(1 << row.bit);
        });
        let judgement = judge(&guest, &accepting(&host, accept));
        if row.kind == Kind::Inverse(Inverse::Mitigation) && !judgement.warnings.is_empty() {
            // This host says that it is not affected.
            assert_eq!(judgement.warnings[0].mismatch.name, row.name);
            continue;
        }
        let [mismatch] = &judgement.mismatches[..] else {
            panic!("{}: {:?}", row.name, judgement.mismatches);
        };
        assert_eq!(mismatch.name, row.name);
        assert_eq!(mismatch.kind, MismatchKind::Missing);
        assert_eq!(mismatch.rule, Some(row.kind));
        let (leaf, subleaf, register) = (row.leaf, row.subleaf, row.register);
        let bit = Some(row.bit);
        let place = Place::Cpuid {
            leaf,
            subleaf,
            register,
            bit,
        };
        assert_eq!(mismatch.place, place);
    }
}

#[test]
fn each_feature_that_only_the_host_has_is_accepted_and_each_lack_is_refused() {
    let all = guest_with_everything();
    for row in bits() {
        let take = |entry: &mut CpuidEntry| *entry.register_mut(row.register) &= !(1 << row.bit);
        let give = |entry: &mut CpuidEntry| *entry.register_mut(row.register) |= 1 << row.bit;
        let table = changed(&all.processor.cpuid, row.leaf, row.subleaf, take);
        let guest = with_cpuid(&all, table);
        let host = host_like(&guest);
        let accept = changed(&host.accept.cpuid, row.leaf, row.subleaf, give);
        let host = accepting(&host, accept);
        let expected: Vec<String> = match row.kind {
            Kind::Inverse(Inverse::Behaviour) => vec![row.name.to_owned()],
            _ => vec![],
        };
        assert_eq!(names(&guest, &host), expected);
    }
}

#[test]
fn a_lack_in_a_leaf_that_the_guest_can_not_ask_for_is_none() {
    let guest = guest_with_everything();
    let old = changed(&guest.processor.cpuid, 0x8000_0000, 0, |entry| {
        entry.eax = 0x8000_0008;
    });
    let entries = old.entries().iter().copied();
    let reached = entries.filter(|entry| entry.leaf <= 0x8000_0008);
    let old = with_cpuid(&guest, CpuidTable::new(reached.collect()).unwrap());
    let mut host = host_like(&guest);
    host.accept.cpuid = changed(&host.accept.cpuid, 0x8000_0021, 0, |entry| {
        entry.eax |= 1 << 1;
    });
    assert_eq!(names(&guest, &host), ["fs-gs-base-ns"]);
    assert_eq!(names(&old, &host), [""; 0]);
}

#[test]
fn what_is_the_guests_own_is_never_compared() {
    let guest = guest_with_everything();
    let own = |row: &Bit| matches!(row.kind, Kind::Dynamic | Kind::Synthesized | Kind::Ignored);
    for row in bits().into_iter().filter(own) {
        let give = |entry: &mut CpuidEntry| *entry.register_mut(row.register) |= 1 << row.bit;
        let table = changed(&guest.processor.cpuid, row.leaf, row.subleaf, give);
        let with = with_cpuid(&guest, table);
        assert_eq!(names(&with, &host_like(&guest)), Vec::<String>::new());
    }
    // Brand string and caches, in registers as a whole.
    let table = changed(&guest.processor.cpuid, 0x8000_0002, 0, |entry| {
        entry.eax = 0x6574_6e49;
    });
    let table = changed(&table, 0x4, 1, |entry| entry.ebx = 0x1c0_003f);
    assert_eq!(
        names(&with_cpuid(&guest, table), &host_like(&guest)),
        [""; 0]
    );
}

#[test]
fn a_bit_without_a_name_is_refused_under_its_place() {
    let guest = guest_with_everything();
    let host = host_like(&guest);
    let table = changed(&guest.processor.cpuid, 7, 0, |entry| entry.edx |= 1 << 12);
    let judgement = judge(&with_cpuid(&guest, table), &host);
    assert_eq!(judgement.mismatches.len(), 1);
    assert_eq!(
        judgement.mismatches[0].name,
        "unknown CPUID 0x7.0 edx bit 12"
    );
    assert_eq!(judgement.mismatches[0].kind, MismatchKind::Unknown);
}

#[test]
fn a_leaf_that_no_table_knows_must_be_equal() {
    let guest = guest_with_everything();
    let host = host_like(&guest);
    let table = changed(&guest.processor.cpuid, 0x29, 3, |entry| entry.ecx = 5);
    let with = with_cpuid(&guest, table);
    assert_eq!(names(&with, &host), ["unknown CPUID 0x29.3 ecx"]);
    assert!(judge(&with, &host_like(&with)).fits());
}

#[test]
fn numbers_follow_their_rule() {
    let guest = guest_with_everything();
    let table = changed(&guest.processor.cpuid, 0x8000_0008, 0, |entry| {
        entry.eax = 48 << 8 | 46;
    });
    let guest = with_cpuid(&guest, table);
    let with_physical = |bits: u32| {
        let accept = changed(&guest.processor.cpuid, 0x8000_0008, 0, |entry| {
            entry.eax = 48 << 8 | bits;
        });
        accepting(&host_like(&guest), accept)
    };
    assert_eq!(names(&guest, &with_physical(52)), [""; 0]);
    assert_eq!(names(&guest, &with_physical(39)), ["phys-bits"]);
    let found = judge(&guest, &with_physical(39)).mismatches;
    assert_eq!((found[0].guest, found[0].host), (46, 39));
    // A kernel older than 6.10 leaves the guest-phys field at zero.
    let table = changed(&guest.processor.cpuid, 0x8000_0008, 0, |entry| {
        entry.eax |= 46 << 16;
    });
    let newer = with_cpuid(&guest, table);
    assert_eq!(names(&newer, &with_physical(46)), [""; 0]);
    assert_eq!(
        names(&newer, &with_physical(39)),
        ["phys-bits", "guest-phys-bits"]
    );
}

#[test]
fn xsave_components_may_not_move() {
    let guest = MILAN.guest();
    let mut host = MILAN.host();
    // PKRU where the early Zen 2 parts have it.
    host.accept.cpuid = changed(&host.accept.cpuid, 0xd, 9, |entry| {
        (entry.eax, entry.ebx) = (0x40, 0x340);
    });
    let expected = ["xsave-component-size", "xsave-component-offset"];
    assert_eq!(names(&guest, &host), expected);
}

#[test]
fn vendors_are_never_crossed_and_never_guessed() {
    let found = judge(&MILAN.guest(), &CASCADE_LAKE.host()).mismatches;
    assert_eq!(found[0].kind, MismatchKind::Vendor);
    assert_eq!(
        found[0].name,
        "vendor: guest AuthenticAMD, host GenuineIntel"
    );
    // Another maker's bits mean other things: to compare them would only confuse.
    assert_eq!(found.len(), 1);
    // Silicon that calls itself "GenuineIotel" exists.
    let table = changed(&CASCADE_LAKE.table(), 0, 0, |entry| entry.edx = 0x496f_6e69);
    let odd = with_cpuid(&CASCADE_LAKE.guest(), table);
    let found = judge(&odd, &host_like(&odd)).mismatches;
    assert_eq!(found.len(), 1);
    assert!(found[0].name.contains("unknown vendor"), "{}", found[0]);
}

#[test]
fn real_processors_fit_themselves() {
    for processor in [CASCADE_LAKE, SAPPHIRE_RAPIDS, MILAN, GENOA] {
        assert_eq!(judge(&processor.guest(), &processor.host()).mismatches, []);
    }
}

#[test]
fn cascade_lake_does_not_fit_sapphire_rapids() {
    // MPX went away in between, and the place of its state in XCR0 with it.
    let expected = ["mpx", "xcr0.bndregs", "xcr0.bndcsr"];
    assert_eq!(
        names(&CASCADE_LAKE.guest(), &SAPPHIRE_RAPIDS.host()),
        expected
    );
}

#[test]
fn milan_fits_genoa_and_there_is_no_way_back() {
    assert_eq!(names(&MILAN.guest(), &GENOA.host()), [""; 0]);
    let back = names(&GENOA.guest(), &MILAN.host());
    for name in ["avx512f", "avx512-bf16", "xcr0.opmask", "phys-bits"] {
        assert!(
            back.iter().any(|found| found == name),
            "{name} is not in {back:?}"
        );
    }
}

#[test]
fn arch_capabilities_keep_their_polarity() {
    let guest = SAPPHIRE_RAPIDS.guest();
    let value = guest.processor.msrs.get(0x10a).unwrap();
    let with = |value: u64| {
        let mut host = SAPPHIRE_RAPIDS.host();
        host.accept.msrs = MsrTable::new(vec![(0xce, 0x8000_0000), (0x10a, value)]).unwrap();
        host
    };
    assert_eq!(names(&guest, &with(value)), [""; 0]);
    assert_eq!(names(&guest, &with(value & !1)), ["rdctl-no"]);
    assert_eq!(names(&guest, &with(value | 1 << 2)), ["rsba"]);
    assert_eq!(names(&guest, &with(value | 1 << 24)), [""; 0]);
    let mut silent = guest;
    silent.processor.msrs = MsrTable::default();
    let found = judge(&silent, &with(value)).mismatches;
    assert_eq!(found[0].kind, MismatchKind::NotStated);
}

#[test]
fn nested_capabilities_count_only_when_the_guest_sees_them() {
    let vmx = MsrTable::new(vec![(0x485, 7)]).unwrap();
    let mut plain = MILAN.guest();
    plain.processor.msrs = vmx;
    assert_eq!(names(&plain, &MILAN.host()), [""; 0]);
    let mut everything = guest_with_everything();
    let host = host_like(&everything);
    everything.processor.msrs =
        MsrTable::new(vec![(0xcf, 0), (0x10a, 0), (0x345, 0), (0x485, 7)]).unwrap();
    assert_eq!(
        names(&everything, &host),
        ["vmx-misc.preemption-timer-rate"]
    );
}

#[test]
fn the_tsc_is_equal_or_scaled() {
    let guest = MILAN.guest();
    let with = |tsc_khz: u32, tsc_scaling: TscScaling| HostCpu {
        tsc_khz,
        tsc_scaling,
        ..MILAN.host()
    };
    assert_eq!(names(&guest, &with(2_650_600, TscScaling::No)), [""; 0]);
    assert_eq!(
        names(&guest, &with(2_651_000, TscScaling::No)),
        ["tsc-frequency"]
    );
    assert_eq!(names(&guest, &with(3_000_000, TscScaling::Yes)), [""; 0]);
    let silent = GuestCpu {
        tsc_khz: 0,
        ..guest
    };
    let found = judge(&silent, &with(3_000_000, TscScaling::Yes)).mismatches;
    assert_eq!(found[0].kind, MismatchKind::NotStated);
    assert_eq!(names(&silent, &with(0, TscScaling::No)), [""; 0]);
}

#[test]
fn a_mismatch_reads_as_one_line_with_a_remedy() {
    let guest = GENOA.guest();
    for mismatch in judge(&guest, &MILAN.host()).mismatches {
        assert!(!mismatch.to_string().contains('\n'));
        assert!(mismatch.remedy.len() > 10 && !mismatch.remedy.contains("  "));
    }
    let first = judge(&guest, &MILAN.host()).mismatches[0].to_string();
    let expected = "max-subleaf (CPUID 0x7.0 eax, numeric minimum): more than the host has \
                    (guest 0x1, host 0x0)";
    assert_eq!(first, expected);
}

fn any_entry() -> impl Strategy<Value = CpuidEntry> {
    let leaf = prop_oneof![
        0_u32..0x30,
        0x4000_0000..0x4000_0012_u32,
        0x8000_0000..0x8000_0023_u32
    ];
    (leaf, 0_u32..4, any::<[u32; 4]>()).prop_map(|(leaf, subleaf, [eax, ebx, ecx, edx])| {
        CpuidEntry {
            leaf,
            subleaf,
            eax,
            ebx,
            ecx,
            edx,
        }
    })
}

fn any_table() -> impl Strategy<Value = CpuidTable> {
    prop::collection::vec(any_entry(), 0..120).prop_map(|mut entries| {
        entries.push(intel_leaf_0());
        entries.reverse();
        let mut seen = std::collections::BTreeSet::new();
        entries.retain(|entry| seen.insert((entry.leaf, entry.subleaf)));
        CpuidTable::new(entries).unwrap()
    })
}

fn any_guest() -> impl Strategy<Value = GuestCpu> {
    let msrs = prop::collection::btree_map(any::<u32>(), any::<u64>(), 0..20);
    (any_table(), msrs, any::<u64>(), any::<u32>()).prop_map(|(table, mut msrs, caps, tsc_khz)| {
        msrs.insert(0x10a, caps);
        let msrs = MsrTable::new(msrs.into_iter().collect()).unwrap();
        GuestCpu {
            processor: Processor { cpuid: table, msrs },
            tsc_khz,
            vcpu_count: 1,
            baseline: "off".into(),
        }
    })
}

/// The bit that shows a guest the register of its processor's promises.
const ARCH_CAPABILITIES: Place = Place::Cpuid {
    leaf: 7,
    subleaf: 0,
    register: Register::Edx,
    bit: Some(29),
};

/// Found by chance: a host that has lost the bit which shows a register.
#[test]
fn a_register_that_is_no_longer_shown_is_missed_with_all_that_it_promised() {
    let entry = intel_leaf_0();
    let guest = |bit: u32| GuestCpu {
        processor: Processor {
            cpuid: changed(&CpuidTable::new(vec![entry]).unwrap(), 7, 0, |entry| {
                entry.edx |= bit << 29;
            }),
            msrs: MsrTable::new(vec![(0x10a, 1)]).unwrap(),
        },
        tsc_khz: 0,
        vcpu_count: 1,
        baseline: "off".into(),
    };
    let host = host_like(&guest(0));
    let found = judge(&guest(1), &host).mismatches;
    let places: Vec<_> = found.iter().map(|mismatch| mismatch.place).collect();
    let promise = Place::Msr {
        index: 0x10a,
        bit: Some(0),
    };
    assert_eq!(places, [ARCH_CAPABILITIES, promise]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("seeds")
    ))]

    #[test]
    fn an_equal_host_always_fits(guest in any_guest()) {
        prop_assert_eq!(judge(&guest, &host_like(&guest)).mismatches, []);
    }

    #[test]
    fn any_two_are_judged_in_order_and_without_panic(guest in any_guest(), other in any_guest()) {
        let found = judge(&guest, &host_like(&other)).mismatches;
        prop_assert!(found.is_sorted_by_key(|mismatch| mismatch.place));
    }

    #[test]
    fn a_promised_bit_is_never_lost(
        guest in any_guest(),
        word in prop::sample::select(needed().collect::<Vec<_>>()),
        bit in 0_u8..32,
    ) {
        // In a register of features, taking a bit that the guest sees from the host is refused by
        // that bit alone, named or not, unless its row says that it is the guest's own or a lack.
        let (leaf, subleaf, register) = (word.leaf, word.subleaf, word.register);
        let give = |entry: &mut CpuidEntry| *entry.register_mut(register) |= 1 << bit;
        let take = |entry: &mut CpuidEntry| *entry.register_mut(register) &= !(1 << bit);
        let guest = with_cpuid(&guest, changed(&guest.processor.cpuid, leaf, subleaf, give));
        let mut host = host_like(&guest);
        host.accept.cpuid = changed(&host.accept.cpuid, leaf, subleaf, take);
        let fields = limosa_compat::cpuid_word(leaf, subleaf, register).unwrap().fields;
        let row = fields.iter().find(|field| field.mask() >> bit & 1 == 1);
        prop_assume!(row.is_none_or(|row| row.bits == 1));
        let kind = row.map(|row| row.kind);
        let relied_on = match kind {
            None => true,
            Some(Kind::Feature | Kind::NumericEqual | Kind::Inverse(Inverse::Mitigation)) => true,
            Some(_) => false,
        };
        let Judgement { mismatches, warnings, .. } = judge(&guest, &host);
        let place = Place::Cpuid { leaf, subleaf, register, bit: Some(bit) };
        let (of_the_bit, others): (Vec<_>, Vec<_>) =
            mismatches.iter().chain(warnings.iter().map(|warning| &warning.mismatch))
                .partition(|found| found.place == place);
        prop_assert_eq!(of_the_bit.len(), usize::from(relied_on), "{:?}", others);
        // The host that lost the bit which shows a register has lost the register's promises too.
        let shows_register = place == ARCH_CAPABILITIES;
        let in_register =
            |found: &&Mismatch| matches!(found.place, Place::Msr { index: 0x10a, .. });
        let follows = others.iter().all(|found| shows_register && in_register(found));
        prop_assert!(follows, "{:?}", others);
    }
}
