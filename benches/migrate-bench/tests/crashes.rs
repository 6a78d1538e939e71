//! Either process is killed in the midst of a migration: the guest is safe, and nothing lingers.

mod common;

use std::time::{Duration, Instant};

use common::{Guest, MIB, Sending, SlowLink, Worker, kinds, resident_bytes, turn, wait_until};
use serde_json::Value;

/// Longest time from a crash until the other side knows.
const NOTICE_MAX: Duration = Duration::from_secs(5);
/// Slow enough that every round can be met in its midst.
const LINK_BYTES_PER_SECOND: u64 = 80 * MIB;
/// A pause that a guest this busy can't get over this link: rounds go on.
const NARROW: Sending = Sending {
    downtime: Duration::from_millis(10),
    on_stall: "fail",
};
const WIDE: Sending = Sending {
    downtime: Duration::from_millis(300),
    on_stall: "stop",
};

fn busy(kind: &'static str) -> Guest {
    Guest {
        kind,
        memory_mib: 96,
        working_set_mib: 48,
        dirty_mib_per_second: 75,
    }
}

fn number(progress: &Value, field: &str) -> u64 {
    progress[field].as_u64().unwrap()
}

/// When the target is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    FirstRoundEarly,
    FirstRoundLate,
    Round(u64),
}

impl Moment {
    fn has_come(self, progress: &Value) -> bool {
        let round = number(progress, "round");
        let left = number(progress, "remaining_bytes");
        let all = 96 * MIB;
        match self {
            Self::FirstRoundEarly => round == 0 && left > all / 2 && left < all,
            Self::FirstRoundLate => round == 0 && left < all / 4,
            Self::Round(least) => round >= least,
        }
    }
}

#[test]
fn a_target_that_dies_in_any_round_leaves_a_whole_guest_that_can_move_again() {
    let _turn = turn();
    for kind in kinds() {
        let mut source = Worker::with(busy(kind));
        for moment in [
            Moment::FirstRoundEarly,
            Moment::FirstRoundLate,
            Moment::Round(1),
            Moment::Round(2),
        ] {
            let (mut target, endpoint) = Worker::target_for(kind);
            let link = SlowLink::to(&endpoint, LINK_BYTES_PER_SECOND);
            source.send(link.endpoint(), NARROW);
            let progress = source.progress(|progress| moment.has_come(progress));
            target.kill();
            let killed = Instant::now();
            let side = &source.answer("sent")["side"];
            assert!(killed.elapsed() < NOTICE_MAX, "{:?}", killed.elapsed());
            let ending = &side["ending"];
            eprintln!("{kind}, {moment:?}: killed at {progress}: {ending}");
            assert_eq!(ending["outcome"], "failed", "{ending}");
            assert_eq!(ending["custody"], "source", "{ending}");
            assert!(!ending["error"].as_str().unwrap().is_empty(), "{ending}");
            let before = source.writes();
            wait_until("it goes on writing", Duration::from_secs(5), || {
                source.writes() > before
            });
            source.check();
        }
        let (mut target, endpoint) = Worker::target_for(kind);
        source.send(&endpoint, WIDE);
        let ending = &source.answer("sent")["side"]["ending"];
        assert_eq!(ending["outcome"], "completed", "{ending}");
        assert_eq!(
            target.answer("landed")["side"]["ending"]["custody"],
            "target"
        );
        target.check();
    }
}

#[test]
fn a_source_that_dies_leaves_no_guest_memory_on_the_target() {
    let _turn = turn();
    for kind in kinds() {
        for round in [0, 1] {
            let mut source = Worker::with(busy(kind));
            let (mut target, endpoint) = Worker::target_for(kind);
            let link = SlowLink::to(&endpoint, LINK_BYTES_PER_SECOND);
            source.send(link.endpoint(), NARROW);
            source.progress(|progress| {
                number(progress, "round") >= round && number(progress, "sent_bytes") > 40 * MIB
                    || number(progress, "round") > round
            });
            // What arrived is there before, so that it can be gone after.
            wait_until("guest memory on the target", Duration::from_secs(5), || {
                resident_bytes(target.id()) > 20 * MIB
            });
            source.kill();
            let killed = Instant::now();
            let ending = &target.answer("landed")["side"]["ending"];
            assert!(killed.elapsed() < NOTICE_MAX, "{:?}", killed.elapsed());
            eprintln!("{kind}, round {round}: {ending}");
            assert_eq!(ending["outcome"], "failed", "{ending}");
            assert_eq!(ending["custody"], "source", "{ending}");
            let resident = resident_bytes(target.id());
            assert!(resident < 20 * MIB, "{resident} bytes are still held");
            // It takes the next one as if nothing had happened.
            target.order(&serde_json::json!({
                "do": "listen", "endpoint": "tcp://127.0.0.1:0", "kind": kind,
                "backing": "anonymous", "io": "auto", "digest": false,
            }));
            let listening = target.answer("listening");
            let mut fresh = Worker::with(busy(kind));
            fresh.send(listening["endpoint"].as_str().unwrap(), WIDE);
            fresh.answer("sent");
            target.answer("landed");
            target.check();
        }
    }
}

#[test]
fn a_cancelled_move_leaves_a_whole_guest() {
    let _turn = turn();
    for kind in kinds() {
        let mut source = Worker::with(busy(kind));
        let (mut target, endpoint) = Worker::target_for(kind);
        let link = SlowLink::to(&endpoint, LINK_BYTES_PER_SECOND);
        source.send(link.endpoint(), NARROW);
        source.progress(|progress| number(progress, "sent_bytes") > 0);
        source.order(&serde_json::json!({"do": "cancel"}));
        let cancelled = Instant::now();
        let ending = &source.answer("sent")["side"]["ending"];
        assert!(
            cancelled.elapsed() < NOTICE_MAX,
            "{:?}",
            cancelled.elapsed()
        );
        assert_eq!(ending["outcome"], "cancelled", "{ending}");
        assert_eq!(ending["custody"], "source", "{ending}");
        let ending = &target.answer("landed")["side"]["ending"];
        assert!(
            cancelled.elapsed() < NOTICE_MAX,
            "{:?}",
            cancelled.elapsed()
        );
        assert_eq!(ending["custody"], "source", "{ending}");
        source.check();
        // A cancellation that comes with the order is not lost.
        let (_target, endpoint) = Worker::target_for(kind);
        source.send(&endpoint, NARROW);
        source.order(&serde_json::json!({"do": "cancel"}));
        let ending = &source.answer("sent")["side"]["ending"];
        assert_eq!(ending["outcome"], "cancelled", "{ending}");
        source.check();
    }
}
