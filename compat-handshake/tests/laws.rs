//! Laws of pools and of judging, on every processor of the files and on lesser ones made of them:
//! features, answers and registers taken away at random, lacks added, numbers made smaller.

mod common;

use std::sync::LazyLock;

use common::fixtures::{Known, all, judged, refusals};
use limosa_compat::{
    ARCH_CAPABILITIES, CpuidTable, Kind, Mode, MsrTable, Place, Processor, Register, Registers,
    ShapeError, baseline, has, intersect, shape, words,
};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

/// The processors of the files whose maker is known.
static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let mut known = all();
    known.retain(|known| known.processor.vendor().is_ok());
    known
});

/// What is taken from a processor.
#[derive(Clone, Debug)]
struct Less {
    features: Vec<&'static str>,
    lacks: Vec<&'static str>,
    answers: Vec<Index>,
    highest_leaf: u32,
    phys_bits: u32,
    capabilities: u64,
    lacking: u64,
    stated: bool,
}

/// A feature of CPUID: its name, leaf and subleaf, register and mask.
type Spot = (&'static str, (u32, u32), Register, u32);

/// Where each feature stands; state is the processor's to enable, and not taken alone.
static SPOTS: LazyLock<Vec<Spot>> = LazyLock::new(|| spots(|kind| kind == Kind::Feature));

/// Where each lack stands of which CPUID tells.
static LACKS: LazyLock<Vec<Spot>> =
    LazyLock::new(|| spots(|kind| matches!(kind, Kind::Inverse(_))));

/// Lacks, and what clears a leak, in IA32_ARCH_CAPABILITIES: rsba, rrsba, fb-clear, rfds-clear.
const LACKS_IN_CAPABILITIES: u64 = 1 << 2 | 1 << 19 | 1 << 17 | 1 << 28;

fn spots(wanted: impl Fn(Kind) -> bool) -> Vec<Spot> {
    let mut spots = Vec::new();
    for word in words() {
        if let Registers::Cpuid {
            leaves,
            subleaves,
            registers,
        } = word.registers
        {
            let fields = word.fields.iter();
            let features = fields.filter(|field| field.bits == 1 && wanted(field.kind));
            let features = features.filter(|field| !field.name.starts_with("xcr0."));
            spots.extend(features.map(|field| {
                let question = (leaves.0, subleaves.0);
                (field.name, question, registers[0], 1 << field.low)
            }));
        }
    }
    spots
}

fn any_less() -> impl Strategy<Value = Less> {
    let names: Vec<_> = SPOTS.iter().map(|spot| spot.0).collect();
    // Few or many: a pool of hosts that have next to nothing in common shows little.
    let features = prop_oneof![
        subsequence(names.clone(), 0..5),
        subsequence(names.clone(), 0..names.len() / 3),
    ];
    let lacks = subsequence(LACKS.iter().map(|spot| spot.0).collect::<Vec<_>>(), 0..4);
    let answers = prop::collection::vec(any::<Index>(), 0..3);
    let numbers = (select(vec![0x7, 0xb, 0xd, 0x1f, 0x24]), 36_u32..=52);
    let msr = (any::<u64>(), any::<u64>(), prop::bool::weighted(0.9));
    let bits = (features, lacks);
    (bits, answers, numbers, msr).prop_map(|((features, lacks), answers, numbers, msr)| Less {
        features,
        lacks,
        answers,
        highest_leaf: numbers.0,
        phys_bits: numbers.1,
        capabilities: msr.0,
        lacking: msr.1 & LACKS_IN_CAPABILITIES,
        stated: msr.2,
    })
}

fn without(of: &Processor, less: &Less) -> Processor {
    let mut entries = of.cpuid.entries().to_vec();
    let taken: Vec<_> = less
        .answers
        .iter()
        .map(|at| at.index(entries.len()))
        .collect();
    for (at, entry) in entries.iter_mut().enumerate() {
        // An answer that is taken answers zero; who made the processor, and its signature, stay.
        let stays = matches!(entry.leaf, 0 | 1 | 0x8000_0000 | 0x4000_0000);
        if taken.contains(&at) && !stays && (entry.leaf, entry.subleaf) != (0xd, 0) {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        for (name, question, register, mask) in &*SPOTS {
            if *question == (entry.leaf, entry.subleaf) && less.features.contains(name) {
                *entry.register_mut(*register) &= !mask;
            }
        }
        for (name, question, register, mask) in &*LACKS {
            if *question == (entry.leaf, entry.subleaf) && less.lacks.contains(name) {
                *entry.register_mut(*register) |= mask;
            }
        }
        match entry.leaf {
            0 => entry.eax = entry.eax.min(less.highest_leaf),
            0x8000_0008 => entry.eax = entry.eax & !0xff | (entry.eax & 0xff).min(less.phys_bits),
            _ => {}
        }
    }
    let mut msrs = of.msrs.values().to_vec();
    for (index, value) in &mut msrs {
        *value &= less.capabilities;
        if *index == ARCH_CAPABILITIES {
            *value |= less.lacking;
        }
    }
    msrs.retain(|_| less.stated);
    Processor {
        cpuid: CpuidTable::new(entries).unwrap(),
        msrs: MsrTable::new(msrs).unwrap(),
    }
}

/// A pool of hosts of one maker.
fn any_pool(most: usize) -> impl Strategy<Value = Vec<Processor>> {
    let member = (any::<Index>(), any_less());
    (any::<Index>(), prop::collection::vec(member, 1..=most)).prop_map(|(maker, members)| {
        let maker = maker.get(&KNOWN).processor.vendor();
        let of_maker: Vec<_> = KNOWN
            .iter()
            .filter(|known| known.processor.vendor() == maker)
            .collect();
        let of = |(at, less): &(Index, Less)| without(&at.get(&of_maker).processor, less);
        members.iter().map(of).collect()
    })
}

fn common_of(pool: &[Processor]) -> Processor {
    baseline(Mode::Common, pool).unwrap().processor
}

proptest! {
    #![proptest_config(ProptestConfig {
        // Failing processors are far too long to keep; what they show becomes a named case.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_a_pool_has_in_common_fits_each_member(pool in any_pool(4)) {
        let common = common_of(&pool);
        for member in &pool {
            prop_assert_eq!(refusals(&common, member), Vec::<String>::new());
        }
    }

    #[test]
    fn a_common_processor_has_itself_in_common(pool in any_pool(3)) {
        let common = common_of(&pool);
        prop_assert_eq!(&common_of(std::slice::from_ref(&common)), &common);
        let mut more = pool;
        more.push(common.clone());
        prop_assert_eq!(&common_of(&more), &common);
    }

    #[test]
    fn the_order_of_a_pool_is_of_no_consequence(
        (pool, shuffled) in any_pool(4)
            .prop_flat_map(|pool| (Just(pool.clone()), Just(pool).prop_shuffle())),
    ) {
        prop_assert_eq!(common_of(&pool), common_of(&shuffled));
        prop_assert_eq!(intersect(&pool), intersect(&shuffled));
    }

    #[test]
    fn a_bigger_pool_has_no_more_in_common(pool in any_pool(4)) {
        let whole = common_of(&pool);
        for count in 1..pool.len() {
            prop_assert_eq!(refusals(&whole, &common_of(&pool[..count])), Vec::<String>::new());
        }
    }

    #[test]
    fn a_guest_of_everything_here_fits_here(pool in any_pool(1)) {
        let given = shape(Mode::Off, &pool[0], &[]).unwrap().processor;
        let found = judged(&given, &pool[0]).mismatches;
        // A host that shows the register must state it.
        let unstated = has(&pool[0], "arch-capabilities")
            && pool[0].msrs.get(ARCH_CAPABILITIES).is_none();
        prop_assert_eq!(found.len(), usize::from(unstated), "{:?}", found);
    }

    #[test]
    fn every_refusal_has_a_name_a_place_and_a_remedy_that_works(pool in any_pool(2)) {
        let (here, there) = (&pool[0], &pool[pool.len() - 1]);
        let judgement = judged(here, there);
        let warnings = judgement.warnings.iter().map(|warning| &warning.mismatch);
        for mismatch in judgement.mismatches.iter().chain(warnings) {
            prop_assert!(!mismatch.name.is_empty() && !mismatch.remedy.is_empty());
            prop_assert!(mismatch.guest != mismatch.host || mismatch.host == 0);
            let line = mismatch.to_string();
            prop_assert!(!line.contains('\n') && line.starts_with(&*mismatch.name), "{line}");
            prop_assert!(mismatch.place != Place::Vendor && mismatch.place != Place::Tsc);
        }
        for warning in &judgement.warnings {
            prop_assert!(!warning.forgiven.is_empty());
        }
        // "Power the guest off and start it in mode `common` of both hosts."
        let again = shape(Mode::Common, here, std::slice::from_ref(there)).unwrap().processor;
        prop_assert_eq!(refusals(&again, here), Vec::<String>::new());
        prop_assert_eq!(refusals(&again, there), Vec::<String>::new());
    }

    #[test]
    fn a_guest_that_fits_sees_nothing_that_its_host_lacks(pool in any_pool(2)) {
        let (guest, host) = (&pool[0], &pool[pool.len() - 1]);
        if judged(guest, host).fits() {
            for (name, ..) in &*SPOTS {
                prop_assert!(!has(guest, name) || has(host, name), "{name}");
            }
        }
    }

    #[test]
    fn a_fixed_baseline_shows_all_that_it_names_and_fits_its_pool(
        pool in any_pool(3),
        at in any::<Index>(),
    ) {
        let fixed = at.get(limosa_compat::baselines());
        let shaped = match baseline(Mode::Named(fixed), &pool) {
            Ok(shaped) => shaped,
            Err(ShapeError::Lacks { lacks, .. }) => {
                for lack in lacks {
                    let alone = intersect(&pool[lack.host..=lack.host]).unwrap();
                    prop_assert!(!lack.features.is_empty());
                    for name in lack.features {
                        prop_assert!(fixed.features().contains(&name) && !has(&alone, name));
                    }
                }
                return Ok(());
            }
            Err(ShapeError::OtherVendor { wanted, .. }) => {
                prop_assert_ne!(pool[0].vendor(), Ok(wanted));
                return Ok(());
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        };
        for name in fixed.features() {
            prop_assert!(has(&shaped.processor, name), "{}: {name}", fixed.name());
        }
        for member in &pool {
            prop_assert_eq!(refusals(&shaped.processor, member), Vec::<String>::new());
        }
    }
}
