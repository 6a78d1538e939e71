//! The order of a VMM's own store and its record, under a harvest that runs at the same moment. The
//! contract of every source is tested in `conformance.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use limosa_dirty::{DirtySource, VmmWrites, WriteRecorder};
use limosa_pages::{ChunkIndex, ChunkPages, MemoryMap, PageIndex, PageRange, PageSet};

const STRESS: Duration = Duration::from_secs(1);
const WRITES_PER_RUN: u64 = 8;

/// One page, written with plain stores: a store may still be on its way to memory when the record
/// is made, and must be seen all the same by whoever takes the record away.
#[test]
fn a_store_on_its_way_is_not_lost() {
    let page = PageRange::new(PageIndex::new(0), PageIndex::new(1)).unwrap();
    let map = MemoryMap::new(vec![page]).unwrap();
    let recorder = WriteRecorder::new(&map);
    let mut source = VmmWrites::new(recorder.clone());
    source.start().unwrap();
    let (content, wanted, done) = <(Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let writer = {
        let (content, wanted, done) = (content.clone(), wanted.clone(), done.clone());
        std::thread::spawn(move || {
            let mut written = 0;
            while wanted.load(Ordering::Acquire) != u64::MAX {
                if written == wanted.load(Ordering::Acquire) {
                    std::hint::spin_loop();
                    continue;
                }
                written += 1;
                content.store(written, Ordering::Relaxed);
                recorder.record(page);
                done.store(written, Ordering::Release);
            }
        })
    };

    let mut dirty = PageSet::new(map.end());
    let (mut copy, mut run_count) = (0, 0_u64);
    let mut round = || {
        dirty.clear();
        if source.harvest(&mut dirty).unwrap().get() == 1 {
            source
                .rearm(ChunkIndex::new(0), &mut ChunkPages::FULL.clone())
                .unwrap();
            copy = content.load(Ordering::Relaxed);
        }
        copy
    };
    let since = Instant::now();
    while since.elapsed() < STRESS {
        run_count += 1;
        let target = run_count * WRITES_PER_RUN;
        wanted.store(target, Ordering::Release);
        while done.load(Ordering::Acquire) < target {
            round();
        }
        assert_eq!(round(), target, "a write was lost in run {run_count}");
    }
    wanted.store(u64::MAX, Ordering::Release);
    writer.join().unwrap();
    println!("{run_count} runs");
}
