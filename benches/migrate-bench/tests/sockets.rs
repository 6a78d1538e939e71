//! The search for the best settings of bare sockets: each candidate is measured, and the best of
//! them is said.

mod common;

use common::{bench, turn};
use serde_json::Value;

#[test]
fn each_setting_is_tried_and_the_fastest_is_named() {
    let _turn = turn();
    for (line, choices) in [
        ("--transport tcp --populated", 5),
        ("--transport unix --streams 1", 5),
    ] {
        let done = bench(&format!(
            "sockets {line} --bytes 4MiB --repeat 1 --quiet --json -"
        ));
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(done.err, "", "{line}");
        let report: Value = serde_json::from_str(&done.out).unwrap();
        assert_eq!(report["schema"], "limosa.sockets/1");
        let found = report["found"].as_array().unwrap();
        let mut names: Vec<_> = found.iter().map(|found| &found["choice"]).collect();
        names.dedup();
        assert_eq!(names.len(), choices, "{names:?}");
        let median = |found: &Value| found["throughput_gib_s"]["median"].as_f64().unwrap();
        let last: Vec<&Value> = found
            .iter()
            .filter(|found| found["choice"] == *names[choices - 1])
            .collect();
        let fastest = last.iter().max_by(|a, b| median(a).total_cmp(&median(b)));
        assert_eq!(report["best"], fastest.unwrap()["settings"], "{report}");
    }
}

#[test]
fn what_can_not_be_carried_is_wrong_usage() {
    for line in [
        "--bytes 0",
        "--bytes 2TiB",
        "--transport unix --link 1Gbit",
        "--repeat 0",
    ] {
        let done = bench(&format!("sockets {line}"));
        assert_eq!(done.code, Some(2), "{line}: {done:?}");
    }
}
