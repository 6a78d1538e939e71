//! The command `gate`: planted slow-downs of the corridor, files that are of no use, and counts of
//! instructions on one thread and on many.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Done, bench, turn};
use serde_json::Value;
use tempfile::TempDir;

const REPORT_PAGE: &str = include_str!("../../../docs/report.md");

/// Whether instructions can be counted here; says so where they can't.
fn valgrind_works() -> bool {
    let works = Command::new("valgrind").arg("--version").output();
    let works = works.is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("SKIPPED: valgrind is not here (apt-get install valgrind)");
    }
    works
}

fn gate(file: &Path, options: &str) -> Done {
    bench(&format!("gate --baseline {} {options}", file.display()))
}

fn json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// A file with counts of some kernels, made here and now.
fn counted(folder: &Path, kernels: &str) -> PathBuf {
    let file = folder.join("gate.json");
    let done = gate(&file, &format!("--update --no-ratios --only {kernels}"));
    assert_eq!(done.code, Some(0), "{done:?}");
    file
}

#[test]
fn a_planted_tenth_is_caught_and_named() {
    if !valgrind_works() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let kernels = "--no-ratios --only pack-raw,land-raw";
    let file = counted(folder.path(), "pack-raw,land-raw");

    let again = gate(&file, &format!("{kernels} --json -"));
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.err.contains("no regression"), "{again:?}");
    let rows = again.report()["rows"].clone();
    for row in rows.as_array().unwrap() {
        assert_eq!(row["verdict"], "as_expected", "{row}");
        // Counts don't depend on what else the machine does.
        assert!(row["change_percent"].as_f64().unwrap().abs() < 0.5, "{row}");
    }

    let slow = gate(&file, &format!("{kernels} --planted-slowdown"));
    assert_eq!(slow.code, Some(1), "{slow:?}");
    let named: Vec<_> = slow
        .out
        .lines()
        .filter(|line| line.starts_with("REGRESSION"))
        .collect();
    assert_eq!(named.len(), 1, "{slow:?}");
    assert!(
        named[0].contains("pack-raw") && named[0].contains('+'),
        "{named:?}"
    );
}

/// Nothing that corridors or landers share makes a page dearer when there are more of them: no lock
/// is waited for, and nothing is tried again.
#[test]
fn a_page_takes_no_more_instructions_on_64_threads_as_on_one() {
    if !valgrind_works() {
        return;
    }
    for kernel in ["pack-raw", "pack-live", "land-raw"] {
        let line = format!("instructions --kernels {kernel} --threads 1,64 --json -");
        let done = bench(&line);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.err.contains("64 thr."), "{done:?}");
        let report = done.report();
        let counts = report["instructions"].as_array().unwrap();
        let counts = [0, 1].map(|at| counts[at]["count"].as_f64().unwrap());
        // What is done once for all of them, such as a ledger, is less for each where there are
        // more.
        let limits = 0.9..1.02;
        assert!(limits.contains(&(counts[1] / counts[0])), "{counts:?}");
        for (key, _) in report.as_object().unwrap() {
            assert!(described(key), "{key}");
        }
    }
}

#[test]
fn a_file_of_no_use_ends_with_status_2() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing.json");
    let other = folder.path().join("other.json");
    std::fs::write(&other, r#"{"schema": "limosa.run/1"}"#).unwrap();
    for (file, culprit) in [(&missing, "--update"), (&other, "limosa.run/1")] {
        for options in ["--no-instructions --no-ratios", "--no-instructions"] {
            let done = gate(file, options);
            assert_eq!(done.code, Some(2), "{done:?}");
            assert_eq!(done.out, "");
            assert!(done.err.contains(culprit), "{done:?}");
        }
    }
    let done = gate(&other, "--update --no-instructions --no-ratios");
    assert_eq!(
        done.code,
        Some(2),
        "another file is not written over: {done:?}"
    );
    let done = gate(&other, "--only pack");
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(done.err.contains("`pack` is no kernel"), "{done:?}");
}

#[test]
fn without_valgrind_it_says_what_to_do() {
    let folder = TempDir::new().unwrap();
    let done = Command::new(common::MIGRATE_BENCH)
        .args(["gate", "--baseline"])
        .arg(folder.path().join("gate.json"))
        .env("PATH", folder.path())
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("apt-get install valgrind"), "{said}");
    assert!(said.contains("--no-instructions"), "{said}");
}

#[test]
fn ratios_are_measured_compared_and_every_field_is_described() {
    let _turn = turn();
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("gate.json");
    let done = gate(&file, "--update --no-instructions --ratios lift-seal,scan");
    assert_eq!(done.code, Some(0), "{done:?}");
    let mut baseline = json(&file);
    let names: Vec<_> = baseline["ratios"]
        .as_array()
        .unwrap()
        .iter()
        .map(name)
        .collect();
    assert_eq!(names, ["lift-seal", "scan"]);
    for (key, _) in baseline.as_object().unwrap() {
        assert!(described(key), "{key}");
    }

    // The scan is far slower than a file in which it took no time, and all else is far faster than
    // one in which it took an age.
    for ratio in baseline["ratios"].as_array_mut().unwrap() {
        let expected = if ratio["name"] == "scan" {
            0.001
        } else {
            1000.0
        };
        ratio["expected"]["median"] = expected.into();
    }
    std::fs::write(&file, baseline.to_string()).unwrap();
    let done = gate(&file, "--no-instructions --ratios scan,lift-seal --json -");
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(
        done.err.contains("scan is slow: timing it again"),
        "{done:?}"
    );
    let report = done.report();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let is_scan = row["figure"] == "scan";
        let verdict = if is_scan { "regression" } else { "improvement" };
        assert_eq!(row["verdict"], verdict, "{row}");
        for (key, _) in row.as_object().unwrap() {
            assert!(described(key), "{key}");
        }
    }
    for (key, _) in report.as_object().unwrap() {
        assert!(described(key), "{key}");
    }
}

fn name(ratio: &Value) -> String {
    ratio["name"].as_str().unwrap().to_owned()
}

/// In the part of the page that is about gates.
fn described(field: &str) -> bool {
    let (_, part) = REPORT_PAGE.split_once("## The gate").unwrap();
    let (part, _) = part.split_once("\n## ").unwrap();
    part.contains(&format!("`{field}`")) || part.contains(&format!("`{field}[]`"))
}
