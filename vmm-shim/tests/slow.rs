//! Guests that are held back: they do less, they do as much as before once they are let go, and a
//! pause in the midst of it finds a guest that is as whole as any.

use std::time::{Duration, Instant};

use limosa::{Slowdown, SourceGuest};
use limosa_pages::PageSet;
use limosa_payload::protocol::{Fill, Pattern, Probe};
use limosa_shim::{
    GuestKind, GuestSpec, KvmGuest, ProcessGuest, RunState, ShimError, Tracking, Workload,
};

mod common;

const LONG: Duration = Duration::from_secs(60);

/// How long a guest is watched at a time, and how often free and held back in turn: what else the
/// host does then meets both alike.
const WINDOW: Duration = Duration::from_millis(200);
const WINDOWS: usize = 4;

const DUTY: Slowdown = Slowdown::DutyCycle { run_permille: 50 };

/// vCPUs that write as much as they can, and spin.
fn busy(tracking: Tracking) -> GuestSpec {
    let mut spec = GuestSpec::new(64 << 20);
    spec.vcpu_count = 2;
    spec.tracking = tracking;
    spec.workload.fill = Fill::Mixed;
    spec.workload.working_set_bytes = 16 << 20;
    spec.workload.dirty_pages_per_second = 1_000_000;
    spec.workload.pattern = Pattern::Random;
    spec.workload.probe = Probe::Spin;
    spec
}

fn cpu_time(guest: &impl Workload) -> Duration {
    guest.vcpu_cpu_times().iter().sum()
}

/// What `measure` grows by while the guest is free, and while it is held back.
fn free_and_held<G: SourceGuest + Workload, T>(
    guest: &mut G,
    slowdown: Slowdown,
    mut measure: impl FnMut(&G) -> T,
    mut add: impl FnMut(usize, T, T),
) {
    for _ in 0..WINDOWS {
        for (nth, slowdown) in [Slowdown::None, slowdown].into_iter().enumerate() {
            guest.slow(slowdown).expect("slow");
            let before = measure(guest);
            std::thread::sleep(WINDOW);
            let after = measure(guest);
            add(nth, before, after);
        }
    }
    guest.slow(Slowdown::None).expect("let go");
}

fn wait_for_writes(guest: &impl Workload) {
    let writes = || -> u64 {
        let vcpus = guest.stats().expect("stats");
        vcpus.iter().map(|vcpu| vcpu.writes).min().unwrap_or(0)
    };
    let (before, begun) = (writes(), Instant::now());
    while writes() <= before {
        assert!(begun.elapsed() < LONG, "it writes no more");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn takes_its_share<G: SourceGuest + Workload>(guest: &mut G) {
    let mut sums = [Duration::ZERO; 2];
    free_and_held(guest, DUTY, cpu_time, |nth, before, after| {
        sums[nth] += after - before;
    });
    let [free, held] = sums;
    println!("CPU time of vCPUs: free {free:?}, at 5 % {held:?}");
    // Where others take the processors, the free guest does little, too.
    let little = WINDOW * WINDOWS as u32 * 2 / 5;
    assert!(held * 3 < free || held < little, "{held:?} of {free:?}");
    wait_for_writes(guest);
}

/// The guest stands still in the midst of turns, goes on, and misses nothing.
fn pauses_whole<G: SourceGuest + Workload>(guest: &mut G, is_paused: impl Fn(&G) -> bool) {
    for nth in 0..30_u16 {
        let run_permille = 1 + nth * 33;
        let slowdown = Slowdown::DutyCycle { run_permille };
        guest.slow(slowdown).expect("slow");
        std::thread::sleep(Duration::from_millis(u64::from(nth % 7)));
        SourceGuest::pause(guest).expect("pause");
        assert!(is_paused(guest));
        let digest = guest.memory_digest().expect("digest");
        assert!(!guest.export_state().expect("state").is_empty());
        assert_eq!(guest.memory_digest().expect("digest"), digest);
        let refused = guest.slow(slowdown);
        assert!(refused.is_err(), "it does not run");
        guest.slow(Slowdown::None).expect("nothing to undo");
        SourceGuest::resume(guest).expect("resume");
    }
    wait_for_writes(guest);
    let report = guest.check(LONG).expect("check");
    assert!(report.intact(), "{report:?}");
}

#[test]
fn a_guest_on_kvm_takes_its_share_of_the_time() {
    if common::no_kvm() {
        return;
    }
    let mut guest = KvmGuest::boot(&busy(Tracking::Auto)).expect("boot");
    guest.wait_ready(LONG).expect("ready");
    takes_its_share(&mut guest);
    pauses_whole(&mut guest, |guest| guest.run_state() == RunState::Paused);
}

#[test]
fn a_process_guest_takes_its_share_of_the_time() {
    let mut guest = ProcessGuest::boot(&busy(Tracking::Auto)).expect("boot");
    guest.wait_ready(LONG).expect("ready");
    takes_its_share(&mut guest);
    pauses_whole(&mut guest, |guest| guest.run_state() == RunState::Paused);
}

/// Harvests and rearms all that is written, again and again, while `during` runs.
fn while_recording(guest: &mut KvmGuest, during: impl FnOnce(&mut KvmGuest)) {
    let mut source = guest.dirty_source().expect("source");
    source.start().expect("start");
    let end = guest.pages().ram().map().end();
    std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            let mut dirty = PageSet::new(end);
            while stopped
                .recv_timeout(Duration::from_millis(5))
                .is_err_and(|error| error == std::sync::mpsc::RecvTimeoutError::Timeout)
            {
                dirty.clear();
                source.harvest(&mut dirty).expect("harvest");
                for (chunk, mut pages) in dirty.chunks() {
                    source.rearm(chunk, &mut pages).expect("rearm");
                }
            }
            let vcpus = source.vcpu_pages();
            assert!(vcpus.len() == 2 && vcpus.iter().all(|pages| pages.get() > 0));
            source.stop().expect("stop");
        });
        during(guest);
        drop(stop);
    });
}

#[test]
fn a_guest_with_rings_is_held_to_its_limit() {
    if common::no_kvm() {
        return;
    }
    if let Err(error) = Tracking::Ring.choose(GuestKind::Kvm) {
        println!("SKIPPED: {error}");
        return;
    }
    let mut guest = KvmGuest::boot(&busy(Tracking::Ring)).expect("boot");
    guest.wait_ready(LONG).expect("ready");
    while_recording(&mut guest, |guest| {
        let limit = Slowdown::DirtyLimit {
            bytes_per_second: 4 << 20,
        };
        let mut sums = [0, 0];
        let writes = |guest: &KvmGuest| {
            let vcpus = guest.stats().expect("stats");
            vcpus.iter().map(|vcpu| vcpu.writes).sum::<u64>()
        };
        free_and_held(guest, limit, writes, |nth, before, after| {
            sums[nth] += after - before;
        });
        let [free, held] = sums;
        println!("writes: free {free}, held to 1024 pages/s and vCPU {held}");
        let little = 20_000;
        assert!(held * 3 < free || held < little, "{held} of {free}");
        wait_for_writes(guest);
        // Where a vCPU waits for its quota, a pause need not.
        guest.slow(limit).expect("slow");
        std::thread::sleep(WINDOW);
        guest.pause().expect("pause");
        assert_eq!(guest.run_state(), RunState::Paused);
        guest.resume().expect("resume");
        wait_for_writes(guest);
    });
    let report = guest.check(LONG).expect("check");
    assert!(report.intact(), "{report:?}");
}

#[test]
fn a_limit_without_rings_is_refused_with_what_to_do() {
    let limit = Slowdown::DirtyLimit {
        bytes_per_second: 1 << 20,
    };
    let mut process = ProcessGuest::boot(&GuestSpec::new(32 << 20)).expect("boot");
    let refused = |error: ShimError| {
        let text = error.to_string();
        assert!(text.contains("--tracking ring"), "{text}");
    };
    refused(process.slow(limit).expect_err("no rings"));
    if common::no_kvm() {
        return;
    }
    for tracking in [Tracking::Log, Tracking::Pagemap] {
        let mut spec = GuestSpec::new(32 << 20);
        spec.tracking = tracking;
        match KvmGuest::boot(&spec) {
            Ok(mut guest) => refused(guest.slow(limit).expect_err("no rings")),
            Err(ShimError::Tracking(error)) => println!("SKIPPED: {error}"),
            Err(error) => panic!("{error}"),
        }
    }
}
