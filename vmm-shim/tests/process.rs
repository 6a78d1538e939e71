//! Process guests do what guests on KVM do: work, stand still, move, and find every byte of theirs.

use std::time::Duration;

use limosa_pages::PageSet;
use limosa_payload::GuestBytes;
use limosa_payload::protocol::{Fill, Pattern, Probe};
use limosa_shim::{Backing, GuestSpec, HostSpec, ProcessGuest, ProcessHost, Workload};

const LONG: Duration = Duration::from_secs(60);

fn copy_memory(from: &ProcessGuest, to: &ProcessGuest) {
    for pages in from.pages().ram().map().regions() {
        let source = from.pages().ram().slice(*pages).expect("source");
        let target = to.pages().ram().slice(*pages).expect("target");
        source.copy_to_volatile_slice(target);
        let poison = vec![0xaa_u8; source.len()];
        source.copy_from(&poison);
    }
}

fn hop_many(spec: &GuestSpec, hops: usize) {
    let mut host = ProcessHost::new(HostSpec::default()).expect("host");
    let mut guest = ProcessGuest::boot(spec).expect("boot");
    for hop in 1..=hops {
        // Also in the middle of the filling, and of a check.
        std::thread::sleep(Duration::from_millis(2));
        let mut next = host.prepare(&guest.offer()).expect("prepare");
        if hop % 3 == 0 {
            guest.probe().expect("probe").post_check();
        }
        guest.pause().expect("pause");
        let sections = guest.export_state().expect("export");
        copy_memory(&guest, &next);
        guest.release().expect("release");
        next.restore_state(sections).expect("restore");
        next.resume().expect("resume");
        guest = next;
    }
    guest.wait_ready(LONG).expect("ready");
    let report = guest.check(LONG).expect("check");
    assert!(report.intact(), "{report:?}");
    for vcpu in guest.stats().expect("stats") {
        assert!(vcpu.writes > 0, "{vcpu:?}");
        // A thread that gets no slice between two hops sees them as one.
        assert!(vcpu.downtimes.len() <= hops, "{vcpu:?}");
        assert!(vcpu.downtime(hops as u64).is_some(), "{vcpu:?}");
    }
}

#[test]
fn every_pattern_survives_many_hops() {
    for (pattern, vcpu_count, probe) in [
        (Pattern::Sequential, 1, Probe::Spin),
        (Pattern::Random, 2, Probe::Spin),
        (Pattern::HotCold, 3, Probe::Sleep),
    ] {
        let mut spec = GuestSpec::new(40 << 20);
        spec.vcpu_count = vcpu_count;
        spec.workload.fill = Fill::Mixed;
        spec.workload.touched_percent = 70;
        spec.workload.working_set_bytes = 4 << 20;
        spec.workload.dirty_pages_per_second = 50_000;
        spec.workload.pattern = pattern;
        spec.workload.probe = probe;
        hop_many(&spec, 31);
    }
}

#[test]
fn a_damaged_page_and_a_lost_write_are_found() {
    let mut spec = GuestSpec::new(40 << 20);
    spec.workload.working_set_bytes = 1 << 20;
    let guest = ProcessGuest::boot(&spec).expect("boot");
    guest.wait_ready(LONG).expect("ready");
    assert!(guest.check(LONG).expect("check").intact());
    guest.view().write(30 << 20, b"!");
    let report = guest.check(LONG).expect("check");
    assert_eq!((report.bad_pages, report.first_bad), (1, Some(30 << 20)));
    // The write counter of a page of the working set.
    guest.view().write(16 << 20, &7u32.to_le_bytes());
    assert_eq!(guest.check(LONG).expect("check").bad_pages, 2);
}

#[test]
fn all_its_writes_are_harvested() {
    for backing in [Backing::Anonymous, Backing::Memfd] {
        all_writes_are_harvested(backing);
    }
}

fn all_writes_are_harvested(backing: Backing) {
    let mut spec = GuestSpec::new(40 << 20);
    spec.backing = backing;
    // Chunks that hold nothing are written later, by the guest's host.
    spec.workload.touched_percent = 50;
    spec.workload.working_set_bytes = 4 << 20;
    spec.workload.dirty_pages_per_second = 100_000;
    let mut guest = ProcessGuest::boot(&spec).expect("boot");
    guest.wait_ready(LONG).expect("ready");
    let mut source = match guest.dirty_source() {
        Ok(source) => source,
        Err(error) => {
            println!("SKIPPED: {error}");
            return;
        }
    };
    if let Err(error) = source.start() {
        println!("SKIPPED: {error}");
        return;
    }
    let mut mirror = vec![0_u8; 40 << 20];
    for round in 0..5 {
        // The last round is of a guest that stands still: then the mirror is the truth.
        if round == 4 {
            guest.pause().expect("pause");
        }
        let mut dirty = PageSet::new(guest.pages().ram().map().end());
        source.harvest(&mut dirty).expect("harvest");
        for (chunk, mut pages) in dirty.chunks() {
            source.rearm(chunk, &mut pages).expect("rearm");
            for (first, count) in pages.runs() {
                let start = chunk.page(first).address().get() as usize;
                let bytes = usize::from(count) * 4096;
                let memory = guest.pages().ram().bytes(start as u64, bytes);
                memory
                    .expect("memory")
                    .copy_to(&mut mirror[start..start + bytes]);
            }
        }
        if round < 4 {
            let late = (32 << 20) + (round << 21);
            guest.view().write(late, b"where nothing was before");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let memory = guest.pages().ram().bytes(0, 40 << 20).expect("memory");
    let mut truth = vec![0_u8; 40 << 20];
    memory.copy_to(&mut truth);
    let differs = truth
        .chunks(4096)
        .zip(mirror.chunks(4096))
        .position(|(a, b)| a != b);
    assert_eq!(differs, None, "page");
    source.stop().expect("stop");
}
