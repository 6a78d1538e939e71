//! `--plot` draws what a real move did, beside the report that it belongs to.

mod common;

use common::{Started, bench, finish, kinds, start, turn};
use serde_json::Value;
use tempfile::TempDir;

fn assert_picture(svg: &str, words: &[&str]) {
    assert!(svg.starts_with("<svg"), "{svg:.100}");
    assert!(svg.trim_end().ends_with("</svg>"));
    for words in words {
        assert!(svg.contains(words), "no `{words}`");
    }
}

#[test]
fn a_run_is_drawn() {
    let _turn = turn();
    let folder = TempDir::new().unwrap();
    for kind in kinds() {
        let [svg, json] = ["a.svg", "a.json"].map(|name| folder.path().join(name));
        let done = bench(&format!(
            "run --quiet --no-reference --repeat 3 --guest {kind} --memory 64MiB \
             --working-set 16MiB --plot {} --json {}",
            svg.display(),
            json.display()
        ));
        assert_eq!(done.code, Some(0), "{done:?}");
        let svg = std::fs::read_to_string(svg).unwrap();
        let guest = format!("64.0 MiB {kind} guest (random, 1 vCPU, writing 16.0 MiB");
        assert_picture(&svg, &[&guest, "median total", "guest paused", "round"]);
        // The median of the three is named.
        let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        let median = report["summary"]["total_ms"]["median"].as_f64();
        let runs = report["runs"].as_array().unwrap();
        let is_median = |run: &Value| run["total_ms"].as_f64() == median;
        let place = runs.iter().position(is_median).unwrap() + 1;
        assert!(svg.contains(&format!("run {place} of 3")), "{median:?}");
    }
}

#[test]
fn both_ways_on_are_drawn() {
    let _turn = turn();
    let folder = TempDir::new().unwrap();
    let [first, second] = ["1.svg", "2.svg"].map(|name| folder.path().join(name));
    let socket = |name: &str| format!("unix:{}", folder.path().join(name).display());
    let (near, far) = (socket("near"), socket("far"));
    let last = start(&format!("target --guest process --listen {far} --verify"));
    let middle = start(&format!(
        "target --guest process --listen {near} --onward {far} --plot {}",
        second.display()
    ));
    wait_for_sockets(&[&near, &far]);
    let done = bench(&format!(
        "source --guest process --memory 64MiB --working-set 0 --to {near} --plot {}",
        first.display()
    ));
    assert_eq!(done.code, Some(0), "{done:?}");
    for started in [middle, last] {
        assert_ended_well(started);
    }
    for (file, to) in [(first, &near), (second, &far)] {
        let svg = std::fs::read_to_string(file).unwrap();
        assert_picture(&svg, &[&format!("64.0 MiB guest to {to}"), "guest paused"]);
    }
}

fn assert_ended_well(started: Started) {
    let done = finish(started);
    assert_eq!(done.code, Some(0), "{done:?}");
}

fn wait_for_sockets(endpoints: &[&str]) {
    common::wait_until("they listen", std::time::Duration::from_secs(30), || {
        let mut paths = endpoints.iter().map(|own| own.trim_start_matches("unix:"));
        paths.all(|path| std::path::Path::new(path).exists())
    });
}

#[test]
fn a_refused_run_draws_nothing_and_says_so() {
    let _turn = turn();
    let folder = TempDir::new().unwrap();
    let svg = folder.path().join("a.svg");
    let done = bench(&format!(
        "run --quiet --no-reference --repeat 1 --guest process --memory 64MiB --working-set 0 \
         --as-host {} --as-target {} --plot {}",
        common::processor("genoa"),
        common::processor("milan"),
        svg.display()
    ));
    assert_eq!(done.code, Some(3), "{done:?}");
    assert!(done.err.contains("nothing to plot"), "{}", done.err);
    assert!(!svg.exists());
}

#[test]
fn samples_are_those_of_the_report() {
    let _turn = turn();
    let folder = TempDir::new().unwrap();
    let [csv, json] = ["a.csv", "a.json"].map(|name| folder.path().join(name));
    let done = bench(&format!(
        "run --quiet --no-reference --repeat 2 --guest process --memory 64MiB \
         --working-set 16MiB --timeline {} --json {}",
        csv.display(),
        json.display()
    ));
    assert_eq!(done.code, Some(0), "{done:?}");
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let csv = std::fs::read_to_string(csv).unwrap();
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    for (run, place) in report["runs"].as_array().unwrap().iter().zip(1..) {
        for sample in run["timeline"]["samples"].as_array().unwrap() {
            let fields: Vec<&str> = lines.next().unwrap().split(',').collect();
            assert_eq!(fields.len(), names.len());
            for (name, field) in names.iter().zip(fields) {
                let expected = match *name {
                    "run" => Value::from(place),
                    "elapsed_ms" => sample["ms"].clone(),
                    "guest" => {
                        assert!(["running", "paused"].contains(&field), "{field}");
                        continue;
                    }
                    name => sample[name].clone(),
                };
                assert_eq!(field.parse().ok(), expected.as_f64(), "{name}");
            }
        }
    }
    assert_eq!(lines.next(), None);
    assert!(
        csv.contains(",paused,"),
        "the last round is sent in the pause"
    );
}
