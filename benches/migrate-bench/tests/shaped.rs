//! Links that are held to a rate: they are never faster, guests arrive whole, and nothing of them
//! stays behind, however the command ends.

mod common;

use std::process::{Command, Stdio};
use std::time::Duration;

use common::{
    MIGRATE_BENCH, children_of, finish, interrupt, is_alive, pid, run, start, turn, wait_until,
};
use rustix::process::{Signal, kill_process};
use serde_json::Value;

/// Some 48 MiB of noise at 400 Mbit/s: one second.
const LINE: &str = "--guest process --memory 64MiB --working-set 0 --codec none --verify \
                    --link 400Mbit";
const BITS_PER_MS: f64 = 400e3;
/// What may pass at once when a link was idle, in time on the link; both directions have some.
const BURST_MS: f64 = 20.0;

/// The report's words on the link, once the run is known to have kept to it.
fn kept_to_the_rate(report: &Value) -> String {
    let run = &report["runs"][0];
    assert_eq!(run["outcome"], "completed", "{run}");
    assert_eq!(run["verified"]["guest"], "ok", "{run}");
    assert_eq!(report["config"]["link"]["rate"], 400_000_000);
    let total = run["total_ms"].as_f64().unwrap();
    let least_ms = run["wire_bytes"].as_f64().unwrap() * 8.0 / BITS_PER_MS;
    assert!(least_ms > 900.0, "{run}");
    assert!(total > least_ms - BURST_MS, "{total} ms: {run}");
    report["config"]["link"]["how"].as_str().unwrap().to_owned()
}

/// Whether `how` is by namespaces; says why the test is none where it is not.
fn by_namespaces(how: &str) -> bool {
    let so = how.contains("veth");
    if !so {
        eprintln!("SKIPPED: {how}");
    }
    so
}

#[test]
fn guests_move_there_and_back_through_namespaces() {
    let _turn = turn();
    let done = run(&format!("{LINE} --hops 2"));
    assert_eq!(done.code, Some(0), "{done:?}");
    let how = kept_to_the_rate(&done.report());
    by_namespaces(&how);
}

#[test]
fn without_namespaces_there_is_a_relay_which_says_so() {
    let _turn = turn();
    let words = format!("run --quiet --no-reference --repeat 1 --json - {LINE} --hops 2");
    let output = Command::new(MIGRATE_BENCH)
        .args(words.split_whitespace())
        .env("PATH", "")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let report = serde_json::from_slice(&output.stdout).unwrap();
    let how = kept_to_the_rate(&report);
    assert!(how.contains("relay") && how.contains("unshare"), "{how}");
}

#[test]
fn the_reference_goes_through_the_same_link() {
    let _turn = turn();
    let done = finish(start(&format!("run --quiet --repeat 1 --json - {LINE}")));
    assert_eq!(done.code, Some(0), "{done:?}");
    let report = done.report();
    let reference = &report["reference"];
    let least_ms = reference["bytes"].as_f64().unwrap() * 8.0 / BITS_PER_MS;
    let total = reference["total_ms"][0].as_f64().unwrap();
    assert!(total > least_ms - BURST_MS, "{reference}");
}

#[test]
fn sockets_without_a_network_have_no_link() {
    let done = run(&format!("{LINE} --transport unix"));
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.err.contains("--link"), "{done:?}");
}

#[test]
fn nothing_stays_behind_a_command_that_is_interrupted_or_killed() {
    let _turn = turn();
    for signal in [Signal::INT, Signal::KILL] {
        let run = start(&format!(
            "run --quiet --no-reference --repeat 9 --json - {LINE}"
        ));
        let id = run.child.id();
        // Two workers, and in their namespaces two processes that hold them.
        let longest = Duration::from_secs(20);
        let mut children = Vec::new();
        wait_until("workers", longest, || {
            children = children_of(id);
            children.len() >= 2 && children.iter().any(|child| is_worker(*child))
        });
        let namespaces: Vec<u32> = children
            .iter()
            .copied()
            .filter(|child| !is_worker(*child))
            .collect();
        if namespaces.is_empty() {
            by_namespaces("a relay: no namespaces here");
        }
        if signal == Signal::INT {
            interrupt(id);
        } else {
            kill_process(pid(id), signal).unwrap();
        }
        finish(run);
        wait_until("their end", longest, || {
            !children.iter().any(|child| is_alive(*child))
        });
    }
}

/// Whether process `id` is a worker; a namespace's holder is not.
fn is_worker(id: u32) -> bool {
    std::fs::read(format!("/proc/{id}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"worker"))
}

#[test]
fn no_program_of_a_link_writes_to_the_terminal() {
    let _turn = turn();
    let done = Command::new(MIGRATE_BENCH)
        .args(format!("run --quiet --no-reference --repeat 1 {LINE}").split_whitespace())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!((done.stdout.len(), done.stderr.len()), (0, 0), "{done:?}");
}
