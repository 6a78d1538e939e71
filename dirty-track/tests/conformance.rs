//! The contract of a dirty source, demanded of every source by one body of tests. What only one
//! source promises is tested elsewhere.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::guest::{Guest, VCPUS};
use common::memory::HostMemory;
use common::writer::DATA;
use common::{World, map};
use limosa_dirty::{
    HarvestError, KvmLog, KvmRing, LogMode, PagemapScan, Presence, RingSetup, Script, Union,
    VcpuWrites, VmmWrites, WriteRecorder, probe,
};
use limosa_pages::{ChunkPages, PageCount, PageIndex, PageRange, PageSet};

/// How long writers and harvests run beside each other, per source.
const STRESS: Duration = Duration::from_millis(1500);

fn page(offset: u64) -> PageIndex {
    DATA.start().saturating_add(PageCount::new(offset))
}

fn one(page: PageIndex) -> PageRange {
    PageRange::from_start_count(page, PageCount::new(1)).unwrap()
}

fn pages_of(set: &PageSet) -> Vec<PageIndex> {
    set.runs().flat_map(PageRange::iter).collect()
}

fn conforms(world: &mut World) {
    refuses_when_not_recording(world);
    for _ in 0..3 {
        world.start();
        reports_everything_first(world);
        forgets_only_what_is_rearmed(world);
        records_again_after_rearm(world);
        keeps_writes_between_harvest_and_rearm(world);
        adds_to_what_is_there(world);
        world.source.stop().unwrap();
        refuses_when_not_recording(world);
    }
    starts_over_while_recording(world);
    loses_nothing_under_load(world);
    world.source.stop().unwrap();
    world.source.stop().unwrap();
}

fn refuses_when_not_recording(world: &mut World) {
    let mut dirty = PageSet::new(map().end());
    let mut pages = ChunkPages::FULL;
    let harvested = world.source.harvest(&mut dirty);
    assert!(
        matches!(harvested, Err(HarvestError::NotRecording)),
        "{harvested:?}"
    );
    let rearmed = world.source.rearm(page(0).chunk(), &mut pages);
    assert!(
        matches!(rearmed, Err(HarvestError::NotRecording)),
        "{rearmed:?}"
    );
}

fn reports_everything_first(world: &mut World) {
    let mut dirty = PageSet::new(map().end());
    let count = world.source.harvest(&mut dirty).unwrap();
    assert_eq!(count, dirty.count());
    assert!(dirty.is_superset(&world.populated()));
    assert!(map().full_set().is_superset(&dirty));
    // Nothing was rearmed, so nothing is forgotten.
    let mut again = PageSet::new(map().end());
    world.source.harvest(&mut again).unwrap();
    assert!(again.is_superset(&dirty));
    world.copy(&map().full_set(), 2);
    assert!(world.stale().is_empty());
    assert!(
        world.harvest().is_empty(),
        "what nobody wrote is not reported after a full drain"
    );
}

fn forgets_only_what_is_rearmed(world: &mut World) {
    // Two in one chunk, and one in each of two others.
    let written = [page(3), page(70), page(600), page(2047)];
    written.iter().for_each(|&page| world.write(page));
    assert_eq!(pages_of(&world.harvest()), written);
    assert_eq!(
        pages_of(&world.harvest()),
        written,
        "harvested again without rearm"
    );

    let mut only = PageSet::new(map().end());
    only.insert(page(600));
    world.copy(&only, 1);
    assert_eq!(pages_of(&world.harvest()), [page(3), page(70), page(2047)]);
    world.drain();
    assert!(world.harvest().is_empty());
}

fn records_again_after_rearm(world: &mut World) {
    for offset in [0, 63, 64, 235, 236, 1023, 2047] {
        for _ in 0..3 {
            world.write(page(offset));
            assert_eq!(pages_of(&world.drain()), [page(offset)]);
            assert!(world.stale().is_empty());
        }
    }
}

fn keeps_writes_between_harvest_and_rearm(world: &mut World) {
    world.write(page(100));
    let dirty = world.harvest();
    world.write(page(100));
    world.write(page(101));
    world.write(page(1500));
    // The first is read after its rearm, so it need not be reported again; the others must be, or
    // be handed over by the rearm.
    world.copy(&dirty, 1);
    world.drain();
    assert!(world.stale().is_empty());
    assert!(world.harvest().is_empty());
}

fn adds_to_what_is_there(world: &mut World) {
    world.write(page(9));
    let mut dirty = PageSet::new(page(10));
    dirty.insert(page(8));
    assert_eq!(
        world.source.harvest(&mut dirty).unwrap().get() + 1,
        dirty.count().get()
    );
    assert!(dirty.contains(page(8)) && dirty.contains(page(9)));
    let mut small = PageSet::new(page(9));
    world.source.harvest(&mut small).unwrap();
    assert!(
        !small.contains(page(9)),
        "pages beyond the bound are left out"
    );
    world.drain();
}

fn starts_over_while_recording(world: &mut World) {
    world.start();
    world.drain();
    world.start();
    let mut data = world.populated();
    let mut inside = PageSet::new(map().end());
    inside.insert_range(DATA);
    data.intersect(&inside);
    assert!(
        world.harvest().is_superset(&data) && !data.is_empty(),
        "a second start reports everything anew"
    );
}

/// Writers run, rounds run beside them, and every now and then the writers pause: then one more
/// round must make the copy equal to the memory.
fn loses_nothing_under_load(world: &mut World) {
    world.start();
    let (mut pause_count, mut round_count) = (0, 0);
    let since = Instant::now();
    while since.elapsed() < STRESS || pause_count < 20 {
        world.run_writers();
        for round in 0..pause_count % 30 {
            let dirty = world.harvest();
            world.copy(&dirty, if round % 4 == 3 { 2 } else { 1 });
            round_count += 1;
        }
        world.pause_writers();
        world.drain();
        let stale = world.stale();
        assert!(
            stale.is_empty(),
            "lost writes after {round_count} rounds: {stale:?}"
        );
        assert!(world.harvest().is_empty());
        pause_count += 1;
    }
    println!(
        "{}: {pause_count} pauses, {round_count} rounds",
        world.source.describe()
    );
}

fn memory() -> Arc<HostMemory> {
    Arc::new(HostMemory::new(map().end().get()))
}

fn guest(memory: &HostMemory) -> Option<Guest> {
    let guest = Guest::new(memory, map().regions());
    if guest.is_none() {
        println!("SKIPPED: {:?}", probe().kvm_log);
    }
    guest
}

fn kvm_log_conforms(mode: LogMode, clear_block_chunks: u16) {
    let memory = memory();
    let Some(guest) = guest(&memory) else { return };
    let log = KvmLog::with_mode_at_most(mode, guest.fd(), guest.slots()).unwrap();
    let source = Box::new(log.with_clear_block(clear_block_chunks));
    conforms(&mut World::new(memory, source).with_guest(guest));
}

#[test]
fn kvm_log_initially_set() {
    kvm_log_conforms(LogMode::InitiallySet, KvmLog::CLEAR_BLOCK_CHUNKS_DEFAULT);
}

#[test]
fn kvm_log_cleared_chunk_by_chunk() {
    kvm_log_conforms(LogMode::InitiallySet, 1);
}

/// A chunk that held nothing is reported whole, so of the contract's exact tests each applies to
/// memory in which every chunk holds something; nothing is lost in other memory either.
#[test]
fn kvm_log_with_presence() {
    for mode in [LogMode::InitiallySet, LogMode::Manual, LogMode::ReadClears] {
        for used in [Used::Everywhere, Used::Nowhere] {
            let memory = memory();
            let Some(guest) = guest(&memory) else { return };
            let mappings = map().regions().to_vec();
            let mappings = mappings.iter().map(|&pages| memory.mapping(pages));
            let presence = Presence::new(mappings.collect());
            let log = KvmLog::with_mode_at_most(mode, guest.fd(), guest.slots()).unwrap();
            let source = Box::new(log.with_presence(presence));
            let mut world = World::new(memory, source).with_guest(guest);
            match used {
                Used::Everywhere => {
                    for page in DATA.iter() {
                        world.memory.counter(page).store(0, Ordering::Relaxed);
                    }
                    conforms(&mut world);
                }
                Used::Nowhere => loses_nothing_under_load(&mut world),
            }
        }
    }
}

/// Where memory holds something before it is watched.
enum Used {
    Everywhere,
    Nowhere,
}

#[test]
fn kvm_log_manual() {
    kvm_log_conforms(LogMode::Manual, 2);
}

#[test]
fn kvm_log_that_reading_clears() {
    kvm_log_conforms(LogMode::ReadClears, 1);
}

fn guest_with_rings(memory: &HostMemory, bytes: u64) -> Option<Guest> {
    let Some(guest) = Guest::with_rings(memory, map().regions(), bytes) else {
        println!("SKIPPED: {:?}", probe().kvm_log);
        return None;
    };
    match guest {
        Ok(guest) => Some(guest),
        Err(HarvestError::Unavailable(unavailable)) => {
            println!("SKIPPED: {unavailable}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn kvm_ring_conforms(ring_bytes: u64) {
    let memory = memory();
    let Some(guest) = guest_with_rings(&memory, ring_bytes) else {
        return;
    };
    let rings = guest.rings().unwrap();
    let source = Box::new(KvmRing::new(rings.clone()).unwrap());
    let refused = KvmRing::new(rings.clone()).err();
    assert!(
        matches!(refused, Some(HarvestError::DirtyRingsTaken)),
        "{refused:?}"
    );
    let mut world = World::new(memory, source).with_guest(guest);
    conforms(&mut world);
    drop(world);
    let writes = rings.writes();
    println!("{writes:?}");
    assert_eq!(writes.len(), VCPUS);
    assert!(writes[0].pages.get() > 1000, "{writes:?}");
    assert_eq!(writes[1], VcpuWrites::default(), "it never ran");
    assert!(KvmRing::new(rings).is_ok(), "the rings are free again");
}

#[test]
fn kvm_ring() {
    kvm_ring_conforms(RingSetup::BYTES_DEFAULT);
}

/// More pages are written than such a ring has room for, and nobody empties it meanwhile but the
/// vCPU's own thread.
#[test]
fn kvm_ring_that_gets_full() {
    let memory = memory();
    let Some(guest) = guest_with_rings(&memory, RingSetup::BYTES_MIN) else {
        return;
    };
    let rings = guest.rings().unwrap();
    let source = Box::new(KvmRing::new(rings.clone()).unwrap());
    let mut world = World::new(memory, source).with_guest(guest);
    world.start();
    world.drain();
    let before = rings.writes()[0].pages.get();
    for page in DATA.iter() {
        world.write(page);
    }
    let told = rings.writes()[0].pages.get() - before;
    let exits = rings.writes()[0].full_exits;
    // Each time that the ring was emptied, the control block is written anew, too.
    assert!(
        (2048..=2052 + 4 * exits).contains(&told),
        "{told}, {exits} exits"
    );
    assert_eq!(world.harvest().count(), DATA.count());
    assert_eq!(world.source.vcpu_pages()[0].get(), before + told);
    assert!(rings.writes()[0].full_exits > 0, "{:?}", rings.writes());
    world.drain();
    assert!(world.stale().is_empty());
    drop(world);
    kvm_ring_conforms(RingSetup::BYTES_MIN);
}

#[test]
fn union_of_the_rings_and_the_vmms_writes() {
    let memory = memory();
    let Some(guest) = guest_with_rings(&memory, RingSetup::BYTES_DEFAULT) else {
        return;
    };
    let recorder = WriteRecorder::new(&map());
    let ring = KvmRing::new(guest.rings().unwrap()).unwrap();
    let source = Union::new(vec![
        Box::new(ring),
        Box::new(VmmWrites::beside(recorder.clone())),
    ]);
    let world = World::new(memory, Box::new(source));
    conforms(
        &mut world
            .with_guest(guest)
            .with_thread(move |page| recorder.record(one(page))),
    );
}

#[test]
fn pagemap_scan() {
    if let Err(unavailable) = probe().pagemap_scan {
        println!("SKIPPED: {unavailable}");
        return;
    }
    let memory = memory();
    let mappings = map()
        .regions()
        .iter()
        .map(|&pages| memory.mapping(pages))
        .collect();
    let source = Box::new(PagemapScan::new(mappings).unwrap());
    conforms(
        &mut World::new(memory, source)
            .with_thread(|_| ())
            .with_thread(|_| ()),
    );
}

#[test]
fn pagemap_scan_of_a_kvm_guest() {
    let memory = memory();
    let Some(guest) = guest(&memory) else { return };
    if let Err(unavailable) = probe().pagemap_scan {
        println!("SKIPPED: {unavailable}");
        return;
    }
    let mappings = map()
        .regions()
        .iter()
        .map(|&pages| memory.mapping(pages))
        .collect();
    let source = Box::new(PagemapScan::new(mappings).unwrap());
    conforms(
        &mut World::new(memory, source)
            .with_guest(guest)
            .with_thread(|_| ()),
    );
}

/// Huge pages are reported whole, so of the contract's exact tests none applies; nothing is lost.
#[test]
fn pagemap_scan_of_huge_pages() {
    if let Err(unavailable) = probe().pagemap_scan {
        println!("SKIPPED: {unavailable}");
        return;
    }
    let memory = Arc::new(HostMemory::huge(map().end().get()));
    let mappings = map()
        .regions()
        .iter()
        .map(|&pages| memory.mapping(pages))
        .collect();
    let source = Box::new(PagemapScan::new(mappings).unwrap());
    loses_nothing_under_load(&mut World::new(memory, source).with_thread(|_| ()));
}

#[test]
fn vmm_writes() {
    let recorder = WriteRecorder::new(&map());
    let source = Box::new(VmmWrites::new(recorder.clone()));
    let other = recorder.clone();
    let mut world = World::new(memory(), source)
        .with_thread(move |page| recorder.record(one(page)))
        .with_thread(move |page| other.record(one(page)));
    conforms(&mut world);
}

#[test]
fn script() {
    let script = Script::new(&map());
    let writes = script.writes();
    let world = World::new(memory(), Box::new(script));
    conforms(&mut world.with_thread(move |page| writes.write(one(page))));
}

#[test]
fn union_of_the_guests_and_the_vmms_writes() {
    let memory = memory();
    let Some(guest) = guest(&memory) else { return };
    let recorder = WriteRecorder::new(&map());
    let log = KvmLog::new(guest.fd(), guest.slots()).unwrap();
    let source = Union::new(vec![
        Box::new(log),
        Box::new(VmmWrites::beside(recorder.clone())),
    ]);
    let world = World::new(memory, Box::new(source));
    conforms(
        &mut world
            .with_guest(guest)
            .with_thread(move |page| recorder.record(one(page))),
    );
}

/// The stress above would find a source, or a reader, that clears after copying.
fn finds_lost_writes(world: &mut World) {
    world.start();
    let since = Instant::now();
    while world.stale().is_empty() {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "no write was lost"
        );
        world.run_writers();
        for _ in 0..10 {
            copy_before_rearm(world);
        }
        world.pause_writers();
        world.drain();
    }
}

fn copy_before_rearm(world: &mut World) {
    for (chunk, mut pages) in world.harvest().chunks() {
        for (first, count) in pages.runs() {
            for page in (first..first + count).map(|offset| chunk.page(offset)) {
                let value = world.memory.counter(page).load(Ordering::Relaxed);
                world.keep(page, value);
            }
        }
        // Time for a write that the rearm then takes away.
        std::thread::sleep(Duration::from_micros(100));
        world.source.rearm(chunk, &mut pages).unwrap();
    }
}

#[test]
fn the_stress_finds_lost_writes_of_the_vmm() {
    let recorder = WriteRecorder::new(&map());
    let source = Box::new(VmmWrites::new(recorder.clone()));
    let world = World::new(memory(), source);
    finds_lost_writes(&mut world.with_thread(move |page| recorder.record(one(page))));
}

#[test]
fn the_stress_finds_lost_writes_of_the_guest() {
    let memory = memory();
    let Some(guest) = guest(&memory) else { return };
    let source = Box::new(KvmLog::new(guest.fd(), guest.slots()).unwrap());
    finds_lost_writes(&mut World::new(memory, source).with_guest(guest));
}
