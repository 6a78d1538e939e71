//! A round from a log to lists of chunks, without a VM: what it finds and what it takes. It moves
//! no page.

use std::error::Error;

use limosa_dirty::{DirtySource, PlayedLog};
use limosa_pages::{CHUNK_PAGES, ChunkIndex, MemoryMap, PageCount, PageIndex, PageRange, PageSet};
use limosa_pipeline::{ChunkOwners, clear_set, share_out, work_of};

const GIB_PAGES: u64 = 1 << 18;

fn guest(gib: u64) -> Result<MemoryMap, Box<dyn Error>> {
    let pages = PageCount::new(gib * GIB_PAGES);
    let all = PageRange::from_start_count(PageIndex::ZERO, pages).ok_or("too large")?;
    Ok(MemoryMap::new(vec![all])?)
}

/// Every hundredth page or so of each sixteenth GiB.
fn some(map: &MemoryMap, first: u64) -> PageSet {
    let mut pages = PageSet::new(map.end());
    for block in (0..map.end().get()).step_by(16 * GIB_PAGES as usize) {
        let offsets = (first..GIB_PAGES).step_by(97);
        offsets.for_each(|offset| pages.insert(PageIndex::new(block + offset)));
    }
    pages
}

/// All that a side may take is two bits for each page and 64 MiB beside; of which 12 MiB are left
/// for buffers.
#[test]
fn what_is_kept_of_a_guest_is_two_bits_a_page() -> Result<(), Box<dyn Error>> {
    for gib in [1, 1024, 12 * 1024] {
        let map = guest(gib)?;
        let page_count = map.page_count().get();
        let log = PlayedLog::new(map.end()).ok_or("no memory")?;
        let sets = PageSet::new(map.end()).overhead_bytes() + log.overhead_bytes();
        let owners = ChunkOwners::new(&map, 2).overhead_bytes();
        // While they are made, one of two streams' lists is there twice.
        let lists = page_count.div_ceil(CHUNK_PAGES) as usize * size_of::<ChunkIndex>() * 3 / 2;
        let besides = (sets + owners + lists) as u64 - page_count / 4;
        assert!(besides <= 52 << 20, "{gib} GiB: {besides} bytes");
    }
    Ok(())
}

/// In more parts than one: 48 GiB.
#[test]
fn rounds_find_what_was_written_and_what_was_left() -> Result<(), Box<dyn Error>> {
    for threads in [1, 2, 5, 64] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let rounds = || rounds().map_err(|error| format!("{threads} threads: {error}"));
        pool.build()?.install(rounds)?;
    }
    Ok(())
}

fn rounds() -> Result<(), Box<dyn Error>> {
    let map = guest(48)?;
    let owners = ChunkOwners::new(&map, 2);
    let mut log = PlayedLog::new(map.end()).ok_or("no memory")?;
    let mut dirty = PageSet::new(map.end());
    assert!(log.harvest(&mut dirty).is_err());
    log.start()?;
    assert_eq!(log.harvest(&mut dirty)?, map.page_count());
    assert_eq!(dirty, map.full_set());
    let rearm = |log: &PlayedLog, dirty: &PageSet, nth: usize| -> Result<(), Box<dyn Error>> {
        let chunks = share_out(dirty, &map, &owners).free;
        for chunk in chunks.all().step_by(nth) {
            let work = work_of(*chunk, dirty, &map).ok_or("a chunk without pages")?;
            log.rearm(work.chunk, &mut work.pages.clone())?;
        }
        Ok(())
    };
    rearm(&log, &dirty, 1)?;
    let (one, other) = (some(&map, 3), some(&map, 70));
    clear_set(&mut dirty);
    log.play(&one);
    assert_eq!(log.harvest(&mut dirty)?, one.count());
    assert_eq!(dirty, one);
    // Every second chunk is left as it is.
    rearm(&log, &dirty, 2)?;
    let mut left = PageSet::new(map.end());
    for (chunk, pages) in one.chunks().skip(1).step_by(2) {
        left.insert_chunk(chunk, &pages);
    }
    clear_set(&mut dirty);
    log.play(&other);
    log.harvest(&mut dirty)?;
    left.union_with(&other);
    assert_eq!(dirty, left);
    // A harvest adds, and says how much.
    assert_eq!(log.harvest(&mut dirty)?, PageCount::ZERO);
    log.stop()?;
    assert!(log.harvest(&mut dirty).is_err());
    Ok(())
}
