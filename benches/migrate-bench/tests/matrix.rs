//! A matrix of scenarios from one file: every scenario is a row, whatever became of it.

mod common;

use std::path::PathBuf;
use std::time::Duration;

use common::{bench, children_of, finish, interrupt, start, turn, wait_until};
use tempfile::TempDir;

/// Two scenarios of which the second writes faster than its link sends.
const ONE_STALLS: &str = r#"
repeat = 2

[base]
guest = "process"
memory = "32MiB"
working-set = "12MiB"
codec = "none"
link = "100Mbit"
downtime = "20ms"
verify = true

[axes]
dirty-rate = ["0", "200MiB/s"]
on-stall = ["fail"]
"#;

fn written(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("few.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn a_scenario_that_does_not_converge_is_a_row() {
    let _turn = turn();
    let (folder, path) = written(ONE_STALLS);
    let json = folder.path().join("few.json");
    let done = bench(&format!(
        "matrix {} --json {}",
        path.display(),
        json.display()
    ));
    assert_eq!(done.code, Some(0), "{done:?}");
    let text = std::fs::read_to_string(json).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["schema"], "limosa.matrix/1");
    assert_eq!(report["interrupted"], false);
    let [idle, busy] = [0, 1].map(|index| &report["scenarios"][index]);
    assert_eq!(idle["outcome"], "completed", "{done:?}");
    assert_eq!(idle["summary"]["verified"], 2);
    assert_eq!(idle["values"]["dirty-rate"], "0");
    assert!(idle["summary"]["total_ms"]["median"].as_f64().unwrap() > 0.0);
    assert_eq!(busy["outcome"], "failed", "{done:?}");
    assert_eq!(busy["values"]["dirty-rate"], "200MiB/s");
    assert_eq!(busy["runs"].as_array().unwrap().len(), 2);
    assert_eq!(busy["as_expected"], true);
    assert_eq!(busy["runs"][0]["custody"], "source");
    for words in ["dirty-rate", "budget kept", "on-stall fail", "scenario 2: "] {
        assert!(done.out.contains(words), "no `{words}`: {}", done.out);
    }
    let order: Vec<_> = done
        .err
        .lines()
        .filter(|line| line.starts_with("scenario "))
        .collect();
    assert_eq!(order.len(), 4, "{done:?}");
    assert!(
        order[1].starts_with("scenario 2 of 2, migration 1 of 2: "),
        "{order:?}"
    );
    assert!(
        order[2].starts_with("scenario 1 of 2, migration 2 of 2: "),
        "{order:?}"
    );
}

#[test]
fn what_was_not_expected_is_told_by_the_exit_status() {
    let _turn = turn();
    let text = ONE_STALLS.replace("repeat = 2", "repeat = 1\nexpect = \"completes\"");
    let (_folder, path) = written(&text.replace("\"0\", ", ""));
    let done = bench(&format!("matrix {} --json -", path.display()));
    assert_eq!(done.code, Some(1), "{done:?}");
    assert_eq!(done.report()["scenarios"][0]["as_expected"], false);
    assert!(done.err.contains("NOT AS EXPECTED"), "{done:?}");
    assert!(
        done.err
            .contains("to see it alone: migrate-bench run --dirty-rate=200MiB/s")
    );
}

#[test]
fn a_list_runs_nothing_and_names_lines_that_run_takes() {
    let (_folder, path) = written(ONE_STALLS);
    let done = bench(&format!("matrix --list {}", path.display()));
    assert_eq!(done.code, Some(0), "{done:?}");
    let lines: Vec<_> = done.out.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("migrate-bench run --dirty-rate=0 --on-stall=fail "));
    assert!(done.err.is_empty(), "{done:?}");
}

#[test]
fn a_wrong_file_is_wrong_usage() {
    let (_folder, path) = written("[axes]\nfill = [\"pink\"]");
    let done = bench(&format!("matrix {}", path.display()));
    assert_eq!(done.code, Some(2), "{done:?}");
    for words in ["few.toml", "[axes] fill = \"pink\"", "possible values"] {
        assert!(done.err.contains(words), "no `{words}`: {done:?}");
    }
}

#[test]
fn an_interrupted_matrix_shows_what_is_there() {
    let _turn = turn();
    let text = ONE_STALLS.replace("repeat = 2", "repeat = 1000");
    let (_folder, path) = written(&text);
    let matrix = start(&format!("matrix {} --json -", path.display()));
    let id = matrix.child.id();
    wait_until("two workers", Duration::from_secs(60), || {
        children_of(id).len() >= 2
    });
    interrupt(id);
    let done = finish(matrix);
    assert_eq!(done.code, Some(1), "{done:?}");
    let report = done.report();
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["scenarios"].as_array().unwrap().len(), 2);
    assert_eq!(report["scenarios"][1]["as_expected"], true, "{done:?}");
    assert!(
        done.err.contains("interrupted: not everything was run"),
        "{done:?}"
    );
    assert!(done.err.contains("not run"), "{done:?}");
}
