//! A guest that writes faster than the link sends: it stays where it is, or is stopped all the
//! same.

mod common;

use std::time::Duration;

use common::{Guest, MIB, Sending, SlowLink, Worker, bench, kinds, turn};

const LINK_BYTES_PER_SECOND: u64 = 30 * MIB;
const BUDGET: Duration = Duration::from_millis(20);

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
