//! Measures what recording costs on this host: the figures in this crate's documentation are from
//! here. It asserts nothing.
//!
//! `cargo run --release -p limosa-dirty --example cost [MiB [ring]]`, on a host that does nothing
//! else; with `ring`, of KVM's dirty rings only. They must hold all of it: 128 MiB.

#[path = "../tests/common/mod.rs"]
mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::guest::{Guest, Task};
use common::memory::HostMemory;
use common::writer::{Control, Seed};
use limosa_dirty::{
    DirtySource, KvmLog, KvmRing, LogMode, PagemapScan, Presence, RingSetup, VmmWrites,
    WriteRecorder,
};
use limosa_pages::{MemoryMap, PageIndex, PageRange, PageSet};

/// Pages that the guest's program, its tables and its control block take.
const RESERVED_PAGES: u64 = 512;
const REPEATS: usize = 3;

fn main() {
    let mib = std::env::args()
        .nth(1)
        .and_then(|mib| mib.parse().ok())
        .unwrap_or(256_u64);
    let data_pages = (mib * 256).next_power_of_two();
    let end = PageIndex::new(RESERVED_PAGES + data_pages);
    let all = PageRange::new(PageIndex::new(0), end).expect("a range");
    let map = MemoryMap::new(vec![all]).expect("a map");
    let memory = Arc::new(HostMemory::new(end.get()));
    for page in all.iter() {
        memory.counter(page).fetch_add(0, Ordering::Relaxed);
    }
    println!(
        "{} MiB in base pages, 99 % dirty; best of {REPEATS}",
        data_pages / 256
    );
    println!("source, start, harvest, rearm of all, longest rearm, harvest of nothing, stop");

    let Some(mut guest) = Guest::new(&memory, map.regions()) else {
        println!("SKIPPED: no KVM");
        return;
    };
    let logs: Vec<_> = [
        (LogMode::InitiallySet, 1),
        (LogMode::InitiallySet, 8),
        (LogMode::InitiallySet, 32),
        (LogMode::InitiallySet, KvmLog::CLEAR_BLOCK_CHUNKS_MAX),
        (LogMode::ReadClears, 1),
    ]
    .into();
    let control = Control::new(&memory, 0);
    control.pause(1);
    let task = Task {
        control: control.address(),
        seed: Seed(7),
        data: PageIndex::new(RESERVED_PAGES),
        data_mask: data_pages - 1,
        // Behind the memory, within the guest's tables.
        hole: PageIndex::new(end.get() + 1),
    };
    let thread = guest.spawn(memory.clone(), &task);
    if std::env::args().nth(2).is_some_and(|only| only == "ring") {
        control.end();
        thread.join().expect("the guest's thread");
        return measure_rings(&memory, &map, &task);
    }
    for (mode, block) in logs {
        let log = KvmLog::with_mode_at_most(mode, guest.fd(), guest.slots()).expect("a log");
        let name = format!("kvm-log ({mode}), block of {block} chunks");
        measure(&name, log.with_clear_block(block), &map, &control);
    }
    let scan = PagemapScan::new(vec![memory.mapping(all)]).expect("a source");
    measure("pagemap-scan", scan, &map, &control);
    control.end();
    thread.join().expect("the guest's thread");
    measure_rings(&memory, &map, &task);
    measure_recording(&map);
    measure_presence(&Presence::new(vec![memory.mapping(all)]), all);
}

/// A guest of its own over the same memory: a VM with rings has no log.
fn measure_rings(memory: &Arc<HostMemory>, map: &MemoryMap, task: &Task) {
    let guest = Guest::with_rings(memory, map.regions(), RingSetup::BYTES_DEFAULT);
    let mut guest = match guest {
        Some(Ok(guest)) => guest,
        Some(Err(error)) => return println!("kvm-ring: SKIPPED: {error}"),
        None => return println!("kvm-ring: SKIPPED: no KVM"),
    };
    let rings = guest.rings().expect("the guest has rings");
    let control = Control::new(memory, 0);
    control.pause(1);
    let thread = guest.spawn(memory.clone(), task);
    // At first KVM has mapped nothing that would have to be protected.
    for name in ["kvm-ring, at first", "kvm-ring"] {
        let ring = KvmRing::new(rings.clone()).expect("rings that nobody has");
        measure(name, ring, map, &control);
        println!("{name}: {:?}", rings.writes());
    }
    control.end();
    thread.join().expect("the guest's thread");
}

/// What one source costs, with a guest that dirties its memory before each harvest.
fn measure(name: &str, mut source: impl DirtySource, map: &MemoryMap, control: &Control<'_>) {
    let since = Instant::now();
    source.start().expect("recording");
    let start = since.elapsed();
    let mut dirty = PageSet::new(map.end());
    source.harvest(&mut dirty).expect("a harvest");
    rearm_all(&source, &dirty);

    let mut best = [Duration::MAX; 4];
    for repeat in 0..REPEATS as u64 {
        let known = written(&source);
        control.run(u64::MAX);
        // Writes at random: the last pages would take as long as all the others.
        dirty.clear();
        let enough = (map.page_count().get() - RESERVED_PAGES) / 100 * 99;
        while dirty.count().get() < enough {
            std::thread::sleep(Duration::from_millis(50));
            match known {
                // A harvest would leave nothing for the one that is measured.
                Some(known) if written(&source).unwrap_or(0) < known + enough => {}
                Some(_) => break,
                None => drop(source.harvest(&mut dirty).expect("a harvest")),
            }
        }
        control.pause(repeat + 2);
        control.wait_paused(repeat + 2);
        dirty.clear();
        let since = Instant::now();
        source.harvest(&mut dirty).expect("a harvest");
        let harvest = since.elapsed();
        let (rearm, longest) = rearm_all(&source, &dirty);
        dirty.clear();
        let since = Instant::now();
        source.harvest(&mut dirty).expect("a harvest");
        for (best, new) in best
            .iter_mut()
            .zip([harvest, rearm, longest, since.elapsed()])
        {
            *best = (*best).min(new);
        }
    }
    let since = Instant::now();
    source.stop().expect("stopped");
    let [harvest, rearm, longest, nothing] = best;
    let stop = since.elapsed();
    println!(
        "{name}, {start:.1?}, {harvest:.1?}, {rearm:.1?}, {longest:.1?}, {nothing:.1?}, {stop:.1?}"
    );
}

/// How many pages the vCPU has written, where the source tells that without a harvest.
fn written(source: &impl DirtySource) -> Option<u64> {
    source.vcpu_pages().first().map(|pages| pages.get())
}

/// How long rearming all of `dirty` took, and the longest call.
fn rearm_all(source: &impl DirtySource, dirty: &PageSet) -> (Duration, Duration) {
    let mut longest = Duration::ZERO;
    let all_since = Instant::now();
    for (chunk, mut pages) in dirty.chunks() {
        let since = Instant::now();
        source.rearm(chunk, &mut pages).expect("rearmed");
        longest = longest.max(since.elapsed());
    }
    (all_since.elapsed(), longest)
}

fn measure_recording(map: &MemoryMap) {
    let recorder = WriteRecorder::new(map);
    let mut source = VmmWrites::new(recorder.clone());
    source.start().expect("recording");
    let since = Instant::now();
    for page in map.regions().iter().copied().flat_map(PageRange::iter) {
        recorder.record(PageRange::new(page, PageIndex::new(page.get() + 1)).expect("a page"));
    }
    let each = since.elapsed().as_secs_f64() * 1e9 / map.page_count().get() as f64;
    let mut dirty = PageSet::new(map.end());
    let since = Instant::now();
    source.harvest(&mut dirty).expect("a harvest");
    let harvest = since.elapsed();
    let (rearm, _) = rearm_all(&source, &dirty);
    println!("vmm-writes: {each:.1} ns to record a page, harvest {harvest:.1?}, rearm {rearm:.1?}");
}

/// What it costs to ask for the populated pages, chunk by chunk as a migration does.
fn measure_presence(presence: &Presence, pages: PageRange) {
    let ask = || {
        let since = Instant::now();
        let count: u32 = pages
            .chunks()
            .map(|(chunk, _)| presence.chunk(chunk).count())
            .sum();
        (since.elapsed(), count)
    };
    let (elapsed, count) = (0..REPEATS).map(|_| ask()).min().unwrap_or_default();
    println!("presence: {count} pages populated, {elapsed:.1?}");
}
