//! The hunt for lost writes: vCPUs and the VMM's threads write at random while their writes are
//! harvested, rearmed and copied in thousands of rounds, and every copy is held against the memory.
//! For each way to see vCPUs, united with the VMM's own record. What a source promises besides is
//! in `conformance.rs`.

mod common;

use std::sync::Arc;
use std::time::Instant;

use common::guest::{Guest, Pester, VCPUS};
use common::memory::HostMemory;
use common::{World, map};
use limosa_dirty::{
    DirtySource, HarvestError, KvmLog, KvmRing, PagemapScan, RingSetup, Union, VmmWrites,
    WriteRecorder, probe,
};
use limosa_pages::{PageCount, PageIndex, PageRange, PageSet};

/// Rounds of each hunt.
const ROUNDS: u64 = 2500;

/// The VMM's threads that write.
const VMM_THREADS: usize = 2;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn one(page: PageIndex) -> PageRange {
    PageRange::from_start_count(page, PageCount::new(1)).unwrap()
}

/// `source` for the vCPUs of `guest`, united with what two more threads record of their writes.
fn world(memory: Arc<HostMemory>, guest: Guest, source: Box<dyn DirtySource>) -> World {
    let recorder = WriteRecorder::new(&map());
    let own = VmmWrites::beside(recorder.clone());
    let source = Union::new(vec![source, Box::new(own)]);
    let mut world = World::new(memory, Box::new(source)).with_vcpus(guest, VCPUS);
    for _ in 0..VMM_THREADS {
        let recorder = recorder.clone();
        world = world.with_thread(move |page| recorder.record(one(page)));
    }
    world
}

/// A part of what was harvested: the rest waits for a later round.
fn part_of(dirty: &PageSet, random: &mut Random) -> PageSet {
    let mut part = PageSet::new(map().end());
    for (chunk, pages) in dirty.chunks() {
        if random.below(4) != 0 {
            part.insert_chunk(chunk, &pages);
        }
    }
    part
}

fn loses_nothing(name: &str, world: &mut World) {
    let seed = std::process::id().into();
    let mut random = Random(seed);
    let (mut rounds, mut pauses, mut copied) = (0, 0, 0);
    let since = Instant::now();
    world.start();
    while rounds < ROUNDS {
        world.run_writers();
        for _ in 0..1 + random.below(12) {
            let dirty = world.harvest();
            let part = part_of(&dirty, &mut random);
            world.copy(&part, 1 + random.below(2) as usize);
            copied += part.count().get();
            rounds += 1;
        }
        world.pause_writers();
        world.drain();
        let stale = world.stale();
        assert!(
            stale.is_empty(),
            "lost writes of {name} after {rounds} rounds, seed {seed}: {stale:?}"
        );
        pauses += 1;
        if random.below(100) == 0 {
            // A migration that failed, and the next try.
            world.source.stop().unwrap();
            world.run_writers();
            world.pause_writers();
            world.start();
        }
    }
    println!(
        "{name}: {rounds} rounds, {pauses} pauses, {copied} pages copied beside writers in {:?}",
        since.elapsed()
    );
    assert!(copied > 0, "nobody wrote");
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

fn ring_world(ring_bytes: u64) -> Option<World> {
    let memory = memory();
    let guest = match Guest::with_rings(&memory, map().regions(), ring_bytes) {
        Some(Ok(guest)) => guest,
        Some(Err(HarvestError::Unavailable(unavailable))) => {
            println!("SKIPPED: {unavailable}");
            return None;
        }
        Some(Err(error)) => panic!("{error}"),
        None => {
            println!("SKIPPED: {:?}", probe().kvm_log);
            return None;
        }
    };
    let ring = KvmRing::new(guest.rings().unwrap()).unwrap();
    Some(world(memory, guest, Box::new(ring)))
}

#[test]
fn kvms_log_loses_nothing() {
    let memory = memory();
    let Some(guest) = guest(&memory) else { return };
    let log = KvmLog::new(guest.fd(), guest.slots()).unwrap();
    loses_nothing("KVM's log", &mut world(memory, guest, Box::new(log)));
}

#[test]
fn kvms_rings_lose_nothing() {
    if let Some(mut world) = ring_world(RingSetup::BYTES_DEFAULT) {
        loses_nothing("KVM's rings", &mut world);
    }
}

#[test]
fn kvms_smallest_rings_lose_nothing() {
    if let Some(mut world) = ring_world(RingSetup::BYTES_MIN) {
        loses_nothing("KVM's smallest rings", &mut world);
    }
}

/// Linux 6.16 and later break a reset off when a signal comes, and forget to protect some pages.
#[test]
fn kvms_rings_lose_nothing_to_signals() {
    if let Some(mut world) = ring_world(RingSetup::BYTES_DEFAULT) {
        let _pester = Pester::me();
        loses_nothing("KVM's rings under signals", &mut world);
    }
}

#[test]
fn page_table_scans_lose_nothing() {
    let memory = memory();
    let Some(guest) = guest(&memory) else { return };
    if let Err(unavailable) = probe().pagemap_scan {
        println!("SKIPPED: {unavailable}");
        return;
    }
    let regions = map().regions().to_vec();
    let mappings = regions.iter().map(|&pages| memory.mapping(pages));
    let scan = PagemapScan::new(mappings.collect()).unwrap();
    loses_nothing(
        "page table scans",
        &mut world(memory, guest, Box::new(scan)),
    );
}
