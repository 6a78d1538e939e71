//! What is packed on one side is what lands on the other: random pages, sets, rounds and codecs.

mod common;

use common::{World, map_of, noise, text};
use limosa_pages::{ChunkIndex, ChunkPages, PAGE_BYTES, PageIndex, PageSet};
use limosa_pipeline::{Codec, GuestMemory, PackConfig, Staging};
use limosa_wire::{EncodingSet, PageEncoding};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Regions that touch inside a chunk, a hole inside another, an end inside a third.
const REGIONS: [(u64, u64); 3] = [(0, 300), (300, 500), (1100, 230)];

#[derive(Clone, Copy, Debug)]
enum Fill {
    Zero,
    Text(u64),
    Noise(u64),
    /// Compresses, but too little to be worth it.
    NearlyNoise(u64),
    LastByte,
}

impl Fill {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Zero => vec![0; PAGE_BYTES],
            Self::Text(seed) => text(seed, PAGE_BYTES),
            Self::Noise(seed) => noise(seed, PAGE_BYTES),
            Self::NearlyNoise(seed) => {
                let mut bytes = noise(seed, PAGE_BYTES);
                bytes[..400].fill(3);
                bytes
            }
            Self::LastByte => {
                let mut bytes = vec![0; PAGE_BYTES];
                bytes[PAGE_BYTES - 1] = 1;
                bytes
            }
        }
    }
}

fn fill() -> impl Strategy<Value = Fill> {
    prop_oneof![
        Just(Fill::Zero),
        any::<u64>().prop_map(Fill::Text),
        any::<u64>().prop_map(Fill::Noise),
        any::<u64>().prop_map(Fill::NearlyNoise),
        Just(Fill::LastByte),
    ]
}

/// Runs of pages written alike: where they begin, how long they are, with what.
fn writes() -> impl Strategy<Value = Vec<(u64, u64, Fill)>> {
    prop::collection::vec((0..1330_u64, 1..130_u64, fill()), 0..12)
}

fn config() -> impl Strategy<Value = PackConfig> {
    let codec = prop_oneof![Just(Codec::None), Just(Codec::Lz4), Just(Codec::Auto)];
    let encodings = prop_oneof![
        Just(EncodingSet::ALL),
        Just(EncodingSet::ALL.without(PageEncoding::Absent)),
        Just(EncodingSet::ALL.without(PageEncoding::Lz4)),
        Just(EncodingSet::ALL.without(PageEncoding::Live)),
    ];
    let staging = prop_oneof![Just(Staging::Auto), Just(Staging::Always)];
    (codec, encodings, staging, 0..600_usize).prop_map(|(codec, encodings, staging, kib)| {
        PackConfig::new(codec, encodings)
            .with_staging(staging)
            .with_frame_payload_bytes(kib << 10)
    })
}

fn apply(world: &World, writes: &[(u64, u64, Fill)]) {
    for (first, count, fill) in writes {
        for page in *first..first + count {
            if world.source.map().region_of(PageIndex::new(page)).is_some() {
                world.source.write(page, &fill.bytes());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        ..ProptestConfig::with_failure_persistence(FileFailurePersistence::WithSource("seeds"))
    })]

    #[test]
    fn unpacked_is_what_was_packed(
        rounds in prop::collection::vec(writes(), 1..4),
        config in config(),
        stream_count in 1..5_u16,
    ) {
        let mut world = World::new(&map_of(&REGIONS), stream_count, &config);
        for (round, writes) in rounds.iter().enumerate() {
            apply(&world, writes);
            let dirty = if round == 0 {
                world.source.map().full_set()
            } else {
                world.source.harvest()
            };
            let reports = world.run_round(round as u32, &dirty);
            let pages: u64 = reports.iter().map(|report| report.pages.total()).sum();
            prop_assert_eq!(pages, dirty.count().get());
            prop_assert_eq!(world.source.first_difference(&world.target), None);
            prop_assert_eq!(world.ledger.complete(), Ok(()));
        }
    }

    #[test]
    fn pages_outside_the_set_are_not_sent(
        first in 0..1330_u64,
        count in 1..300_u64,
        config in config(),
    ) {
        let mut world = World::new(&map_of(&REGIONS), 2, &config);
        apply(&world, &[(0, 1330, Fill::Noise(1))]);
        // What rearming finds to be dirty is sent as well: nothing shall be.
        for chunk in 0..3 {
            world.source.rearm(ChunkIndex::new(chunk), &mut ChunkPages::EMPTY.clone());
        }
        let mut some = PageSet::new(PageIndex::new(4096));
        some.insert_range(common::range(first, count));
        world.run_round(0, &some);
        for page in world.source.map().regions().iter().flat_map(|region| region.iter()) {
            let landed = world.target.read(page.get()) != vec![0; PAGE_BYTES];
            prop_assert_eq!(landed, some.contains(page));
        }
    }
}

#[test]
fn lz4_is_used_where_it_pays_and_only_there() {
    let sent = |fill: Fill, codec| {
        let config = PackConfig::new(codec, EncodingSet::ALL);
        let mut world = World::new(&map_of(&[(0, 512)]), 1, &config);
        apply(&world, &[(0, 512, fill)]);
        let reports = world.run_round(0, &world.source.map().full_set());
        assert_eq!(world.source.first_difference(&world.target), None);
        reports[0]
    };
    assert_eq!(sent(Fill::Text(1), Codec::Lz4).pages.lz4, 512);
    assert!(sent(Fill::Text(1), Codec::Lz4).wire_bytes < 64 << 10);
    assert_eq!(sent(Fill::Text(1), Codec::None).pages.raw, 512);
    assert_eq!(sent(Fill::Noise(1), Codec::Lz4).pages.raw, 512);
    assert_eq!(sent(Fill::NearlyNoise(1), Codec::Lz4).pages.raw, 512);
}

/// Long runs go straight out of the guest's memory, short ones through the buffer, and frames of
/// both kinds share buffers.
#[test]
fn long_runs_are_sent_live_where_that_was_agreed() {
    let sent = |encodings, staging| {
        let config = PackConfig::new(Codec::None, encodings).with_staging(staging);
        let mut world = World::new(&map_of(&[(0, 1536)]), 1, &config);
        // A chunk of noise, one with a hole of zeros, one of scattered pages.
        apply(&world, &[(0, 1024, Fill::Noise(1)), (600, 9, Fill::Zero)]);
        let mut pages = PageSet::new(PageIndex::new(1536));
        pages.insert_range(common::range(0, 1024));
        for page in (1024..1536).step_by(20) {
            apply(&world, &[(page, 7, Fill::Noise(page))]);
            pages.insert_range(common::range(page, 7));
        }
        let reports = world.run_round(0, &pages);
        assert_eq!(world.source.first_difference(&world.target), None);
        assert_eq!(reports[0].pages.total(), pages.count().get());
        reports[0]
    };
    let live = sent(EncodingSet::ALL, Staging::Auto);
    assert_eq!(live.pages.live, 1024 - 9, "{live:?}");
    assert_eq!(live.pages.raw, 26 * 7, "{live:?}");
    for (encodings, staging) in [
        (EncodingSet::ALL, Staging::Always),
        (EncodingSet::ALL.without(PageEncoding::Live), Staging::Auto),
        (EncodingSet::ALL.without(PageEncoding::Live), Staging::Never),
    ] {
        assert_eq!(sent(encodings, staging).pages.live, 0);
    }
}
