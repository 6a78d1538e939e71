//! A guest moves from one machine to the next on the same host, many times: memory is copied, the
//! old copy is poisoned, and the guest finds every byte and every write of its own.

use std::time::{Duration, Instant};

use limosa_payload::protocol::{Fill, Pattern, Probe};
use limosa_shim::{GuestSpec, KvmGuest, Workload};

mod common;

const LONG: Duration = Duration::from_secs(60);

/// A vCPU that gets no time between two hops sees one gap instead of two.
fn wait_until_noticed(guest: &KvmGuest, hop: u32) {
    let begun = Instant::now();
    let noticed = || {
        let vcpus = guest.stats().expect("stats");
        vcpus.iter().all(|vcpu| vcpu.downtimes.len() as u32 == hop)
    };
    while !noticed() {
        assert!(begun.elapsed() < LONG, "hop {hop} was not noticed");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn hop_many(spec: &GuestSpec, hops: u32) {
    let mut guest = KvmGuest::boot(spec).expect("boot");
    guest.wait_ready(LONG).expect("ready");
    let (mut export, mut restore) = (Vec::new(), Vec::new());
    for hop in 1..=hops {
        let mut next = common::arriving(&guest);
        guest.pause().expect("pause");
        // Reading all memory twice is most of a hop's time.
        let digest = (hop % 8 == 1).then(|| guest.memory_digest().expect("digest"));
        let begun = Instant::now();
        let sections = guest.export_state().expect("export");
        export.push(begun.elapsed());
        common::copy_memory(&guest, &next);
        if let Some(digest) = digest {
            assert_eq!(next.memory_digest().expect("digest"), digest);
        }
        common::poison(&guest);
        guest.release().expect("release");
        drop(guest);
        let begun = Instant::now();
        next.restore_state(sections).expect("restore");
        restore.push(begun.elapsed());
        next.resume().expect("resume");
        guest = next;
        wait_until_noticed(&guest, hop);
        if hop % 10 == 0 {
            let report = guest.check(LONG).expect("check");
            assert!(report.intact(), "hop {hop}: {report:?}");
        }
    }
    for vcpu in guest.stats().expect("stats") {
        assert_eq!(vcpu.steps_back, 0, "time went backwards");
        let known = |(_, gap): &(u64, Duration)| *gap < Duration::from_secs(5);
        assert!(vcpu.downtimes.iter().all(known), "{:?}", vcpu.downtimes);
    }
    export.sort_unstable();
    restore.sort_unstable();
    let middle = hops as usize / 2;
    println!(
        "{} vCPUs, {hops} hops: export p50 {:?}, restore p50 {:?}",
        spec.vcpu_count, export[middle], restore[middle]
    );
}

#[test]
fn one_vcpu_survives_forty_hops() {
    if common::no_kvm() {
        return;
    }
    let mut spec = GuestSpec::new(48 << 20);
    spec.workload.fill = Fill::Mixed;
    spec.workload.working_set_bytes = 8 << 20;
    spec.workload.dirty_pages_per_second = 50_000;
    hop_many(&spec, 40);
}

#[test]
fn two_vcpus_survive_thirty_hops() {
    if common::no_kvm() {
        return;
    }
    let mut spec = GuestSpec::new(48 << 20);
    spec.vcpu_count = 2;
    spec.workload.working_set_bytes = 8 << 20;
    spec.workload.dirty_pages_per_second = 50_000;
    spec.workload.pattern = Pattern::HotCold;
    hop_many(&spec, 30);
}

#[test]
fn eight_vcpus_survive_ten_hops() {
    if common::no_kvm() {
        return;
    }
    let mut spec = GuestSpec::new(96 << 20);
    spec.vcpu_count = 8;
    spec.workload.working_set_bytes = 8 << 20;
    spec.workload.dirty_pages_per_second = 20_000;
    spec.workload.pattern = Pattern::Random;
    hop_many(&spec, 10);
}

#[test]
fn a_sleeping_guest_keeps_its_timer() {
    if common::no_kvm() {
        return;
    }
    let mut spec = GuestSpec::new(48 << 20);
    spec.vcpu_count = 2;
    spec.workload.probe = Probe::Sleep;
    spec.workload.working_set_bytes = 4 << 20;
    spec.workload.dirty_pages_per_second = 5_000;
    hop_many(&spec, 10);
}
