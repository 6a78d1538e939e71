//! What can't work is refused or fails with a reason and a remedy, and the guest runs on where it
//! is.

mod common;

use std::net::TcpListener;
use std::time::Duration;

use common::{
    Done, Guest, Hosts, MIB, SMALL, Sending, Worker, bench, finish, kinds, kvm_works, turn,
    wait_until,
};

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A `source` against a `target` with these words added; both as they ended.
fn source_and_target(source: &str, target: &str) -> (Done, Done) {
    let hosts = Hosts::new();
    let target = hosts.target("there", target);
    let source = hosts.source("there", source);
    (source, finish(target))
}

#[test]
fn two_commands_are_enough() {
    let _turn = turn();
    for kind in kinds() {
        let (source, target) = source_and_target(
            &format!("--guest {kind}"),
            &format!("--guest {kind} --verify"),
        );
        assert_eq!(source.code, Some(0), "{source:?}");
        assert_eq!(target.code, Some(0), "{target:?}");
        assert!(
            target.err.contains("found all its memory right"),
            "{target:?}"
        );
    }
}

#[test]
fn a_guest_that_is_too_large_for_the_target() {
    let _turn = turn();
    for kind in kinds() {
        let (source, target) = source_and_target(
            &format!("--guest {kind} --verify"),
            &format!("--guest {kind} --memory-max 48MiB"),
        );
        for side in [&source, &target] {
            assert_eq!(side.code, Some(3), "{side:?}");
            assert!(side.err.contains("memory"), "{side:?}");
            assert!(side.err.contains("the guest is with: source"), "{side:?}");
            assert!(!side.err.contains("panicked"), "{side:?}");
        }
        assert!(
            source.err.contains("found all its memory right"),
            "{source:?}"
        );
    }
}

#[test]
fn a_guest_of_another_kind() {
    if !kvm_works() {
        return;
    }
    let _turn = turn();
    for (here, there) in [("process", "kvm"), ("kvm", "process")] {
        let (source, target) = source_and_target(
            &format!("--guest {here} --verify"),
            &format!("--guest {there}"),
        );
        for side in [&source, &target] {
            assert_eq!(side.code, Some(3), "{side:?}");
            assert!(
                side.err.contains("choose a target of the same kind"),
                "{side:?}"
            );
            assert!(side.err.contains("the guest is with: source"), "{side:?}");
        }
        assert!(
            source.err.contains("found all its memory right"),
            "{source:?}"
        );
    }
}

#[test]
fn a_refused_guest_runs_on_and_may_move_elsewhere() {
    let _turn = turn();
    for kind in kinds() {
        let mut source = Worker::with(Guest {
            kind,
            memory_mib: 64,
            working_set_mib: 16,
            dirty_mib_per_second: 50,
        });
        let sending = Sending {
            downtime: Duration::from_millis(300),
            on_stall: "fail",
        };
        let (mut small, endpoint) = Worker::small_target_for(kind, Some(48 * MIB));
        source.send(&endpoint, sending);
        for ending in [
            &source.answer("sent")["side"]["ending"],
            &small.answer("landed")["side"]["ending"],
        ] {
            assert_eq!(ending["outcome"], "refused", "{ending}");
            assert_eq!(ending["custody"], "source", "{ending}");
        }
        let before = source.writes();
        wait_until("it goes on writing", Duration::from_secs(5), || {
            source.writes() > before
        });
        source.check();
        let (mut large, endpoint) = Worker::target_for(kind);
        source.send(&endpoint, sending);
        let side = &source.answer("sent")["side"];
        assert_eq!(side["ending"]["outcome"], "completed", "{side}");
        large.answer("landed");
        large.check();
    }
}

#[test]
fn a_port_that_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let done = bench(&format!("target --listen {endpoint} --guest process"));
    assert_eq!(done.code, Some(1), "{done:?}");
    assert_eq!(done.err.lines().count(), 1, "{done:?}");
    assert!(done.err.contains(&endpoint), "{done:?}");
    assert_eq!(done.err.matches("is taken").count(), 1, "{done:?}");
}

#[test]
fn a_target_that_is_not_there() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    for endpoint in [
        format!("tcp://127.0.0.1:{}", free_port()),
        format!("unix:{}", folder.path().join("nobody.sock").display()),
    ] {
        let done = bench(&format!(
            "source --to {endpoint} --quiet --guest process {SMALL} --verify"
        ));
        assert_eq!(done.code, Some(1), "{done:?}");
        for word in [
            &endpoint,
            "nobody listens there",
            "the guest is with: source",
        ] {
            assert!(done.err.contains(word), "no `{word}`: {done:?}");
        }
        assert!(done.err.contains("found all its memory right"), "{done:?}");
        assert!(done.elapsed < Duration::from_secs(20), "{done:?}");
    }
}
