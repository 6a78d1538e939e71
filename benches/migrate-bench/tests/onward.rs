//! Two moves by three commands: a guest that arrives is checked and moved on, or stays where it
//! may not go on.

mod common;

use std::net::TcpListener;

use common::{Done, Hosts, finish, kinds, turn};
use serde_json::Value;

/// A guest's way over three hosts, the last two with these words added; each command as it ended.
fn over_three_hosts(kind: &str, middle: &str, last: &str) -> [Done; 3] {
    let hosts = Hosts::new();
    let last = hosts.target("last", &format!("--guest {kind} {last}"));
    let onward = hosts.endpoint("last");
    let middle = hosts.target(
        "middle",
        &format!("--guest {kind} --onward {onward} --streams 2 --downtime 1s --json - {middle}"),
    );
    let source = hosts.source("middle", &format!("--guest {kind}"));
    [source, finish(middle), finish(last)]
}

/// Both sides of the middle host, as it printed them.
fn sides(middle: &Done) -> Value {
    let report = middle.report();
    assert_eq!(report["ending"]["outcome"], "completed", "{report}");
    report
}

#[test]
fn a_guest_moves_on_once_it_was_checked() {
    let _turn = turn();
    for kind in kinds() {
        let [source, middle, last] = over_three_hosts(kind, "--verify", "--verify");
        for done in [&source, &middle, &last] {
            assert_eq!(done.code, Some(0), "{kind}: {done:?}");
        }
        for done in [&middle, &last] {
            assert!(done.err.contains("found all its memory right"), "{done:?}");
        }
        assert!(middle.err.contains("moving it on to unix:"), "{middle:?}");
        assert!(middle.err.contains("completed: total"), "{middle:?}");
        let onward = &sides(&middle)["onward"];
        assert_eq!(onward["ending"]["custody"], "target", "{onward}");
        assert!(
            onward["figures"]["total_ms"].as_f64() > Some(0.0),
            "{onward}"
        );
    }
}

#[test]
fn a_guest_that_is_refused_further_on_stays() {
    let _turn = turn();
    for kind in kinds() {
        let [source, middle, last] =
            over_three_hosts(kind, "--quiet --verify", "--memory-max 48MiB");
        assert_eq!(source.code, Some(0), "{kind}: {source:?}");
        for done in [&middle, &last] {
            assert_eq!(done.code, Some(3), "{kind}: {done:?}");
            assert!(done.err.contains("the guest is with: source"), "{done:?}");
        }
        // Once when it had arrived, and once more when it had to stay.
        let checks = middle.err.matches("found all its memory right").count();
        assert_eq!(checks, 2, "{middle:?}");
        let onward = &sides(&middle)["onward"];
        assert_eq!(onward["ending"]["outcome"], "refused", "{onward}");
        assert_eq!(onward["ending"]["custody"], "source", "{onward}");
    }
}

#[test]
fn a_guest_stays_where_nobody_listens_further_on() {
    let _turn = turn();
    let hosts = Hosts::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let nobody = format!("tcp://127.0.0.1:{port}");
    let middle = hosts.target(
        "middle",
        &format!("--guest process --onward {nobody} --verify"),
    );
    let source = hosts.source("middle", "--guest process");
    assert_eq!(source.code, Some(0), "{source:?}");
    let middle = finish(middle);
    assert_eq!(middle.code, Some(1), "{middle:?}");
    for words in [
        &nobody,
        "nobody listens there",
        "the guest is with: source",
        "found all its memory right",
    ] {
        assert!(middle.err.contains(words), "no `{words}`: {middle:?}");
    }
}
