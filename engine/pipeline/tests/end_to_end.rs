//! Source memory to target memory through the whole corridor, with a guest that writes all the
//! while.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{World, map_of, noise, range, text};
use limosa_pages::{PAGE_BYTES, PageCount, PageIndex, PageSet};
use limosa_pipeline::{Codec, Gap, GuestMemory, PackConfig};
use limosa_wire::EncodingSet;

/// Three regions: the second touches the first in the middle of a chunk, the third lies beyond a
/// hole and ends within a chunk.
const REGIONS: [(u64, u64); 3] = [(0, 700), (700, 1400), (4096 + 13, 900)];

fn page_of(number: u64, seed: u64) -> Vec<u8> {
    match (number + seed) % 5 {
        0 => vec![0; PAGE_BYTES],
        1 | 2 => text(number ^ seed, PAGE_BYTES),
        _ => noise(number.wrapping_add(seed << 32), PAGE_BYTES),
    }
}

fn all_pages(memory: &dyn GuestMemory) -> Vec<u64> {
    let regions = memory.map().regions().iter();
    regions
        .flat_map(|region| region.iter())
        .map(|page| page.get())
        .collect()
}

fn migrate(stream_count: u16, config: &PackConfig) {
    let mut world = World::new(&map_of(&REGIONS), stream_count, config);
    let pages = all_pages(&*world.source);
    // A third of the guest is never touched.
    for page in pages.iter().filter(|page| *page % 96 < 64) {
        world.source.write(*page, &page_of(*page, 0));
    }
    let source = std::sync::Arc::clone(&world.source);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut seed = 1;
            while !stop.load(Ordering::Relaxed) {
                let page = pages[(seed as usize).wrapping_mul(7919) % pages.len()];
                source.write(page, &page_of(page, seed));
                seed += 1;
            }
        });
        {
            // Stops the writer where a round fails, too.
            let _stop = common::StopOnDrop(&stop);
            world.run_round(0, &world.source.map().full_set());
            for round in 1..4 {
                let dirty = world.source.harvest();
                world.run_round(round, &dirty);
            }
        }
        writer.join().unwrap();
    });
    let last = world.source.harvest();
    world.run_round(4, &last);
    assert_eq!(world.source.first_difference(&world.target), None);
    assert_eq!(world.ledger.complete(), Ok(()));
}

#[test]
fn memory_is_equal_after_rounds_under_a_writing_guest() {
    for codec in ["none", "lz4", "zstd", "delta", "auto"] {
        let codec = codec.parse().unwrap();
        migrate(2, &PackConfig::new(codec, EncodingSet::ALL));
    }
}

#[test]
fn memory_is_equal_with_any_number_of_streams() {
    for stream_count in [1, 2, 3, 7, 16, 64] {
        migrate(
            stream_count,
            &PackConfig::default().with_frame_payload_bytes(64 << 10),
        );
    }
}

#[test]
fn pages_that_were_never_touched_are_absent_and_cost_nothing() {
    let mut world = World::new(&map_of(&REGIONS), 1, &PackConfig::default());
    world.source.write(3, &noise(1, PAGE_BYTES));
    world.source.write(4, &[0; PAGE_BYTES]);
    let reports = world.run_round(0, &world.source.map().full_set());
    assert_eq!(reports[0].pages.absent, 3000 - 2);
    assert_eq!((reports[0].pages.zero, reports[0].pages.raw), (1, 1));
    // One frame with the pages, one with all that is absent: 0..3, 5..700, 700..2100, 4109..5009.
    assert_eq!(reports[0].frame_count, 2);
    let headers = 3 * 64 + 8;
    assert_eq!(
        reports[0].wire_bytes,
        headers + (2 + 4) * 16 + PAGE_BYTES as u64
    );
    assert_eq!(world.target.populate_count(), 0);
    assert_eq!(world.ledger.complete(), Ok(()));
    assert_eq!(world.source.first_difference(&world.target), None);
}

/// Absent pages that are told ahead of a round, among more pages that it finds to be absent: 64 GiB
/// of them cost a frame or two, and the ledger next to nothing.
#[test]
fn absent_ranges_are_told_ahead_of_the_round() {
    let page_count = (64 << 30) / PAGE_BYTES as u64 + 5000;
    let mut world = World::new(&map_of(&[(0, page_count)]), 1, &PackConfig::default());
    let before = world.ledger.overhead_bytes();
    // One chunk is used, but for two single pages; what is behind it is known to be absent, but for
    // a chunk that turns out to be.
    let used: Vec<_> = (512..1024)
        .filter(|page| !matches!(page, 600 | 900))
        .collect();
    let mut pages = PageSet::new(world.source.map().end());
    for page in &used {
        world.source.write(*page, &noise(*page, PAGE_BYTES));
        pages.insert(PageIndex::new(*page));
    }
    pages.insert_range(range(2048, 512));
    let gaps: Vec<_> = pages.gaps(range(0, page_count)).collect();
    assert_eq!(gaps.len(), 5);
    world.streams[0].corridor.tell_absent(gaps.into_iter());
    let report = world.run_round(0, &pages)[0];
    assert_eq!(report.pages.raw, used.len() as u64);
    assert_eq!(report.pages.absent, page_count - report.pages.raw);
    assert_eq!(world.ledger.complete(), Ok(()));
    let grown = world.ledger.overhead_bytes() - before;
    assert!(grown <= 3 * 4096, "{grown} bytes");

    // What nobody told is missing, wherever it is.
    let mut world = World::new(&map_of(&[(3, page_count)]), 1, &PackConfig::default());
    let untold = [3, 700, 512 * 64 * 3, 512 * 1000 + 511, page_count + 2];
    let mut told = PageSet::new(world.source.map().end());
    untold
        .iter()
        .for_each(|page| told.insert(PageIndex::new(*page)));
    let gaps: Vec<_> = told.gaps(range(3, page_count)).collect();
    world.streams[0].corridor.tell_absent(gaps.into_iter());
    world.run_round(0, &PageSet::new(world.source.map().end()));
    let (first, count) = (PageIndex::new(3), PageCount::new(untold.len() as u64));
    assert_eq!(
        world.ledger.complete(),
        Err(Gap::PagesMissing { first, count })
    );
}

#[test]
fn a_page_that_becomes_zero_again_overwrites_the_target() {
    for codec in ["none", "lz4", "zstd", "delta"] {
        let codec: Codec = codec.parse().unwrap();
        let config = PackConfig::new(codec, EncodingSet::ALL);
        let mut world = World::new(&map_of(&REGIONS), 1, &config);
        world.source.write(5, &noise(1, PAGE_BYTES));
        world.source.write(6, &text(1, PAGE_BYTES));
        world.run_round(0, &world.source.map().full_set());
        assert_eq!(world.target.read(5), world.source.read(5));
        for page in [5, 6, 7] {
            world.source.write(page, &[0; PAGE_BYTES]);
        }
        let dirty = world.source.harvest();
        world.run_round(1, &dirty);
        assert_eq!(world.target.read(5), vec![0; PAGE_BYTES]);
        assert_eq!(world.target.read(6), vec![0; PAGE_BYTES]);
        // And back to data, and to zero once more.
        world.source.write(5, &noise(2, PAGE_BYTES));
        let dirty = world.source.harvest();
        world.run_round(2, &dirty);
        assert_eq!(world.target.read(5), noise(2, PAGE_BYTES));
        world.source.write(5, &[0; PAGE_BYTES]);
        let dirty = world.source.harvest();
        world.run_round(3, &dirty);
        assert_eq!(world.source.first_difference(&world.target), None);
    }
}

#[test]
fn a_chunk_is_populated_once_it_is_worth_it() {
    let mut world = World::new(&map_of(&[(0, 2048)]), 1, &PackConfig::default());
    // Chunk 0: full. Chunk 1: a few pages. Chunk 2: zeros. Chunk 3: never touched.
    (0..512).for_each(|page| world.source.write(page, &noise(page, PAGE_BYTES)));
    (512..532).for_each(|page| world.source.write(page, &noise(page, PAGE_BYTES)));
    (1024..1536).for_each(|page| world.source.write(page, &[0; PAGE_BYTES]));
    world.run_round(0, &world.source.map().full_set());
    let counts: Vec<_> = world
        .target
        .populated
        .iter()
        .map(|count| count.load(Ordering::SeqCst))
        .collect();
    assert_eq!(counts, [1, 0, 0, 0]);
    // More pages of chunk 1 later: together they are worth it.
    (532..600).for_each(|page| world.source.write(page, &noise(page, PAGE_BYTES)));
    let dirty = world.source.harvest();
    world.run_round(1, &dirty);
    assert_eq!(world.target.populate_count(), 2);
}

#[test]
fn small_frames_share_a_buffer() {
    let mut world = World::new(&map_of(&[(0, 512 * 64)]), 1, &PackConfig::default());
    let mut few = PageSet::new(world.source.map().end());
    for chunk in 0..64 {
        for page in [3, 4, 200] {
            world
                .source
                .write(chunk * 512 + page, &noise(chunk, PAGE_BYTES));
        }
    }
    world.run_round(0, &few);
    few.union_with(&world.source.harvest());
    let (mut bytes, mut sends) = (0, 0);
    let mut corridor = common::corridor(&world.source, 0, 1, &PackConfig::default());
    let work = limosa_pipeline::scan(&few, world.source.map(), 1);
    let mut sink = |mut buffer: limosa_pipeline::FrameBuf| {
        bytes += buffer.bytes().len();
        sends += 1;
        buffer.clear();
        Ok::<_, common::TestError>(buffer)
    };
    let round = limosa_wire::Round::new(1);
    corridor
        .run_round(round, &work[0], &mut common::no_rearm, &mut sink)
        .unwrap();
    assert_eq!(bytes, 64 * (64 + 2 * 16 + 3 * PAGE_BYTES) + 72);
    assert_eq!(sends, 4, "64 frames of 12 KiB in buffers of 256 KiB");
    assert!(matches!(
        world.ledger.complete(),
        Err(Gap::PagesMissing { .. })
    ));
}
