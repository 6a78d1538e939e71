//! Interrupted commands end soon, say so, and leave no process and no half-moved guest behind.

mod common;

use std::time::Duration;

use common::{
    Guest, Worker, children_of, finish, interrupt, is_alive, kinds, pid, start, turn, wait_until,
};
use rustix::process::{Signal, kill_process, kill_process_group};
use serde_json::json;

/// A run that goes on for minutes unless it is stopped.
const LONG: &str = "run --quiet --no-reference --repeat 1 --hops 10000 --json - --memory 64MiB \
                    --working-set 16MiB --dirty-rate 50MiB/s --verify";
/// Longest time from a signal to the end.
const END_MAX: Duration = Duration::from_secs(5);

/// Its two workers, once it has moved a guest for a while.
fn workers_under_way(id: u32) -> Vec<u32> {
    wait_until("two workers", Duration::from_secs(20), || {
        children_of(id).len() == 2
    });
    std::thread::sleep(Duration::from_millis(700));
    children_of(id)
}

#[test]
fn an_interrupted_run_ends_cancelled_with_a_whole_guest() {
    let _turn = turn();
    for kind in kinds() {
        for whole_group in [false, true] {
            let mut run = start(&format!("{LONG} --guest {kind}"));
            let id = run.child.id();
            let workers = workers_under_way(id);
            assert!(run.child.try_wait().unwrap().is_none());
            // A terminal signals all processes of the group, `kill` one.
            if whole_group {
                kill_process_group(pid(id), Signal::INT).unwrap();
            } else {
                interrupt(id);
            }
            wait_until("the end", END_MAX, || !is_alive(id));
            let done = finish(run);
            assert_eq!(done.code, Some(1), "{done:?}");
            let run = done.first_run();
            assert_eq!(run["outcome"], "cancelled", "{run}");
            assert_eq!(run["custody"], "source", "{run}");
            assert_eq!(run["verified"]["guest"], "ok", "{run}");
            for worker in workers {
                assert!(!is_alive(worker), "{worker} was left behind");
            }
        }
    }
}

#[test]
fn an_interruption_during_the_boot_ends_it() {
    let _turn = turn();
    // Filling so much memory takes longer than the test lets it.
    let mut run = start("run --guest process --memory 2GiB --quiet --no-reference --repeat 1");
    let id = run.child.id();
    wait_until("two workers", Duration::from_secs(20), || {
        children_of(id).len() == 2
    });
    let workers = children_of(id);
    assert!(run.child.try_wait().unwrap().is_none());
    interrupt(id);
    wait_until("the end", END_MAX, || !is_alive(id));
    let done = finish(run);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("interrupted"), "{done:?}");
    for worker in workers {
        assert!(!is_alive(worker), "{worker} was left behind");
    }
}

#[test]
fn a_waiting_target_ends_when_interrupted() {
    let mut target = start("target --guest process --listen tcp://127.0.0.1:0");
    let id = target.child.id();
    std::thread::sleep(Duration::from_millis(300));
    assert!(target.child.try_wait().unwrap().is_none());
    kill_process(pid(id), Signal::TERM).unwrap();
    wait_until("the end", END_MAX, || !is_alive(id));
    let done = finish(target);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("cancelled"), "{done:?}");
}

#[test]
fn workers_end_when_their_parent_is_killed() {
    let _turn = turn();
    for kind in kinds() {
        let run = start(&format!("{LONG} --guest {kind}"));
        let id = run.child.id();
        let workers = workers_under_way(id);
        kill_process(pid(id), Signal::KILL).unwrap();
        for worker in workers {
            wait_until("a worker's end", END_MAX, || !is_alive(worker));
        }
        assert_eq!(finish(run).code, None);
    }
}

#[test]
fn a_worker_ends_with_its_orders_whatever_it_does() {
    let _turn = turn();
    // At rest with a guest, while it waits for a guest, and while it fills memory.
    let guest = Guest {
        kind: "process",
        memory_mib: 64,
        working_set_mib: 16,
        dirty_mib_per_second: 50,
    };
    Worker::with(guest).abandon(END_MAX);
    Worker::target_for("process").0.abandon(END_MAX);
    let mut filling = Worker::start();
    filling.order(&json!({"do": "fill", "bytes": 8_u64 << 30, "backing": "anonymous"}));
    filling.abandon(END_MAX);
}
