//! The small rooms: work lists, the buffer pool, and the rules of the classifier.

mod common;

use std::time::Duration;

use common::{TestError, TestMemory, corridor, map_of, no_rearm, noise};
use limosa_pages::{ChunkIndex, PAGE_BYTES, PageIndex, PageSet};
use limosa_pipeline::classify::{Block, Classifier};
use limosa_pipeline::{
    BufferPool, ChunkOwners, ChunkWork, Codec, FrameBuf, GuestMemory, PackConfig, PackError,
    Shares, ZstdLevel, clear_set, scan, share_out, work_of,
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
                let owner = chunk.get() % u64::from(stream_count);
                prop_assert_eq!(owner, stream as u64);
                prop_assert!(found.chunk(*chunk).is_empty());
                found.insert_chunk(*chunk, pages);
            }
        }
        pages.intersect(&map.full_set());
        prop_assert_eq!(found.words(), pages.words());
    }
}

/// Every page of a round is some stream's, once: the owner's, or of one that takes it.
#[test]
fn shares_are_by_owner_and_the_rest_is_free() {
    let map = map_of(&[(3, 10_000), (10_003, 77), (20_000, 15_000)]);
    let owners = ChunkOwners::new(&map, 3);
    let all = map.full_set();
    let Shares { owned, free } = share_out(&all, &map, &owners);
    assert_eq!(owned, vec![Vec::new(); 3]);
    let chunk_count = free.all().len();
    assert!(free.all().is_sorted() && chunk_count > 40);
    // The stream in the middle is quickest; the last five chunks are left.
    for turn in 0..chunk_count - 5 {
        let chunk = free.take().unwrap();
        let stream = StreamIndex::new([1, 0, 1, 2, 1][turn % 5]);
        assert!(owners.take(chunk, stream, 0).is_some());
    }
    assert_eq!(free.take().as_ref(), free.all().nth(chunk_count - 5));
    let Shares { owned, free } = share_out(&all, &map, &owners);
    let counts: Vec<_> = owned.iter().map(Vec::len).collect();
    assert_eq!(counts.iter().sum::<usize>() + 5, chunk_count);
    assert!(
        counts[1] > 2 * counts[0] && counts[0] > 5 && counts[2] > 5,
        "{counts:?}"
    );
    assert!(owned.iter().all(|list| list.is_sorted()));
    let last: Vec<_> = std::iter::from_fn(|| free.take()).collect();
    assert!(last.iter().eq(free.all()));
    assert_eq!(last.len(), 5);
}

/// What many threads make of a set in parts is what one makes of it chunk by chunk.
#[test]
fn shares_of_a_large_guest_are_the_same_on_64_threads() {
    // 80 GiB and more, with regions that end, begin and touch within a chunk, and a hole.
    let regions = [(3, 9_000_000), (9_000_003, 77), (11_000_000, 12_000_000)];
    let map = map_of(&regions);
    let bound = map.end().get() + 5000;
    let owners = ChunkOwners::new(&map, 64);
    let mut pages = PageSet::new(PageIndex::new(bound));
    let mut page = 0;
    for nth in 0..40_000 {
        page = (page + 7919 * (nth + 1)) % bound;
        pages.insert_range(common::range(page, 1 + nth % 3));
        if nth % 3 != 0 {
            let stream = StreamIndex::new((nth % 64) as u16);
            owners.take(PageIndex::new(page).chunk(), stream, 0);
        }
    }
    for (start, count) in regions {
        pages.insert_range(common::range(start + count - 2, 4));
    }
    assert!(pages.part_ranges().len() > 4);

    let (mut owned, mut free) = (vec![Vec::new(); 64], Vec::new());
    let mut work = vec![Vec::new(); 5];
    for (chunk, _) in pages.chunks() {
        if let Some(of_chunk) = work_of(chunk, &pages, &map) {
            let owner = owners.of(chunk).map(|it| usize::from(it.get()));
            owner
                .map_or(&mut free, |owner| &mut owned[owner])
                .push(chunk);
            work[chunk.get() as usize % 5].push(of_chunk);
        }
    }
    assert!(free.len() > 1000 && owned.iter().all(|list| list.len() > 100));
    let threads = rayon::ThreadPoolBuilder::new().num_threads(64);
    threads.build().unwrap().install(|| {
        let shares = share_out(&pages, &map, &owners);
        assert!(shares.owned == owned && shares.free.all().eq(&free));
        let taken: Vec<_> = std::iter::from_fn(|| shares.free.take()).collect();
        assert_eq!(taken, free);
        assert_eq!(scan(&pages, &map, 5), work);
        clear_set(&mut pages);
    });
    assert!(pages.is_empty() && pages.words().iter().all(|word| *word == 0));
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
    let zstd = Codec::Zstd(ZstdLevel::MAX);
    for (codec, encoding) in [
        (Codec::Lz4, PageEncoding::Lz4),
        (zstd, PageEncoding::Zstd),
        (Codec::Delta, PageEncoding::Delta),
    ] {
        let readable = EncodingSet::ALL.without(encoding);
        assert_eq!(PackConfig::new(codec, readable).codec(), Codec::None);
        for other in [Codec::Auto, codec] {
            let config = PackConfig::new(other, EncodingSet::of(&[encoding]));
            assert_eq!(config.codec(), other);
        }
    }
    let none = PackConfig::new(Codec::Auto, EncodingSet::EMPTY);
    assert_eq!(none.codec(), Codec::None);
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
fn codecs_are_named_as_they_are_shown() {
    for name in ["none", "lz4", "zstd:1", "zstd:4", "delta", "auto"] {
        assert_eq!(name.parse::<Codec>().unwrap().to_string(), name);
    }
    let default = Codec::Zstd(ZstdLevel::default());
    assert_eq!("zstd".parse::<Codec>().unwrap(), default);
    for name in [
        "", "zip", "zstd:", "zstd:0", "zstd:5", "zstd:x", "lz4:1", "LZ4",
    ] {
        let error = name.parse::<Codec>().unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn codecs_of_all_streams_share_what_memory_they_may_take() {
    let map = map_of(&[(0, 512)]);
    for codec in ["none", "lz4", "zstd:4", "delta", "auto"] {
        let codec: Codec = codec.parse().unwrap();
        let config = PackConfig::new(codec, EncodingSet::ALL);
        let lists = corridor(&TestMemory::new(&map), 0, 1, &PackConfig::default());
        for stream_count in [1, 2, 16, 17, 64] {
            let corridor = corridor(&TestMemory::new(&map), 0, stream_count, &config);
            let each = corridor.overhead_bytes() - lists.overhead_bytes();
            let total = each * usize::from(stream_count);
            assert!(
                total <= config.codec_bytes_max(),
                "{codec} on {stream_count} streams takes {total} bytes"
            );
        }
    }
}

#[test]
fn samples_that_do_not_shrink_are_taken_less_often() {
    let mut classifier = Classifier::new(Codec::Lz4, EncodingSet::ALL);
    let mut wants_sample = |judged: Option<usize>| {
        let is_wanted = classifier.next_run(64)[0] == Some(Block::Lz4);
        if is_wanted && judged != Some(0) {
            classifier.sampled(Block::Lz4, PAGE_BYTES, judged, Duration::ZERO);
        }
        is_wanted
    };
    let mut gaps = Vec::new();
    let mut gap = 0;
    while gaps.len() < 8 {
        if wants_sample(None) {
            gaps.push(gap);
            gap = 0;
        } else {
            gap += 1;
        }
    }
    assert_eq!(gaps, [0, 1, 3, 7, 15, 31, 31, 31]);
    while !wants_sample(Some(100)) {}
    assert!(wants_sample(Some(100)) && wants_sample(Some(100)));
    let none = Classifier::new(Codec::None, EncodingSet::ALL).next_run(64);
    assert_eq!(none, [None; 3]);
}

#[test]
fn a_run_that_hardly_shrinks_stays_raw() {
    let mut classifier = Classifier::new(Codec::Lz4, EncodingSet::ALL);
    let mut is_sent = |bytes| classifier.encoded(Block::Lz4, 80, bytes, Duration::ZERO);
    assert!(is_sent(Some(69)));
    assert!(!is_sent(Some(70)) && !is_sent(None));
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
