//! The command `compare`: real reports against each other, planted differences, and files that are
//! of no use.

mod common;

use std::path::{Path, PathBuf};

use common::{bench, turn};
use serde_json::{Value, json};
use tempfile::TempDir;

const REPORT_PAGE: &str = include_str!("../../../docs/report.md");

/// A report of a real run, written to `folder`.
fn measured(folder: &Path, name: &str, options: &str) -> PathBuf {
    let file = folder.join(name);
    let done = bench(&format!(
        "run --quiet --no-reference --repeat 2 --guest process --memory 64MiB --working-set 0 \
         --json {} {options}",
        file.display()
    ));
    assert_eq!(done.code, Some(0), "{done:?}");
    file
}

/// A copy of a report with `count` runs, each of which took `total_ms` of its place.
fn planted(folder: &Path, name: &str, from: &Path, total_ms: impl Fn(u32) -> f64) -> PathBuf {
    let mut report: Value = serde_json::from_slice(&std::fs::read(from).unwrap()).unwrap();
    let run = report["runs"][0].clone();
    let runs = (0..7).map(|place| {
        let mut run = run.clone();
        run["total_ms"] = total_ms(place).into();
        run
    });
    report["runs"] = runs.collect();
    let file = folder.join(name);
    std::fs::write(&file, report.to_string()).unwrap();
    file
}

fn compare(a: &Path, b: &Path, options: &str) -> common::Done {
    bench(&format!(
        "compare {} {} {options}",
        a.display(),
        b.display()
    ))
}

fn verdict_on(comparison: &Value, figure: &str) -> Value {
    let figures = comparison["figures"].as_array().unwrap();
    let found = figures.iter().find(|found| found["figure"] == figure);
    found.unwrap()["verdict"].clone()
}

#[test]
fn real_reports_are_compared_and_their_options_named() {
    let _turn = turn();
    let folder = TempDir::new().unwrap();
    let a = measured(folder.path(), "a.json", "--codec none --streams 1");
    let b = measured(folder.path(), "b.json", "--codec lz4 --streams 2");
    let done = compare(&a, &b, "--json -");
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.err
            .contains("the options differ (A | B): codec none | lz4, streams 1 | 2"),
        "{}",
        done.err
    );
    let comparison = done.report();
    assert_eq!(comparison["schema"], "limosa.compare/1");
    assert_eq!(comparison["a"], json!({"file": a.to_str(), "runs": 2}));
    assert_eq!(comparison["level"], 0.05);
    let names: Vec<&Value> = comparison["config_differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|difference| &difference["name"])
        .collect();
    assert_eq!(names, ["codec", "streams"]);
    assert_eq!(comparison["host_differences"], json!([]));
    for figure in comparison["figures"].as_array().unwrap() {
        assert_eq!(figure["verdict"], "too_few_runs", "{figure}");
        for side in ["a", "b"] {
            let [min, median, max] =
                ["min", "median", "max"].map(|name| figure[side][name].as_f64().unwrap());
            assert!(min <= median && median <= max, "{figure}");
        }
    }
    for field in comparison.as_object().unwrap().keys() {
        assert!(REPORT_PAGE.contains(&format!("`{field}")), "{field}");
    }
    for field in comparison["figures"][0].as_object().unwrap().keys() {
        assert!(REPORT_PAGE.contains(field.as_str()), "{field}");
    }
}

#[test]
fn planted_differences_are_found_and_others_are_not() {
    let _turn = turn();
    let folder = TempDir::new().unwrap();
    let real = measured(folder.path(), "real.json", "");
    let plant = |name, factor: f64| {
        planted(folder.path(), name, &real, |place| {
            (1000.0 + f64::from(place * 3 % 7)) * factor
        })
    };
    let (plain, slower) = (plant("plain.json", 1.0), plant("slower.json", 1.1));
    let file = folder.path().join("compared.json");
    let done = compare(&plain, &slower, &format!("--json {}", file.display()));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!done.out.contains("warning"), "{}", done.out);
    let total = done.out.lines().find(|line| line.contains("│ total"));
    let total = total.unwrap();
    assert!(
        total.contains("+10.0%") && total.contains("WORSE"),
        "{total}"
    );
    let comparison: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(verdict_on(&comparison, "total_ms"), "worse");
    assert_eq!(verdict_on(&comparison, "wire_bytes"), "not_significant");

    let back = compare(&slower, &plain, "--json -").report();
    assert_eq!(verdict_on(&back, "total_ms"), "better");
    let itself = compare(&slower, &slower, "--json -").report();
    for figure in itself["figures"].as_array().unwrap() {
        assert_eq!(figure["verdict"], "not_significant", "{figure}");
        assert_eq!(figure["p"], 1.0, "{figure}");
    }
    // 2 of the 3432 ways to deal 14 runs are as far apart.
    let strict = compare(&plain, &slower, "--json - --level 0.0005").report();
    assert_eq!(verdict_on(&strict, "total_ms"), "too_few_runs");
}

#[test]
fn files_of_no_use_end_with_status_2() {
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let one_run = json!({"schema": "limosa.run/1", "runs": [{"outcome": "completed"}]});
    for (file, expected) in [
        (folder.path().join("missing.json"), "can't read"),
        (write("text.json", "total 495 ms"), "no JSON"),
        (
            write("other.json", r#"{"schema": "limosa.cpu/1"}"#),
            "limosa.cpu/1",
        ),
        (write("one.json", &one_run.to_string()), "--repeat 7"),
    ] {
        let done = compare(&file, &file, "--json -");
        assert_eq!(done.code, Some(2), "{done:?}");
        assert_eq!(done.out, "");
        assert!(done.err.contains(expected), "{}", done.err);
        assert!(done.err.contains(file.to_str().unwrap()), "{}", done.err);
    }
    let done = compare(Path::new("a"), Path::new("b"), "--level 5%");
    assert_eq!(done.code, Some(2), "{done:?}");
}
