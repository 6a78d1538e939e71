//! The small rooms: work lists, the buffer pool, and the rules of the classifier.

mod common;

use std::time::Duration;

use common::{TestError, TestMemory, corridor, map_of, no_rearm, noise};
use limosa_pages::{ChunkIndex, PAGE_BYTES, PageIndex, PageSet};
use limosa_pipeline::classify::Classifier;
use limosa_pipeline::{
    BufferPool, ChunkWork, Codec, FrameBuf, GuestMemory, PackConfig, PackError, scan,
};
use limosa_wire::{EncodingSet, PageEncoding, Round, StreamIndex};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

proptest! {
    #![proptest_config(ProptestConfig::with_failure_persistence(
        FileFailurePersistence::WithSource("seeds")
    ))]

    #[test]
    fn scan_gives_every_page_to_its_owner_once(
        picked in prop::collection::vec((0..40_000_u64, 1..900_u64), 0..20),
        stream_count in 1..=64_u16,
    ) {
        let map = map_of(&[(3, 10_000), (10_003, 77), (20_000, 15_000)]);
        let mut pages = PageSet::new(PageIndex::new(40_000));
        picked.iter().for_each(|(first, count)| pages.insert_range(common::range(*first, *count)));
        let work = scan(&pages, &map, stream_count);
        prop_assert_eq!(work.len(), usize::from(stream_count));
        let mut found = PageSet::new(PageIndex::new(40_000));
        for (stream, list) in work.iter().enumerate() {
            prop_assert!(list.is_sorted_by_key(|work| work.chunk));
            for ChunkWork { chunk, pages } in list {
                prop_assert!(!pages.is_empty());
                let owner = StreamIndex::of_chunk(*chunk, stream_count);
                prop_assert_eq!(usize::from(owner.get()), stream);
                prop_assert!(found.chunk(*chunk).is_empty());
                found.insert_chunk(*chunk, pages);
            }
        }
        pages.intersect(&map.full_set());
        prop_assert_eq!(found.words(), pages.words());
    }
}

#[test]
fn a_set_that_ends_before_the_map_or_behind_it() {
    let map = map_of(&[(0, 1000)]);
    for bound in [0, 1, 511, 1000, 5000] {
        let mut pages = PageSet::new(PageIndex::new(bound));
        pages.insert_range(common::range(0, bound));
        let count: u32 = scan(&pages, &map, 1)[0]
            .iter()
            .map(|work| work.pages.count())
            .sum();
        assert_eq!(u64::from(count), bound.min(1000));
    }
    assert_eq!(scan(&map.full_set(), &map, 0).len(), 1);
    assert_eq!(scan(&map.full_set(), &map, 99).len(), 64);
}

#[test]
fn a_pool_runs_dry_and_fills_up() {
    let config = PackConfig::default().with_frame_payload_bytes(64 << 10);
    let mut pool = BufferPool::new(3, &config);
    assert_eq!((pool.idle_count(), pool.buffer_count()), (3, 3));
    assert!(pool.overhead_bytes() >= 3 * (64 << 10));
    let mut out: Vec<_> = (0..3).map(|_| pool.take().unwrap()).collect();
    assert!(pool.take().is_none());
    pool.give(out.pop().unwrap());
    assert!(pool.take().is_some_and(|buffer| buffer.is_empty()));
    // A buffer of another pool does not enter, nor one more than there are.
    let mut other = BufferPool::new(9, &PackConfig::default());
    pool.give(other.take().unwrap());
    assert_eq!(pool.idle_count(), 0);
    let mut same = BufferPool::new(9, &config);
    (0..9).for_each(|_| pool.give(same.take().unwrap()));
    assert_eq!(pool.idle_count(), 3);
    assert_eq!(BufferPool::new(0, &config).buffer_count(), 1);
}

#[test]
fn a_sink_that_has_no_buffer_ends_the_corridor() {
    let memory = TestMemory::new(&map_of(&[(0, 512)]));
    (0..512).for_each(|page| memory.write(page, &noise(page, PAGE_BYTES)));
    let work = scan(&memory.map().full_set(), memory.map(), 1);
    let config = PackConfig::default();
    let mut pool = BufferPool::new(2, &config);
    let mut on_the_way = Vec::new();
    let mut sink = |buffer: FrameBuf| {
        on_the_way.push(buffer);
        pool.take().ok_or(TestError::Link)
    };
    let mut corridor = corridor(&memory, 0, 1, &config);
    let mut run = |round| corridor.run_round(Round::new(round), &work[0], &mut no_rearm, &mut sink);
    assert!(matches!(run(0), Err(TestError::Link)));
    let again = run(1);
    assert!(
        matches!(again, Err(TestError::Pack(PackError::NoBuffer { .. }))),
        "{again:?}"
    );
    assert_eq!(on_the_way.len(), 3);
    assert!(
        on_the_way
            .iter()
            .all(|buffer| buffer.bytes().starts_with(b"LMSF"))
    );
}

#[test]
fn a_sink_may_not_return_a_full_or_smaller_buffer() {
    let memory = TestMemory::new(&map_of(&[(0, 512)]));
    let work = scan(&memory.map().full_set(), memory.map(), 1);
    let small = PackConfig::default().with_frame_payload_bytes(64 << 10);
    let replies: [fn(FrameBuf, &PackConfig) -> FrameBuf; 2] = [
        |full, _| full,
        |_, small| BufferPool::new(1, small).take().unwrap(),
    ];
    for reply in replies {
        let mut corridor = corridor(&memory, 0, 1, &PackConfig::default());
        let mut sink = |full| Ok::<_, TestError>(reply(full, &small));
        let sent = corridor.run_round(Round::FIRST, &work[0], &mut no_rearm, &mut sink);
        assert!(matches!(
            sent,
            Err(TestError::Pack(PackError::NoBuffer { .. }))
        ));
    }
}

#[test]
fn a_codec_the_target_cannot_read_is_left_out() {
    let readable = EncodingSet::ALL.without(PageEncoding::Lz4);
    assert_eq!(PackConfig::new(Codec::Lz4, readable).codec(), Codec::None);
    assert_eq!(
        PackConfig::new(Codec::Auto, EncodingSet::ALL).codec(),
        Codec::Auto
    );
    let bytes = |bytes| {
        PackConfig::default()
            .with_frame_payload_bytes(bytes)
            .frame_payload_bytes()
    };
    assert_eq!(
        [bytes(0), bytes(70_000), bytes(usize::MAX)],
        [65_536, 69_632, 1 << 20]
    );
}

#[test]
fn samples_that_do_not_shrink_are_taken_less_often() {
    let mut classifier = Classifier::new(Codec::Lz4);
    let mut gaps = Vec::new();
    let mut gap = 0;
    while gaps.len() < 8 {
        if classifier.wants_sample() {
            gaps.push(gap);
            gap = 0;
            assert!(!classifier.judge_sample(PAGE_BYTES));
        } else {
            gap += 1;
        }
    }
    assert_eq!(gaps, [0, 1, 3, 7, 15, 31, 31, 31]);
    while !classifier.wants_sample() {}
    assert!(classifier.judge_sample(100));
    assert!(classifier.wants_sample());
}

#[test]
fn auto_encodes_only_where_the_link_makes_the_thread_wait() {
    let mut classifier = Classifier::new(Codec::Auto);
    assert!(
        !classifier.wants_sample(),
        "nothing is known of the link yet"
    );
    // A link that takes a megabyte in 10 ms: 100 MB/s.
    classifier.sent(1 << 20, Duration::from_millis(10));
    assert!(classifier.wants_sample());
    classifier.encoded(1 << 20, Duration::from_millis(1));
    assert!(classifier.judge_run(1 << 20, 300_000));
    assert!(classifier.wants_sample());
    // A link that takes it in 100 us.
    (0..64).for_each(|_| classifier.sent(1 << 20, Duration::from_micros(100)));
    assert!(!classifier.wants_sample());
    assert!(!Classifier::new(Codec::None).wants_sample());
}

#[test]
fn a_run_that_hardly_shrinks_stays_raw() {
    let mut classifier = Classifier::new(Codec::Lz4);
    assert!(classifier.judge_run(80, 69));
    assert!(!classifier.judge_run(80, 70));
}

#[test]
fn rearming_comes_before_reading() {
    let memory = TestMemory::new(&map_of(&[(0, 1024)]));
    memory.write(1, &noise(1, PAGE_BYTES));
    let work = scan(&memory.map().full_set(), memory.map(), 1);
    let mut bytes = Vec::new();
    // The guest writes while rearming: what is sent must be what was written then, and a page that
    // was never touched until then must not be said to be absent.
    let mut rearm = |chunk: ChunkIndex, _: &mut _| {
        memory.write(chunk.get() * 512 + 1, &noise(2, PAGE_BYTES));
        Ok::<_, TestError>(())
    };
    let mut corridor = corridor(&memory, 0, 1, &PackConfig::default());
    let sent = corridor.run_round(
        Round::FIRST,
        &work[0],
        &mut rearm,
        &mut common::keep(&mut bytes),
    );
    let sent = sent.unwrap().pages;
    assert_eq!((sent.raw, sent.absent), (2, 1022));
    let fresh = noise(2, PAGE_BYTES);
    assert_eq!(
        bytes
            .windows(PAGE_BYTES)
            .filter(|window| *window == fresh)
            .count(),
        2
    );
}
