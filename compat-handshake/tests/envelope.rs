//! The sealed envelope of a guest's processor: round trips, damage, and bytes by chance.

mod common;

use common::{CASCADE_LAKE, GENOA, MILAN, SAPPHIRE_RAPIDS};
use limosa_compat::{
    CPU_ENVELOPE_BYTES_MAX, CPUID_ENTRIES_MAX, CpuDecodeError, CpuidEntry, CpuidTable,
    FEATURE_MSRS_MAX, GuestCpu, HostCpu, MsrTable, Processor, TableError, TscScaling, judge,
};
use limosa_wire::{DecodeFault, checksum};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn any_guest() -> impl Strategy<Value = GuestCpu> {
    let words = any::<[u32; 4]>();
    let entries = prop::collection::btree_map(any::<(u32, u32)>(), words, 0..=CPUID_ENTRIES_MAX);
    let msrs = prop::collection::btree_map(any::<u32>(), any::<u64>(), 0..=FEATURE_MSRS_MAX);
    (entries, msrs, any::<u32>(), any::<u16>()).prop_map(|(entries, msrs, tsc_khz, vcpu_count)| {
        let entry = |((leaf, subleaf), [eax, ebx, ecx, edx]): (_, [u32; 4])| CpuidEntry {
            leaf,
            subleaf,
            eax,
            ebx,
            ecx,
            edx,
        };
        GuestCpu {
            processor: Processor {
                cpuid: CpuidTable::new(entries.into_iter().map(entry).collect()).unwrap(),
                msrs: MsrTable::new(msrs.into_iter().collect()).unwrap(),
            },
            tsc_khz,
            vcpu_count,
            baseline: "off".into(),
        }
    })
}

/// An envelope around any body, sealed as it should be.
fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = b"LMCP\x02\x00".to_vec();
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(checksum(body).to_le_bytes());
    bytes.extend(body);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("seeds")
    ))]

    #[test]
    fn what_was_sealed_can_be_opened(guest in any_guest()) {
        let bytes = guest.encode();
        prop_assert!(bytes.len() <= CPU_ENVELOPE_BYTES_MAX);
        let opened = GuestCpu::decode(&bytes).unwrap();
        prop_assert_eq!(opened.digest(), guest.digest());
        prop_assert_eq!(opened, guest);
    }

    #[test]
    fn a_host_that_was_sealed_can_be_opened(guest in any_guest(), other in any_guest()) {
        let host = HostCpu {
            offer: guest.processor,
            accept: other.processor,
            tsc_khz: guest.tsc_khz,
            tsc_scaling: TscScaling::Yes,
            about: "Linux 6.18".into(),
        };
        let bytes = host.encode();
        prop_assert!(bytes.len() <= CPU_ENVELOPE_BYTES_MAX);
        prop_assert!(HostCpu::decode(&bytes[1..]).is_err());
        prop_assert!(GuestCpu::decode(&bytes).is_err());
        prop_assert_eq!(HostCpu::decode(&bytes).unwrap(), host);
    }

    #[test]
    fn a_changed_byte_is_noticed(
        guest in any_guest(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let mut bytes = guest.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(GuestCpu::decode(&bytes).is_err());
    }

    #[test]
    fn a_missing_or_added_tail_is_noticed(
        guest in any_guest(),
        keep in any::<prop::sample::Index>(),
        tail in 0_u8..,
    ) {
        let mut bytes = guest.encode();
        prop_assert!(GuestCpu::decode(&bytes[..keep.index(bytes.len())]).is_err());
        bytes.push(tail);
        prop_assert!(GuestCpu::decode(&bytes).is_err());
    }

    #[test]
    fn bytes_by_chance_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(GuestCpu::decode(&bytes).is_err());
    }

    #[test]
    fn a_body_by_chance_is_judged_or_refused(body in prop::collection::vec(any::<u8>(), 0..400)) {
        // The seal keeps chance out; a hostile peer can seal what it likes.
        if let Ok(guest) = GuestCpu::decode(&sealed(&body)) {
            prop_assert_eq!(guest.encode(), sealed(&body));
            judge(&guest, &MILAN.host());
        }
    }

    #[test]
    fn a_plausible_body_is_judged_or_refused(
        entries in prop::collection::vec(any::<[u32; 6]>(), 0..4),
        msrs in prop::collection::vec(any::<(u32, u64)>(), 0..4),
    ) {
        let mut body = vec![0; 8];
        body.extend((entries.len() as u16).to_le_bytes());
        body.extend(entries.iter().flatten().flat_map(|word| word.to_le_bytes()));
        body.extend((msrs.len() as u16).to_le_bytes());
        for (index, value) in msrs {
            body.extend(index.to_le_bytes());
            body.extend(value.to_le_bytes());
        }
        match GuestCpu::decode(&sealed(&body)) {
            Ok(guest) => {
                prop_assert_eq!(guest.encode(), sealed(&body));
                judge(&guest, &CASCADE_LAKE.host());
            }
            Err(error) => prop_assert_eq!(error, CpuDecodeError::Unsorted),
        }
    }
}

#[test]
fn real_processors_survive_the_journey_and_differ_in_their_digest() {
    let guests = [CASCADE_LAKE, SAPPHIRE_RAPIDS, MILAN, GENOA].map(|processor| processor.guest());
    for guest in &guests {
        let opened = GuestCpu::decode(&guest.encode()).unwrap();
        assert_eq!(&opened, guest);
        let equals = guests
            .iter()
            .filter(|other| other.digest() == guest.digest());
        assert_eq!(equals.count(), 1);
    }
}

#[test]
fn the_digest_is_the_same_in_every_build() {
    let guest = GuestCpu {
        processor: Processor::default(),
        tsc_khz: 0,
        vcpu_count: 0,
        baseline: String::new(),
    };
    // FNV-1a of twelve zero bytes: the offset basis times the twelfth power of the prime.
    let expected = (0..12).fold(0xcbf2_9ce4_8422_2325_u64, |hash, _| {
        hash.wrapping_mul(0x100_0000_01b3)
    });
    assert_eq!(guest.digest(), expected);
    assert_ne!(
        GuestCpu {
            vcpu_count: 1,
            ..guest.clone()
        }
        .digest(),
        expected
    );
}

#[test]
fn a_newer_or_foreign_envelope_is_refused_by_its_reason() {
    let mut bytes = MILAN.guest().encode();
    bytes[4] = 3;
    assert_eq!(
        GuestCpu::decode(&bytes),
        Err(CpuDecodeError::Version { found: 3 })
    );
    bytes[0] = b'X';
    let Err(CpuDecodeError::Bytes(error)) = GuestCpu::decode(&bytes) else {
        panic!("opened")
    };
    assert!(matches!(error.what, DecodeFault::Magic { .. }));
}

#[test]
fn duplicates_and_disorder_are_refused() {
    let entry = [0_u8; 24];
    let mut body = vec![0; 8];
    body.extend(2_u16.to_le_bytes());
    body.extend(entry);
    body.extend(entry);
    body.extend(0_u16.to_le_bytes());
    let duplicate = TableError::DuplicateLeaf {
        leaf: 0,
        subleaf: 0,
    };
    assert_eq!(
        GuestCpu::decode(&sealed(&body)),
        Err(CpuDecodeError::Table(duplicate))
    );
    // The first of the two entries now answers leaf 1.
    body[10] = 1;
    assert_eq!(
        GuestCpu::decode(&sealed(&body)),
        Err(CpuDecodeError::Unsorted)
    );
}

#[test]
fn tables_are_bounded() {
    let leaf = |leaf| CpuidEntry {
        leaf,
        ..CpuidEntry::default()
    };
    let count = CPUID_ENTRIES_MAX + 1;
    let too_many = Err(TableError::TooMany {
        count,
        max: CPUID_ENTRIES_MAX,
    });
    assert_eq!(
        CpuidTable::new((0..count as u32).map(leaf).collect()),
        too_many
    );
    let count = FEATURE_MSRS_MAX + 1;
    let too_many = Err(TableError::TooMany {
        count,
        max: FEATURE_MSRS_MAX,
    });
    assert_eq!(
        MsrTable::new((0..count as u32).map(|index| (index, 0)).collect()),
        too_many
    );
    let twice = Err(TableError::DuplicateMsr { index: 7 });
    assert_eq!(MsrTable::new(vec![(7, 1), (8, 1), (7, 2)]), twice);
}
