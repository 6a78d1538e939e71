//! What only page tables promise: writes by the kernel, pages consumed beyond those asked for, and
//! which pages are populated at all. The contract of every source is tested in `conformance.rs`.

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::memory::HostMemory;
use common::writer::DATA;
use common::{World, map};
use limosa_dirty::{
    Choice, DirtySource, GuestKind, HarvestError, KernelReport, LogMode, Mapping, NoSource,
    PagemapScan, Presence, SourceKind, Unavailable, huge_use, present_pages, probe,
};
use limosa_pages::{CHUNK_PAGES, ChunkPages, PageCount, PageIndex, PageRange, PageSet};

fn scans() -> bool {
    let pagemap_scan = probe().pagemap_scan;
    if let Err(unavailable) = &pagemap_scan {
        println!("SKIPPED: {unavailable}");
    }
    pagemap_scan.is_ok()
}

fn world() -> World {
    let memory = Arc::new(HostMemory::new(map().end().get()));
    let mappings = map()
        .regions()
        .iter()
        .map(|&pages| memory.mapping(pages))
        .collect();
    let source = Box::new(PagemapScan::new(mappings).unwrap());
    World::new(memory, source).with_thread(|_| ())
}

fn data_page(offset: u64) -> PageIndex {
    DATA.start().saturating_add(PageCount::new(offset))
}

#[test]
fn rearm_hands_over_what_it_consumed() {
    if !scans() {
        return;
    }
    let mut world = world();
    world.start();
    world.drain();
    let (asked, besides) = (data_page(0), data_page(9));
    world.write(asked);
    world.harvest();
    world.write(besides);
    let mut pages = ChunkPages::EMPTY;
    pages.insert(asked.offset_in_chunk());
    world.source.rearm(asked.chunk(), &mut pages).unwrap();
    assert!(pages.contains(besides.offset_in_chunk()));
    assert_eq!(pages.count(), 2);
    assert!(world.harvest().is_empty());
}

#[test]
fn writes_by_the_kernel_are_seen() {
    if !scans() {
        return;
    }
    let mut world = world();
    world.start();
    world.drain();
    world.memory.write_through_kernel(data_page(77), 5);
    let dirty = world.drain();
    assert_eq!(dirty.count().get(), 1);
    assert!(dirty.contains(data_page(77)));
    assert!(world.stale().is_empty());
}

#[test]
fn memory_that_cannot_be_watched_is_an_error() {
    if !scans() {
        return;
    }
    let memory = HostMemory::new(CHUNK_PAGES);
    let pages = PageRange::new(PageIndex::new(0), PageIndex::new(CHUNK_PAGES)).unwrap();
    let mapping = memory.mapping(pages);
    let mut first = PagemapScan::new(vec![mapping]).unwrap();
    let mut second = PagemapScan::new(vec![mapping]).unwrap();
    first.start().unwrap();
    let refused = second.start();
    assert!(
        matches!(
            &refused,
            Err(HarvestError::Kernel {
                call: "UFFDIO_REGISTER",
                ..
            })
        ),
        "{refused:?}"
    );
    first.stop().unwrap();
    second.start().unwrap();

    let nowhere = Mapping {
        host_address: 1 << 30,
        pages,
    };
    let refused = PagemapScan::new(vec![nowhere]).unwrap().start();
    assert!(
        matches!(refused, Err(HarvestError::Kernel { .. })),
        "{refused:?}"
    );
    let refused = PagemapScan::new(vec![mapping, mapping]).err();
    assert!(
        matches!(refused, Some(HarvestError::BadRange { .. })),
        "{refused:?}"
    );
}

/// Writes two pages of `memory`, reads one, and writes and discards one.
fn use_some(memory: &HostMemory) -> [u64; 2] {
    for page in [3, 4, 700] {
        memory
            .counter(PageIndex::new(page))
            .store(1, Ordering::Relaxed);
    }
    memory.counter(PageIndex::new(9)).load(Ordering::Relaxed);
    memory.discard(PageRange::new(PageIndex::new(4), PageIndex::new(5)).unwrap());
    [3, 700]
}

fn all(page_count: u64) -> PageRange {
    PageRange::new(PageIndex::new(0), PageIndex::new(page_count)).unwrap()
}

#[test]
fn only_pages_that_were_written_are_present() {
    if !scans() {
        return;
    }
    let memory = HostMemory::new(3 * CHUNK_PAGES);
    let used = use_some(&memory);
    let mut present = Vec::new();
    present_pages(memory.address(), all(3 * CHUNK_PAGES), &mut |run| {
        present.extend(run.iter().map(PageIndex::get));
    });
    assert_eq!(present, used);

    // The guest's pages begin within a chunk, and there is a hole in them.
    let pages = PageRange::new(PageIndex::new(100), PageIndex::new(100 + CHUNK_PAGES)).unwrap();
    let beyond = PageRange::new(PageIndex::new(2000), PageIndex::new(2100)).unwrap();
    let presence = Presence::new(vec![
        Mapping {
            host_address: memory.address(),
            pages,
        },
        Mapping {
            host_address: memory.address() + PageCount::new(690).bytes(),
            pages: beyond,
        },
    ]);
    assert_eq!(presence.told_count(), PageCount::new(CHUNK_PAGES + 100));
    let present = |page: u64| {
        let page = PageIndex::new(page);
        presence
            .chunk(page.chunk())
            .contains(page.offset_in_chunk())
    };
    assert!(present(103) && present(2010));
    let chunk_counts: Vec<_> = all(4096)
        .chunks()
        .map(|(chunk, _)| presence.chunk(chunk).count())
        .collect();
    assert_eq!(chunk_counts, [1, 0, 0, 1, 0, 0, 0, 0]);
}

/// Rearmed pages are protected where they hold something, and only there: what was never touched
/// stays so, and the first write to it is seen all the same.
#[test]
fn watching_makes_nothing_present() {
    if !scans() {
        return;
    }
    let memory = HostMemory::new(3 * CHUNK_PAGES);
    let pages = all(3 * CHUNK_PAGES);
    let used = use_some(&memory);
    let mut source = PagemapScan::new(vec![memory.mapping(pages)]).unwrap();
    let presence = Presence::new(vec![memory.mapping(pages)]);
    let present = || {
        let mut present = Vec::new();
        presence.each_run(pages, &mut |run| {
            present.extend(run.iter().map(PageIndex::get));
        });
        present
    };
    let mut dirty = PageSet::new(pages.end());
    let mut drain = |source: &mut PagemapScan| {
        dirty.clear();
        source.harvest(&mut dirty).unwrap();
        for (chunk, mut pages) in dirty.chunks() {
            source.rearm(chunk, &mut pages).unwrap();
        }
        let pages: Vec<_> = dirty.runs().flat_map(PageRange::iter).collect();
        pages.into_iter().map(PageIndex::get).collect::<Vec<_>>()
    };
    source.start().unwrap();
    // The page that only was read counts as written.
    assert_eq!(drain(&mut source), [3, 9, 700]);
    assert_eq!(present(), used);
    assert_eq!(drain(&mut source), []);
    // A page among used ones, one in a chunk without any, and one that only was read before.
    for page in [5, 9, 1100] {
        memory
            .counter(PageIndex::new(page))
            .store(2, Ordering::Relaxed);
    }
    assert_eq!(drain(&mut source), [5, 9, 1100]);
    assert_eq!(present(), [3, 5, 9, 700, 1100]);
}

#[test]
fn shared_memory_counts_as_present() {
    let memory = HostMemory::shared(CHUNK_PAGES);
    memory
        .counter(PageIndex::new(3))
        .store(1, Ordering::Relaxed);
    let presence = Presence::new(vec![memory.mapping(all(CHUNK_PAGES))]);
    assert_eq!(presence.told_count(), PageCount::ZERO);
    assert_eq!(presence.chunk(PageIndex::new(0).chunk()), ChunkPages::FULL);
}

#[test]
fn huge_pages_are_counted() {
    if !scans() {
        return;
    }
    let page_count = 4 * CHUNK_PAGES;
    let memory = HostMemory::huge(page_count);
    let huge = huge_use(memory.address(), all(page_count)).unwrap();
    assert_eq!(
        (huge.populated, huge.huge),
        (PageCount::ZERO, PageCount::ZERO)
    );
    for page in all(page_count).iter() {
        memory.counter(page).store(1, Ordering::Relaxed);
    }
    let huge = huge_use(memory.address(), all(page_count)).unwrap();
    assert_eq!(huge.populated, PageCount::new(page_count));
    if huge.huge == PageCount::ZERO {
        println!("SKIPPED: the kernel gave no huge pages");
        return;
    }
    // The mapping begins and ends within a huge page.
    assert!(huge.share() > 0.5, "{huge:?}");
    let base = HostMemory::new(CHUNK_PAGES);
    use_some_of_one_chunk(&base);
    assert_eq!(
        huge_use(base.address(), all(CHUNK_PAGES)).unwrap().huge,
        PageCount::ZERO
    );
}

fn use_some_of_one_chunk(memory: &HostMemory) {
    memory
        .counter(PageIndex::new(3))
        .store(1, Ordering::Relaxed);
}

fn missing() -> Unavailable {
    Unavailable::NoFeature {
        feature: "UFFD_FEATURE_WP_ASYNC",
        since: "6.7",
    }
}

fn no_kvm() -> Unavailable {
    let error = std::io::Error::from_raw_os_error(libc::ENOENT);
    Unavailable::NoFile {
        path: "/dev/kvm",
        error,
        remedy: "load kvm_amd",
    }
}

#[test]
fn the_choice_follows_from_the_report() {
    let report = |kvm_log, pagemap_scan| KernelReport {
        kvm_log,
        kvm_ring: Err(no_kvm()),
        pagemap_scan,
    };
    let source = |choice: Choice| choice.source;
    let mode = LogMode::InitiallySet;

    let both = report(Ok(mode), Ok(())).choose(GuestKind::Kvm).map(source);
    assert_eq!(both.unwrap(), SourceKind::KvmLog);
    let scan_only = report(Err(no_kvm()), Ok(()))
        .choose(GuestKind::Kvm)
        .map(source);
    assert_eq!(scan_only.unwrap(), SourceKind::PagemapScan);
    let process = report(Ok(mode), Ok(()))
        .choose(GuestKind::Process)
        .map(source);
    assert_eq!(process.unwrap(), SourceKind::PagemapScan);

    let none = report(Err(no_kvm()), Err(missing()))
        .choose(GuestKind::Kvm)
        .unwrap_err();
    let text = none.to_string();
    assert!(
        text.contains("/dev/kvm") && text.contains("load kvm_amd"),
        "{text}"
    );
    assert!(
        text.contains("UFFD_FEATURE_WP_ASYNC") && text.contains("6.7"),
        "{text}"
    );
    let none = report(Ok(mode), Err(missing()))
        .choose(GuestKind::Process)
        .unwrap_err();
    assert!(
        matches!(none, NoSource::None { kvm_log: None, .. }),
        "{none}"
    );
}

#[test]
fn what_is_asked_for_is_had_or_refused_with_a_remedy() {
    let report = || KernelReport {
        kvm_log: Err(no_kvm()),
        kvm_ring: Ok(1 << 20),
        pagemap_scan: Ok(()),
    };
    for (wanted, guest) in [
        (SourceKind::KvmRing, GuestKind::Kvm),
        (SourceKind::PagemapScan, GuestKind::Kvm),
        (SourceKind::PagemapScan, GuestKind::Process),
    ] {
        let choice = report().choose_named(wanted, guest).unwrap();
        assert_eq!(choice.source, wanted);
        assert!(choice.to_string().contains("asked for"), "{choice}");
    }
    let text = |wanted, guest| {
        report()
            .choose_named(wanted, guest)
            .unwrap_err()
            .to_string()
    };
    let missing = text(SourceKind::KvmLog, GuestKind::Kvm);
    assert!(missing.contains("load kvm_amd"), "{missing}");
    for wanted in [SourceKind::KvmLog, SourceKind::KvmRing] {
        let senseless = text(wanted, GuestKind::Process);
        assert!(senseless.contains("page table scans"), "{senseless}");
    }
}
