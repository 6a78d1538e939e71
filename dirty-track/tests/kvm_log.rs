//! What only KVM's log promises: the modes, other users of the log, and what is left behind. The
//! contract of every source is tested in `conformance.rs`.

mod common;

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use common::guest::Guest;
use common::memory::HostMemory;
use common::writer::DATA;
use common::{World, map};
use kvm_bindings::{KVM_CAP_DIRTY_LOG_RING, KVM_MEM_LOG_DIRTY_PAGES, kvm_enable_cap};
use kvm_ioctls::VmFd;
use limosa_dirty::{DirtySource, HarvestError, KvmLog, LogMode, Slot, probe};
use limosa_pages::{MemoryMap, PageSet};

/// A guest with its memory, or the reason that there is none.
fn guest() -> Option<(Arc<HostMemory>, Guest)> {
    guest_prepared(|_| ())
}

fn guest_prepared(prepare: impl FnOnce(&VmFd)) -> Option<(Arc<HostMemory>, Guest)> {
    let memory = Arc::new(HostMemory::new(map().end().get()));
    let guest = Guest::prepared(&memory, map().regions(), prepare);
    if guest.is_none() {
        println!("SKIPPED: {:?}", probe().kvm_log);
    }
    guest.map(|guest| (memory, guest))
}

/// Reads the log of slot 0 as anybody may.
fn kernel_log(guest: &Guest) -> Result<Vec<u64>, i32> {
    let bytes = guest.slots()[0].pages().count().bytes() as usize;
    guest
        .vm()
        .get_dirty_log(0, bytes)
        .map_err(|error| error.errno())
}

fn everything(log: &mut KvmLog) -> bool {
    let mut dirty = PageSet::new(map().end());
    log.harvest(&mut dirty).unwrap();
    dirty == map().full_set()
}

fn rearm_everything(log: &KvmLog) {
    for (chunk, mut pages) in map().full_set().chunks() {
        log.rearm(chunk, &mut pages).unwrap();
    }
}

#[test]
fn the_mode_is_the_best_unless_told_otherwise() {
    let Some((_memory, guest)) = guest() else {
        return;
    };
    let log = KvmLog::new(guest.fd(), guest.slots()).unwrap();
    assert_eq!(log.mode(), probe().kvm_log.unwrap());
    drop(log);
    for best in [LogMode::ReadClears, LogMode::Manual] {
        let log = KvmLog::with_mode_at_most(best, guest.fd(), guest.slots()).unwrap();
        assert_eq!(log.mode(), best);
    }
}

#[test]
fn dropping_or_stopping_turns_the_log_off() {
    let Some((_memory, guest)) = guest() else {
        return;
    };
    for _ in 0..3 {
        let mut log = KvmLog::new(guest.fd(), guest.slots()).unwrap();
        assert_eq!(
            kernel_log(&guest),
            Err(libc::ENOENT),
            "making it turns nothing on"
        );
        log.start().unwrap();
        assert!(kernel_log(&guest).is_ok());
        log.stop().unwrap();
        assert_eq!(kernel_log(&guest), Err(libc::ENOENT));
        log.start().unwrap();
        drop(log);
        assert_eq!(kernel_log(&guest), Err(libc::ENOENT));
    }
}

#[test]
fn each_migration_of_a_guest_begins_with_everything() {
    let Some((_memory, guest)) = guest() else {
        return;
    };
    for best in [LogMode::InitiallySet, LogMode::ReadClears, LogMode::Manual] {
        let mut log = KvmLog::with_mode_at_most(best, guest.fd(), guest.slots()).unwrap();
        log.start().unwrap();
        assert!(everything(&mut log));
        rearm_everything(&log);
        assert!(!everything(&mut log));
    }
}

#[test]
fn a_log_that_was_left_on_still_begins_with_everything() {
    let Some((_memory, guest)) = guest() else {
        return;
    };
    let mut first = KvmLog::new(guest.fd(), guest.slots()).unwrap();
    first.start().unwrap();
    assert!(everything(&mut first));
    rearm_everything(&first);
    // As if its process had forgotten it.
    std::mem::forget(first);
    let mut second = KvmLog::new(guest.fd(), guest.slots()).unwrap();
    second.start().unwrap();
    assert!(
        kernel_log(&guest).unwrap().iter().any(|&word| word != 0),
        "the kernel began anew"
    );
    assert!(everything(&mut second));
}

/// A block is cleared as a whole, but what was not rearmed of it stays reported, also across a
/// harvest that finds nothing new.
#[test]
fn clearing_a_block_early_forgets_nothing() {
    let Some((memory, guest)) = guest() else {
        return;
    };
    let log = KvmLog::new(guest.fd(), guest.slots()).unwrap();
    let source = Box::new(log.with_clear_block(KvmLog::CLEAR_BLOCK_CHUNKS_MAX));
    let mut world = World::new(memory, source).with_guest(guest);
    world.source.start().unwrap();
    world.drain();
    DATA.iter().step_by(100).for_each(|page| world.write(page));
    let dirty = world.harvest();
    let (first_chunk, first_pages) = dirty.chunks().next().unwrap();
    let mut first = PageSet::new(map().end());
    first.insert_chunk(first_chunk, &first_pages);
    world.copy(&first, 1);

    // One of the others is written again after it was cleared; it must not be lost either.
    let last = dirty.runs().last().unwrap().start();
    world.write(last);
    let mut rest = dirty.clone();
    rest.subtract(&first);
    for _ in 0..3 {
        assert_eq!(world.harvest(), rest);
    }
    world.drain();
    assert!(world.stale().is_empty());
    assert!(world.harvest().is_empty());
}

#[test]
fn a_slot_whose_log_was_turned_off_is_an_error() {
    let Some((_memory, guest)) = guest() else {
        return;
    };
    let mut log = KvmLog::new(guest.fd(), guest.slots()).unwrap();
    log.start().unwrap();
    guest.set_flags(0);
    let mut dirty = PageSet::new(map().end());
    let harvested = log.harvest(&mut dirty);
    assert!(
        matches!(harvested, Err(HarvestError::SlotChanged { slot: 0 })),
        "{harvested:?}"
    );
    guest.set_flags(KVM_MEM_LOG_DIRTY_PAGES);
    log.start().unwrap();
    assert!(everything(&mut log), "starting anew heals it");
}

#[test]
fn a_vm_with_a_dirty_ring_is_refused() {
    let ring = kvm_enable_cap {
        cap: KVM_CAP_DIRTY_LOG_RING,
        args: [65536, 0, 0, 0],
        ..Default::default()
    };
    let mut enabled = false;
    let Some((_memory, guest)) = guest_prepared(|vm| enabled = vm.enable_cap(&ring).is_ok()) else {
        return;
    };
    if !enabled {
        println!("SKIPPED: KVM has no dirty ring here");
        return;
    }
    let mut log = KvmLog::new(guest.fd(), guest.slots()).unwrap();
    log.start().unwrap();
    let harvested = log.harvest(&mut PageSet::new(map().end()));
    assert!(
        matches!(harvested, Err(HarvestError::DirtyRingInUse)),
        "{harvested:?}"
    );
}

#[test]
fn what_is_no_vm_or_no_slot_is_refused() {
    let file = File::open("/proc/self/maps").unwrap();
    let refused = KvmLog::new(file.as_fd(), Vec::new()).err();
    assert!(
        matches!(
            &refused,
            Some(HarvestError::Kernel {
                call: "KVM_CHECK_EXTENSION",
                ..
            })
        ),
        "{refused:?}"
    );
    let Some((_memory, guest)) = guest() else {
        return;
    };
    let twice: Vec<Slot> = [guest.slots(), guest.slots()].concat();
    let refused = KvmLog::new(guest.fd(), twice).err();
    assert!(
        matches!(refused, Some(HarvestError::BadRange { .. })),
        "{refused:?}"
    );
}

/// Slots whose ends are of no unit: smaller than a word, and not a multiple of one.
#[test]
fn slots_of_any_size_are_cleared_to_their_last_page() {
    use limosa_pages::{PageIndex, PageRange};
    let pages = |start, end| PageRange::new(PageIndex::new(start), PageIndex::new(end)).unwrap();
    let regions = vec![
        pages(0, 0x333),
        pages(0x401, 0x402),
        pages(0x402, 0x43f),
        pages(0x43f, 0x4c1),
    ];
    let small = MemoryMap::new(regions).unwrap();
    let memory = HostMemory::new(small.end().get());
    let Some(guest) = Guest::new(&memory, small.regions()) else {
        println!("SKIPPED: {:?}", probe().kvm_log);
        return;
    };
    for block in [1, 3] {
        let log = KvmLog::new(guest.fd(), guest.slots()).unwrap();
        let mut log = log.with_clear_block(block);
        log.start().unwrap();
        let mut dirty = PageSet::new(small.end());
        log.harvest(&mut dirty).unwrap();
        assert_eq!(dirty, small.full_set());
        for (chunk, mut pages) in dirty.chunks() {
            log.rearm(chunk, &mut pages).unwrap();
        }
        dirty.clear();
        assert_eq!(log.harvest(&mut dirty).unwrap().get(), 0, "{dirty:?}");
    }
}
