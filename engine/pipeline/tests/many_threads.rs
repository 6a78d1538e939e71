//! As many streams as there can be, on many more threads than processors: what is packed is what
//! lands. How fast that is, is not asked here.

mod common;

use common::{TestError, TestMemory, Wire, corridor, keep, lander, map_of, noise, text};
use limosa_pages::{ChunkIndex, ChunkPages, MemoryMap, PAGE_BYTES, PageSet};
use limosa_pipeline::{Codec, Landed, Ledger, PackConfig, StreamReport, ZstdLevel, scan};
use limosa_wire::{EncodingCounts, EncodingSet, Round, STREAMS_MAX};
use rayon::ThreadPool;
use rayon::prelude::*;

/// Two chunks for each stream, and a region that ends inside one.
const CHUNK_COUNT: u64 = 2 * STREAMS_MAX as u64;
const PAGE_COUNT: u64 = CHUNK_COUNT * 512 - 100;

/// One in three pages of a guest, in runs of every kind of content; the rest is never touched.
fn write(memory: &TestMemory, seed: u64) {
    for page in (0..PAGE_COUNT).filter(|page| (page + 13 * seed) % 96 < 32) {
        let bytes = match (page / 8 + seed) % 4 {
            0 => vec![0; PAGE_BYTES],
            1 | 2 => text(page ^ seed, PAGE_BYTES),
            _ => noise(page + (seed << 32), PAGE_BYTES),
        };
        memory.write(page, &bytes);
    }
}

fn pool_of(thread_count: usize) -> ThreadPool {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(thread_count);
    pool.build().unwrap()
}

/// Every stream's corridor as a task of the pool, then every stream's lander.
fn migrate(pool: &ThreadPool, codec: Codec) -> EncodingCounts {
    let map: MemoryMap = map_of(&[(0, PAGE_COUNT)]);
    let (source, target) = (TestMemory::new(&map), TestMemory::new(&map));
    let ledger = std::sync::Arc::new(Ledger::new(&map, STREAMS_MAX));
    let config = PackConfig::new(codec, EncodingSet::ALL);
    let mut streams: Vec<_> = (0..STREAMS_MAX)
        .map(|stream| {
            let corridor = corridor(&source, stream, STREAMS_MAX, &config);
            (corridor, lander(&target, &ledger, stream))
        })
        .collect();
    let mut counts = EncodingCounts::default();
    for round in 0..3 {
        write(&source, round.into());
        let pages: PageSet = if round == 0 {
            map.full_set()
        } else {
            source.harvest()
        };
        let round = Round::new(round);
        let work = pool.install(|| scan(&pages, &map, STREAMS_MAX));
        let sent: Vec<(StreamReport, Vec<u8>)> = pool.install(|| {
            let each = streams.par_iter_mut().zip(&work);
            let send = each.map(|((corridor, _), work)| {
                let mut bytes = Vec::new();
                let mut rearm = |chunk: ChunkIndex, pages: &mut ChunkPages| {
                    source.rearm(chunk, pages);
                    Ok::<_, TestError>(())
                };
                let report = corridor.run_round(round, work, &mut rearm, &mut keep(&mut bytes));
                (report.unwrap(), bytes)
            });
            send.collect()
        });
        pool.install(|| {
            let each = streams.par_iter_mut().zip(&sent);
            each.for_each(|((_, lander), (_, bytes))| {
                let mut wire = Wire(bytes.iter().copied().collect());
                while !matches!(lander.land(&mut wire).unwrap(), Landed::Barrier { .. }) {}
                assert!(wire.0.is_empty());
            });
        });
        let frames: Vec<_> = sent.iter().map(|(report, _)| report.frame_count).collect();
        let of_round: EncodingCounts = sent.iter().map(|(report, _)| report.pages).sum();
        ledger.confirm(round, &frames, of_round.total()).unwrap();
        counts += of_round;
        assert_eq!(source.first_difference(&target), None, "{round:?}");
    }
    assert_eq!(ledger.complete(), Ok(()));
    counts
}

#[test]
fn many_streams_on_many_threads_land_what_was_packed() {
    let zstd = Codec::Zstd(ZstdLevel::MIN);
    let (all, many) = (64, 256);
    for (thread_count, codec) in [
        (all, Codec::None),
        (all, Codec::Lz4),
        (many, Codec::Lz4),
        (many, zstd),
        (many, Codec::Delta),
    ] {
        let sent = migrate(&pool_of(thread_count), codec);
        let each = [sent.absent, sent.zero, sent.raw];
        assert!(each.iter().all(|count| *count > 1000), "{sent:?}");
        assert_eq!(sent.lz4 > 1000, codec == Codec::Lz4, "{sent:?}");
        assert_eq!(sent.zstd > 1000, codec == zstd, "{sent:?}");
        // So many streams have a short history each.
        assert_eq!(sent.delta > 50, codec == Codec::Delta, "{sent:?}");
    }
}

/// The list of work is the same, however many threads make it.
#[test]
fn a_scan_is_the_same_on_any_number_of_threads() {
    let map = map_of(&[(0, 40_000), (50_000, 4_000_000)]);
    let mut pages = map.full_set();
    (0..4_000_000).step_by(70_001).for_each(|page| {
        pages.remove_range(common::range(page, 1 + page % 3000));
    });
    let one = pool_of(1).install(|| scan(&pages, &map, STREAMS_MAX));
    for thread_count in [2, 64, 256] {
        let many = pool_of(thread_count).install(|| scan(&pages, &map, STREAMS_MAX));
        assert!(one == many, "{thread_count} threads");
    }
}
