//! What is packed on one side is what lands on the other: random pages, sets, rounds and codecs.

mod common;

use common::{World, map_of, noise, text};
use limosa_pages::{ChunkIndex, ChunkPages, PAGE_BYTES, PageIndex, PageSet};
use limosa_pipeline::{Codec, GuestMemory, PackConfig, Staging, StreamReport, ZstdLevel};
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
    /// One word over and over; of noise, all but one word.
    Constant(u64),
    NearlyConstant(u64),
    /// Noise of which one word is another one.
    Touched(u64),
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
            Self::Constant(seed) => (seed | 1).to_le_bytes().repeat(PAGE_BYTES / 8),
            Self::NearlyConstant(seed) => {
                let mut bytes = Self::Constant(seed).bytes();
                bytes[PAGE_BYTES - 9] ^= 1;
                bytes
            }
            Self::Touched(seed) => {
                let mut bytes = noise(1, PAGE_BYTES);
                bytes[seed as usize % PAGE_BYTES] = 5;
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
        (0..3_u64).prop_map(Fill::Constant),
        (0..3_u64).prop_map(Fill::NearlyConstant),
        any::<u64>().prop_map(Fill::Touched),
        any::<u64>().prop_map(Fill::Touched),
    ]
}

/// Runs of pages written alike: where they begin, how long they are, with what.
fn writes() -> impl Strategy<Value = Vec<(u64, u64, Fill)>> {
    prop::collection::vec((0..1330_u64, 1..130_u64, fill()), 0..12)
}

fn config() -> impl Strategy<Value = PackConfig> {
    let names = ["none", "lz4", "zstd:1", "zstd:4", "delta", "auto"];
    let codec = prop::sample::select(names.to_vec()).prop_map(|name| name.parse().unwrap());
    let encodings = prop_oneof![
        Just(EncodingSet::ALL),
        Just(EncodingSet::ALL.without(PageEncoding::Absent)),
        Just(EncodingSet::ALL.without(PageEncoding::Lz4)),
        Just(EncodingSet::ALL.without(PageEncoding::Live)),
        Just(EncodingSet::ALL.without(PageEncoding::Zstd)),
        Just(EncodingSet::ALL.without(PageEncoding::Delta)),
        Just(EncodingSet::ALL.without(PageEncoding::Constant)),
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
        rounds in prop::collection::vec(writes(), 1..6),
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
fn blocks_are_used_where_they_shrink_and_only_there() {
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
    let zstd = |level| Codec::Zstd(ZstdLevel::new(level).unwrap());
    assert_eq!(sent(Fill::Text(1), zstd(1)).pages.zstd, 512);
    assert!(sent(Fill::Text(1), zstd(4)).wire_bytes < 32 << 10);
    assert_eq!(sent(Fill::Noise(1), zstd(2)).pages.raw, 512);
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

/// A run that a border of regions divides is lifted though it looked long enough to stay where it
/// is, and needs a record more, in buffers that are full to any byte.
#[test]
fn a_run_over_a_border_fits_whatever_is_left_of_the_buffer() {
    let config = PackConfig::new(Codec::None, EncodingSet::ALL)
        .with_staging(Staging::Auto)
        .with_frame_payload_bytes(PackConfig::FRAME_PAYLOAD_BYTES_MIN);
    let map = map_of(&[(0, 1124), (1124, 400)]);
    for live_count in 100..127 {
        let mut world = World::new(&map, 1, &config);
        let mut pages = PageSet::new(PageIndex::new(1536));
        apply(&world, &[(0, 1, Fill::Noise(1))]);
        pages.insert(PageIndex::new(0));
        // Of this run nothing is in the buffer but a record for each page.
        let run = 512..513 + 2 * live_count;
        pages.insert_range(common::range(run.start, run.end - run.start));
        for page in run {
            let fill = [Fill::Zero, Fill::Noise(page)][page as usize % 2];
            apply(&world, &[(page, 1, fill)]);
        }
        apply(&world, &[(1117, 14, Fill::Noise(99))]);
        pages.insert_range(common::range(1117, 14));
        let sent = world.run_round(0, &pages)[0].pages;
        assert_eq!(world.source.first_difference(&world.target), None);
        assert_eq!((sent.raw, sent.live), (15, live_count), "{sent:?}");
        assert_eq!(sent.zero, live_count + 1);
    }
}

/// What is known of a page says nothing once it went out of the guest's memory as it was.
#[test]
fn a_page_that_was_sent_live_between_is_no_base() {
    let config = PackConfig::new(Codec::Delta, EncodingSet::ALL).with_staging(Staging::Auto);
    let mut world = World::new(&map_of(&[(0, 512)]), 1, &config);
    apply(&world, &[(0, 512, Fill::Noise(1))]);
    let all = world.source.map().full_set();
    assert_eq!(world.run_round(0, &all)[0].pages.live, 512);
    let mut reports = vec![];
    for round in 1..=3 {
        (0..512).for_each(|page| world.source.write(page, &touched(page, round)));
        reports.extend(world.run_round(round, &all));
        assert_eq!(world.source.first_difference(&world.target), None);
    }
    let each = reports
        .iter()
        .map(|sent| (sent.pages.raw, sent.pages.delta));
    assert_eq!(each.collect::<Vec<_>>(), [(512, 0), (0, 512), (0, 512)]);
}

/// Where encoding can't pay, nothing is copied but what is looked at.
#[test]
fn pages_go_live_where_auto_wants_no_encoding() {
    let config = PackConfig::new(Codec::Auto, EncodingSet::ALL).with_staging(Staging::Auto);
    let mut world = World::new(&map_of(&[(0, 512)]), 1, &config);
    apply(&world, &[(0, 512, Fill::Text(1)), (10, 20, Fill::Zero)]);
    let reports = world.run_round(0, &world.source.map().full_set());
    assert_eq!(world.source.first_difference(&world.target), None);
    // Nothing is known of the link before the first measurement.
    let pages = reports[0].pages;
    assert_eq!((pages.live, pages.zero), (492, 20), "{pages:?}");
}

/// A world of one stream that has sent noise, and then in each round what `write` made of it.
fn rounds_of(codec: Codec, rounds: u32, write: impl Fn(&World, u32)) -> Vec<StreamReport> {
    let config = PackConfig::new(codec, EncodingSet::ALL);
    let mut world = World::new(&map_of(&[(0, 512)]), 1, &config);
    for page in 0..512 {
        world.source.write(page, &noise(page + 1, PAGE_BYTES));
    }
    let mut reports = world.run_round(0, &world.source.map().full_set());
    for round in 1..=rounds {
        write(&world, round);
        reports.extend(world.run_round(round, &world.source.harvest()));
        assert_eq!(world.source.first_difference(&world.target), None);
    }
    reports
}

/// The page, with one byte that differs from round to round.
fn touched(page: u64, round: u32) -> Vec<u8> {
    let mut bytes = noise(page + 1, PAGE_BYTES);
    bytes[100] = round as u8;
    bytes
}

#[test]
fn what_is_sent_for_the_third_time_is_sent_as_a_delta() {
    let reports = rounds_of(Codec::Delta, 3, |world, round| {
        (0..512).for_each(|page| world.source.write(page, &touched(page, round)));
    });
    // The second time is the first that says that a page is written again and again.
    assert_eq!(reports[1].pages.raw, 512);
    assert_eq!(reports[2].pages.delta, 512);
    assert_eq!(reports[3].pages.delta, 512);
    assert!(reports[3].wire_bytes < 512 * 40, "{:?}", reports[3]);
}

#[test]
fn a_page_that_went_in_another_way_between_is_no_base() {
    let reports = rounds_of(Codec::Delta, 7, |world, round| {
        let page = |page: u64| match (page % 4, round) {
            (0, 3 | 5) => vec![0; PAGE_BYTES],
            (1, 3 | 5) => vec![9; PAGE_BYTES],
            // Noise of another seed: its delta is longer than half of it.
            (2, 3 | 5) => noise(1000 + page + u64::from(round), PAGE_BYTES),
            _ => touched(page, round),
        };
        (0..512).for_each(|number| world.source.write(number, &page(number)));
    });
    let pages = |round: usize| reports[round].pages;
    assert_eq!(pages(2).delta, 512);
    let between = pages(3);
    assert_eq!(
        (between.zero, between.constant, between.raw, between.delta),
        (128, 128, 128, 128)
    );
    // Those that were zero or constant are known no more; of the others the versions are too
    // unlike.
    assert_eq!((pages(4).raw, pages(4).delta), (384, 128));
    assert_eq!((pages(7).raw, pages(7).delta), (0, 512));
}

#[test]
fn a_page_that_is_written_with_what_it_had_takes_next_to_nothing() {
    let reports = rounds_of(Codec::Delta, 3, |world, _| {
        (0..512).for_each(|page| world.source.write(page, &touched(page, 1)));
    });
    assert_eq!(reports[2].pages.delta, 512);
    assert!(reports[2].wire_bytes < 512 * 24, "{:?}", reports[2]);
}

#[test]
fn pages_of_one_word_take_no_room_whatever_the_codec() {
    for name in ["none", "lz4", "zstd", "delta", "auto"] {
        let config = PackConfig::new(name.parse().unwrap(), EncodingSet::ALL);
        let mut world = World::new(&map_of(&[(0, 512)]), 1, &config);
        apply(
            &world,
            &[
                (0, 512, Fill::Constant(4)),
                (100, 3, Fill::NearlyConstant(4)),
            ],
        );
        let reports = world.run_round(0, &world.source.map().full_set());
        assert_eq!(world.source.first_difference(&world.target), None);
        assert_eq!(reports[0].pages.constant, 509, "{name}");
        assert!(reports[0].wire_bytes < 4 * PAGE_BYTES as u64, "{name}");
    }
}
