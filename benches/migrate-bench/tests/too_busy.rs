//! A guest that writes faster than the link sends: it stays where it is, is stopped all the same,
//! or is held back until it fits.

mod common;

use std::time::Duration;

use common::{Guest, MIB, Sending, SlowLink, Worker, bench, kinds, turn};
use serde_json::Value;

const LINK_BYTES_PER_SECOND: u64 = 30 * MIB;
const BUDGET: Duration = Duration::from_millis(20);
/// So that a slow machine's pause leaves room for pages.
const HELD_BACK_BUDGET: Duration = Duration::from_millis(100);

fn over_busy(kind: &'static str) -> Guest {
    Guest {
        kind,
        memory_mib: 48,
        working_set_mib: 24,
        dirty_mib_per_second: 200,
    }
}

/// The numbers before each `MiB/s` of a text.
fn rates(text: &str) -> Vec<u64> {
    let before = text.split(" MiB/s").map(|part| part.rsplit(' ').next());
    before.filter_map(|word| word?.parse().ok()).collect()
}

#[test]
fn fails_with_both_rates_and_leaves_the_guest_on_the_source() {
    let _turn = turn();
    for kind in kinds() {
        let mut source = Worker::with(over_busy(kind));
        let (_target, endpoint) = Worker::target_for(kind);
        let link = SlowLink::to(&endpoint, LINK_BYTES_PER_SECOND);
        source.send(
            link.endpoint(),
            Sending {
                downtime: BUDGET,
                on_stall: "fail",
            },
        );
        let ending = &source.answer("sent")["side"]["ending"];
        eprintln!("{kind}: {ending}");
        assert_eq!(ending["outcome"], "failed", "{ending}");
        assert_eq!(ending["custody"], "source", "{ending}");
        let error = ending["error"].as_str().unwrap();
        let [written, sent] = rates(error)[..] else {
            panic!("not two rates: {error}");
        };
        assert!(
            sent > 5 && sent < 60,
            "{sent} MiB/s over this link: {error}"
        );
        assert!(written > sent / 2, "{written} MiB/s written: {error}");
        assert!(error.contains("20 ms"), "no budget: {error}");
        assert!(error.contains("on-stall stop"), "no remedy: {error}");
        source.check();
    }
}

#[test]
fn is_stopped_for_longer_when_asked() {
    let _turn = turn();
    for kind in kinds() {
        let mut source = Worker::with(over_busy(kind));
        let (mut target, endpoint) = Worker::target_for(kind);
        let link = SlowLink::to(&endpoint, LINK_BYTES_PER_SECOND);
        source.send(
            link.endpoint(),
            Sending {
                downtime: BUDGET,
                on_stall: "stop",
            },
        );
        let side = &source.answer("sent")["side"];
        assert_eq!(side["ending"]["outcome"], "completed", "{side}");
        let downtime = side["figures"]["downtime_ms"].as_f64().unwrap();
        assert!(downtime > 20.0 && downtime < 5e3, "{downtime} ms");
        target.answer("landed");
        target.check();
    }
}

/// Has the worker move its guest over a link that is too slow for it, and gives the source's side.
fn sent(source: &mut Worker, endpoint: &str, on_stall: &'static str) -> Value {
    let link = SlowLink::to(endpoint, LINK_BYTES_PER_SECOND);
    source.send(
        link.endpoint(),
        Sending {
            downtime: HELD_BACK_BUDGET,
            on_stall,
        },
    );
    source.answer("sent")["side"].take()
}

/// Whether the guest writes about as much as it is to, now that nothing holds it back.
fn assert_writes_freely(target: &mut Worker, guest: Guest) {
    let before = target.writes();
    std::thread::sleep(Duration::from_millis(500));
    let written_mib = (target.writes() - before) * 4096 / MIB;
    assert!(
        written_mib > guest.dirty_mib_per_second / 2 / 4,
        "{written_mib} MiB in half a second"
    );
}

#[test]
fn is_held_back_until_it_fits_and_runs_freely_on_the_target() {
    let _turn = turn();
    for kind in kinds() {
        let mut source = Worker::with(over_busy(kind));
        let (mut target, endpoint) = Worker::target_for(kind);
        let side = sent(&mut source, &endpoint, "throttle");
        assert_eq!(side["ending"]["outcome"], "completed", "{side}");
        let convergence = &side["figures"]["convergence"];
        assert_eq!(convergence["stalled"], "throttle", "{convergence}");
        let slowed = convergence["slowed"].as_array().unwrap();
        let (let_go, slowed) = slowed.split_last().unwrap();
        assert!(let_go["run_share"].is_null(), "{convergence}");
        let shares = slowed.iter().map(|step| step["run_share"].as_f64());
        let shares: Vec<f64> = shares.map(Option::unwrap).collect();
        assert!(
            shares.iter().all(|share| (0.02..1.0).contains(share)),
            "{shares:?}"
        );
        assert!(
            !shares.is_empty() && shares.is_sorted_by(|one, next| one > next),
            "{shares:?}"
        );
        target.answer("landed");
        assert_writes_freely(&mut target, over_busy(kind));
        target.check();
    }
}

#[test]
fn its_writers_are_limited_until_it_fits() {
    let _turn = turn();
    if !kinds().contains(&"kvm") {
        println!("SKIPPED: writers of a process guest can't be told apart, and here is no KVM");
        return;
    }
    let guest = over_busy("kvm");
    let mut source = Worker::with_tracking(guest, "ring");
    let (mut target, endpoint) = Worker::target_for("kvm");
    let side = sent(&mut source, &endpoint, "limit");
    assert_eq!(side["ending"]["outcome"], "completed", "{side}");
    let convergence = &side["figures"]["convergence"];
    assert_eq!(convergence["stalled"], "limit", "{convergence}");
    let limit = &convergence["slowed"][0]["dirty_bytes_per_second"];
    assert!(limit.as_u64().unwrap() < 200 * MIB, "{convergence}");
    target.answer("landed");
    assert_writes_freely(&mut target, guest);
    target.check();
}

#[test]
fn a_limit_that_can_not_be_is_wrong_usage() {
    for (words, says) in [
        ("--guest process", "--on-stall throttle"),
        ("--guest kvm --tracking log", "--tracking log"),
    ] {
        let done = bench(&format!("run {words} --on-stall limit --memory 64MiB"));
        if words.contains("kvm") && !kinds().contains(&"kvm") {
            println!("SKIPPED: {words}: here is no KVM");
            continue;
        }
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.err.contains(says), "{done:?}");
    }
}

#[test]
fn the_command_says_it_by_its_exit_status() {
    let _turn = turn();
    for (on_stall, status) in [("fail", 1), ("stop", 0)] {
        let (_target, endpoint) = Worker::target_for("process");
        let link = SlowLink::to(&endpoint, LINK_BYTES_PER_SECOND);
        let done = bench(&format!(
            "source --to {} --guest process --memory 48MiB --working-set 24MiB --codec none \
             --dirty-rate 200MiB/s --downtime 20ms --on-stall {on_stall} --verify --quiet",
            link.endpoint()
        ));
        assert_eq!(done.code, Some(status), "{done:?}");
        if status != 0 {
            assert_eq!(rates(&done.err).len(), 2, "{done:?}");
            assert!(done.err.contains("the guest is with: source"), "{done:?}");
            assert!(done.err.contains("all its memory right"), "{done:?}");
        }
    }
}
