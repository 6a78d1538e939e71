//! Wrong usage ends with status 2 and one clear line, before anything is started.

mod common;

use std::time::Duration;

use common::bench;
use tempfile::TempDir;

/// The line that says what is wrong must name `culprit` and, where there is one, the way out.
fn is_usage_error(line: &str, culprits: &[&str]) {
    let done = bench(line);
    assert_eq!(done.code, Some(2), "{line}: {done:?}");
    assert_eq!(done.out, "", "{line}");
    let first = done.err.lines().next().unwrap_or_default();
    let says_who = first.starts_with("error: ") || first.starts_with("migrate-bench: ");
    assert!(says_who, "{line}: {}", done.err);
    for culprit in culprits {
        assert!(first.contains(culprit), "{line}: no `{culprit}`: {first}");
    }
    assert!(!done.err.contains("panicked"), "{line}: {}", done.err);
    assert!(done.elapsed < Duration::from_secs(5), "{line}: {done:?}");
}

#[test]
fn sizes_that_no_guest_can_have() {
    for size in ["0", "1MiB", "100TiB", "67108865", "18446744073709551615"] {
        is_usage_error(
            &format!("run --memory {size}"),
            &["guest memory", "multiple of 4096"],
        );
        is_usage_error(&format!("--memory {size}"), &["guest memory"]);
    }
    is_usage_error("run --memory much", &["`much` is not a size", "512MiB"]);
    is_usage_error("run --memory -1", &["-1"]);
}

#[test]
fn a_tracking_that_the_guest_cannot_have() {
    for tracking in ["log", "ring"] {
        is_usage_error(
            &format!("run --guest process --tracking {tracking}"),
            &["--tracking", tracking, "page table scans"],
        );
    }
    is_usage_error("run --tracking luck", &["luck", "--tracking"]);
}

#[test]
fn numbers_out_of_range() {
    is_usage_error("run --streams 0", &["--streams", "1 to 64"]);
    is_usage_error("run --streams 65", &["--streams", "1 to 64"]);
    is_usage_error("run --vcpus 0", &["--vcpus", "1..=8"]);
    is_usage_error("run --vcpus 9", &["--vcpus", "1..=8"]);
    is_usage_error("run --repeat 0", &["--repeat", "1..=1000"]);
    is_usage_error("run --hops 0", &["--hops", "1..=10000"]);
    is_usage_error("run --touched 101%", &["--touched", "0% to 100%"]);
    is_usage_error("run --downtime 0ms", &["--downtime", "1ms to 60s"]);
    is_usage_error("run --downtime 2min", &["--downtime", "1ms to 60s"]);
}

#[test]
fn a_workload_that_does_not_fit() {
    is_usage_error(
        "run --memory 64MiB --working-set 65MiB",
        &["working set", "lower the working set"],
    );
    is_usage_error(
        "run --memory 64MiB --touched 10% --working-set 16MiB",
        &["working set", "touched"],
    );
    is_usage_error(
        "run --memory 64MiB --working-set 16MiB --dirty-rate 1EiB/s",
        &["lower the working set or the rate"],
    );
    is_usage_error(
        "source --to tcp://127.0.0.1:1 --memory 64MiB --working-set 65MiB",
        &["working set"],
    );
    is_usage_error(
        "run --memory 64MiB --working-set 1KiB",
        &["at least one page", "larger working set"],
    );
    for command in ["run", "payload --output /nowhere/a", "rivals"] {
        is_usage_error(
            &format!("{command} --memory 64MiB --touched 65MiB"),
            &["65.0 MiB touched of 64.0 MiB", "--touched"],
        );
    }
}

#[test]
fn programs_that_no_other_vmm_runs() {
    let payload = |line: &str, culprits: &[&str]| {
        is_usage_error(&format!("payload --output /nowhere/a {line}"), culprits);
    };
    payload("--guest process", &["process guest"]);
    payload("--vcpus 2", &["--vcpus 2", "one vCPU"]);
    payload("--memory 1MiB", &["guest memory"]);
}

#[test]
fn words_that_mean_nothing() {
    is_usage_error("run --bogus", &["--bogus"]);
    is_usage_error("frob", &["frob"]);
    is_usage_error("run --codec zip", &["zip", "--codec"]);
    is_usage_error("run --guest vmware", &["vmware", "--guest"]);
    is_usage_error("run --pattern zigzag", &["zigzag", "--pattern"]);
    is_usage_error("source", &["required"]);
    is_usage_error("source --to nowhere", &["`nowhere`", "tcp://"]);
    is_usage_error("target --listen tcp://127.0.0.1", &["port"]);
    is_usage_error("target --onward nowhere", &["`nowhere`", "tcp://"]);
    is_usage_error("target --streams 2", &["required"]);
}

#[test]
fn files_that_cannot_be_written() {
    for option in ["--json", "--plot", "--timeline"] {
        for command in [
            "run",
            "source --to unix:/nowhere/none",
            "target --listen unix:/nowhere/none",
        ] {
            let onward = match (command.starts_with("target"), option) {
                (false, _) | (true, "--json") => "",
                (true, _) => "--onward unix:/nowhere/none",
            };
            is_usage_error(
                &format!("{command} {onward} {option} /nowhere/a"),
                &["can't write /nowhere/a", "No such file"],
            );
        }
        is_usage_error(&format!("run {option} /"), &["can't write /:"]);
    }
    is_usage_error("run --plot -", &["only --json", "name a file"]);
    let folder = TempDir::new().unwrap();
    let same = folder.path().join("same").display().to_string();
    is_usage_error(
        &format!("run --plot {same} --timeline {same}"),
        &[&same, "two files"],
    );
    is_usage_error(
        "compare a.json b.json --json /nowhere/a",
        &["can't write /nowhere/a"],
    );
    is_usage_error("sockets --json /nowhere/a", &["can't write /nowhere/a"]);
    is_usage_error("rivals --json /nowhere/a", &["can't write /nowhere/a"]);
}

#[test]
fn help_and_version_are_no_errors() {
    for line in [
        "--help",
        "run --help",
        "source --help",
        "target --help",
        "--version",
    ] {
        let done = bench(line);
        assert_eq!(done.code, Some(0), "{line}: {done:?}");
        assert!(!done.out.is_empty(), "{line}");
        assert!(!done.out.contains("worker"), "{line}: {}", done.out);
    }
}
