//! The JSON report: each field that `docs/report.md` names is there, of the right type, and adds
//! up.

#[path = "../common/mod.rs"]
mod common;
mod fields;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{MIB, bench, finish, interrupt, kinds, run, start, turn};
use fields::Kind::{self, Amount, Any, Count, Figure, Flag, Null, OneOf, Text};
use fields::{CANCELLED_RUN, CONFIG, HOST, REFERENCE, RUN, SPREADS, TOP};
use serde_json::Value;

const PAGE_BYTES: u64 = 4096;
const REPORT_PAGE: &str = include_str!("../../../../docs/report.md");

fn assert_fields(part: &Value, fields: &[(&str, Kind)]) {
    for (path, kind) in fields {
        let found = part.pointer(path);
        let value = found.unwrap_or_else(|| panic!("no {path}: {part}"));
        let fits = match kind {
            Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Count => value.as_u64().is_some_and(|count| count > 0),
            Figure => value.as_f64().is_some_and(|figure| figure > 0.0),
            Amount => value.as_f64().is_some_and(|amount| amount >= 0.0),
            OneOf(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
            Flag => value.is_boolean(),
            Null => value.is_null(),
            Any => true,
        };
        assert!(fits, "{path} is {value}, not {kind:?}");
    }
}

/// The fields of an object, and those that a table of tests names.
fn assert_no_others(part: &Value, fields: &[(&str, Kind)]) {
    let first = |path: &str| path.split('/').nth(1).unwrap().to_owned();
    let named: BTreeSet<String> = fields.iter().map(|(path, _)| first(path)).collect();
    let found: BTreeSet<String> = part.as_object().unwrap().keys().cloned().collect();
    assert_eq!(found, named);
}

/// The fields in the first column of the table below `heading`.
fn documented(heading: &str) -> BTreeSet<String> {
    let (_, below) = REPORT_PAGE.split_once(heading).unwrap();
    let table = below.lines().skip_while(|line| !line.starts_with('|'));
    let rows = table.take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let names = names.map(|name| name.split(['.', '[']).next().unwrap().to_owned());
    names.collect()
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

fn count(run: &Value, path: &str) -> u64 {
    run.pointer(path).unwrap().as_u64().unwrap()
}

fn pages(run: &Value) -> u64 {
    let pages = run["pages"].as_object().unwrap();
    pages.values().map(|count| count.as_u64().unwrap()).sum()
}

fn sum_of_rounds(run: &Value, figure: &str) -> u64 {
    let rounds = run["rounds"].as_array().unwrap();
    rounds
        .iter()
        .map(|round| round[figure].as_u64().unwrap())
        .sum()
}

#[test]
fn every_field_is_there_and_adds_up() {
    let _turn = turn();
    for kind in kinds() {
        let done = bench(&format!(
            "run --quiet --repeat 2 --json - --guest {kind} --memory 64MiB --working-set 16MiB \
             --dirty-rate 50MiB/s --verify --verify-digest"
        ));
        assert_eq!(done.code, Some(0), "{done:?}");
        let report = done.report();
        assert_fields(&report, TOP);
        assert_eq!(keys(&report), documented("# The report"));
        for (part, fields) in [("config", CONFIG), ("host", HOST), ("reference", REFERENCE)] {
            assert_fields(&report[part], fields);
            assert_no_others(&report[part], fields);
        }
        assert_eq!(report["config"]["guest"], kind);
        assert_reference(&report["reference"], &report["runs"]);
        let runs = report["runs"].as_array().unwrap();
        assert_eq!(runs.len(), 2);
        for run in runs {
            assert_fields(run, RUN);
            assert_no_others(run, RUN);
            assert_eq!(keys(run), documented("## `runs[]`"));
            assert_adds_up(run, 64 * MIB);
            assert_timeline(run);
            assert_switchover(run, &run["switchover"]);
        }
        assert_summary(&report);
    }
}

fn assert_adds_up(run: &Value, guest_bytes: u64) {
    let seconds = run["total_ms"].as_f64().unwrap() / 1e3;
    let downtime = run["downtime_ms"]["engine"].as_f64().unwrap() / 1e3;
    assert!(downtime < seconds && seconds < 60.0, "{run}");
    let rate = guest_bytes as f64 / f64::from(1 << 30) / seconds;
    let said = run["throughput_gib_s"].as_f64().unwrap();
    assert!((said / rate - 1.0).abs() < 0.01, "{said} is not {rate}");
    assert_eq!(run["guest_bytes"], guest_bytes);
    assert_eq!(run["rounds"][0]["pages"], guest_bytes / PAGE_BYTES, "{run}");
    assert_eq!(sum_of_rounds(run, "pages"), pages(run), "{run}");
    assert_eq!(sum_of_rounds(run, "wire_bytes"), count(run, "/wire_bytes"));
    let by_stream = run["stream_bytes"].as_array().unwrap().iter();
    let by_stream: u64 = by_stream.map(|bytes| bytes.as_u64().unwrap()).sum();
    assert_eq!(by_stream, count(run, "/wire_bytes"), "{run}");
    let payload = (count(run, "/pages/raw") + count(run, "/pages/live")) * PAGE_BYTES;
    let wire = count(run, "/wire_bytes");
    // Headers and tables: a few per cent, and never nothing.
    assert!(wire > payload, "{run}");
    if ["lz4", "zstd", "delta"].map(|name| count(run, &format!("/pages/{name}"))) == [0; 3] {
        assert!(wire < payload + payload / 20 + MIB, "{run}");
    }
    // It moved while it wrote: a round after the first found something.
    assert!(run["rounds"].as_array().unwrap().len() >= 2, "{run}");
    assert_eq!(run["verified"]["guest"], "ok");
    assert_eq!(run["verified"]["digest"], "ok");
}

/// Samples and events against the figures that they must lead to.
fn assert_timeline(run: &Value) {
    let timeline = &run["timeline"];
    let samples = timeline["samples"].as_array().unwrap();
    let number = |value: &Value, name: &str| value[name].as_f64().unwrap();
    for pair in samples.windows(2) {
        let [ms, sent] =
            ["ms", "sent_bytes"].map(|name| number(&pair[1], name) - number(&pair[0], name));
        assert!(ms >= 0.0 && sent >= 0.0, "{pair:?}");
        if ms > 0.0 {
            let rate = sent / f64::from(1 << 30) / (ms / 1e3);
            let said = number(&pair[1], "send_gib_s");
            assert!((said - rate).abs() <= 0.001 * rate, "{said} is not {rate}");
        }
    }
    let (first, last) = (&samples[0], &samples[samples.len() - 1]);
    assert_eq!(first["sent_bytes"], 0);
    assert_eq!(last["sent_bytes"], run["wire_bytes"]);
    assert_eq!(last["remaining_pages"], 0);
    let writes = |sample: &Value| sample["dirty_pages_s"].as_f64() > Some(0.0);
    assert!(samples.iter().any(writes), "{timeline}");
    let rounds = run["rounds"].as_array().unwrap();
    for (round, figures) in rounds.iter().enumerate() {
        let own = samples.iter().filter(|sample| sample["round"] == round);
        let own: Vec<&Value> = own.collect();
        let ends = [own[0], own[own.len() - 1]];
        let [start, end] = ends.map(|sample| number(sample, "ms"));
        let took = number(figures, "ms");
        // The end is told after the figure was taken.
        assert!(end - start >= took, "round {round}: {ends:?}");
        let [start, end] = ends.map(|sample| number(sample, "sent_bytes"));
        assert_eq!(end - start, number(figures, "wire_bytes"));
    }
    let events = timeline["events"].as_array().unwrap();
    let at = |what: &str| {
        let events = events.iter().filter(|event| event["what"] == what);
        events
            .map(|event| number(event, "ms"))
            .collect::<Vec<f64>>()
    };
    assert_eq!(at("round_started").len(), rounds.len());
    let [asked, paused, runs] = ["pause_asked", "paused", "runs_on_target"].map(|what| at(what)[0]);
    assert!(asked <= paused && paused < runs, "{timeline}");
    let downtime = number(&run["downtime_ms"], "engine");
    assert!(
        (runs - asked - downtime).abs() < 0.001,
        "{downtime}: {timeline}"
    );
    assert!(runs <= number(run, "total_ms"), "{timeline}");
}

/// Every moment of either side is there, in an order that can be, and the steps add up.
fn assert_switchover(run: &Value, switchover: &Value) {
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{switchover}"));
    let steps = switchover["steps_us"].as_object().unwrap();
    let sum: f64 = steps.values().map(number).sum();
    let said = number(&switchover["sum_us"]);
    assert!((sum - said).abs() < 0.01, "{sum}: {switchover}");
    let guest = number(&run["downtime_ms"]["guest"]) * 1e3;
    assert!((number(&switchover["guest_us"]) - guest).abs() < 0.01);
    let rest = number(&switchover["rest_us"]);
    assert!((guest - said - rest).abs() < 0.01, "{switchover}");
    let in_order = |side: &str, names: &[&str]| {
        let times: Vec<f64> = names
            .iter()
            .map(|name| number(&switchover[side][*name]))
            .collect();
        assert!(times.is_sorted(), "{names:?}: {switchover}");
    };
    let pages = ["last_round_ordered", "last_round_sent", "landed_heard"];
    let state = ["last_round_ordered", "exported", "state_sent"];
    for way in [&pages, &state] {
        in_order("source_us", &["pause_asked", "paused", "harvested"]);
        in_order("source_us", way);
        in_order("source_us", &[way[2], "prepared_heard", "handed_over"]);
    }
    let end = ["prepared_sent", "hand_over_received", "resumed", "entered"];
    for way in [
        &["announced", "surveyed"][..],
        &["state_received", "restored"],
        &["last_page_landed", "ledger_complete"],
        &["totals_heard", "ledger_complete"],
    ] {
        in_order("target_us", &[way, &end[..2]].concat());
    }
    in_order("target_us", &["hand_over_received", "resumed"]);
    in_order("target_us", &["hand_over_received", "entered"]);
    assert_eq!(switchover["source_us"].as_object().unwrap().len(), 11);
    assert_eq!(switchover["target_us"].as_object().unwrap().len(), 12);
}

/// Each move of a chain has its own pause.
#[test]
fn every_move_of_a_chain_is_told() {
    let _turn = turn();
    for kind in kinds() {
        let done = run(&format!(
            "--guest {kind} --memory 64MiB --working-set 16MiB --hops 3"
        ));
        assert_eq!(done.code, Some(0), "{done:?}");
        let run = done.first_run();
        let hops = run["hop_switchovers"].as_array().unwrap();
        assert_eq!(hops.len(), 3, "{run}");
        assert_eq!(hops[2], run["switchover"]);
        let gap = |hop: &Value| hop["guest_us"].as_f64().unwrap() / 1e3;
        let longest = hops.iter().map(gap).fold(0.0, f64::max);
        let said = run["hop_gap_ms"]["max"].as_f64().unwrap();
        assert!((said - longest).abs() < 1e-6, "{run}");
        assert_switchover(&run, &hops[2]);
    }
}

/// Sockets carried what the guest held besides zeros, once for each run, and the ratios say so.
fn assert_reference(reference: &Value, runs: &Value) {
    let bytes = reference["bytes"].as_u64().unwrap();
    assert_eq!(bytes, runs[0]["content_bytes"], "{reference}");
    assert!(bytes > 32 * MIB && bytes < 64 * MIB, "{reference}");
    let times = reference["total_ms"].as_array().unwrap();
    assert_eq!(times.len(), 2);
    for (run, time) in runs.as_array().unwrap().iter().zip(times) {
        let scale = run["content_bytes"].as_f64().unwrap() / bytes as f64;
        let expected = time.as_f64().unwrap() * scale / run["total_ms"].as_f64().unwrap();
        let found = run["ratio_to_sockets"].as_f64().unwrap();
        assert!((found / expected - 1.0).abs() < 1e-9, "{found}: {run}");
    }
    for speed in ["memcpy_one", "memcpy_all", "read_one", "read_all"] {
        let median = &reference["memory"][format!("{speed}_gib_s")]["median"];
        assert!(median.as_f64().unwrap() > 0.0, "{speed}: {reference}");
    }
}

fn assert_summary(report: &Value) {
    let summary = &report["summary"];
    assert_eq!(summary["completed"], 2);
    assert_eq!(summary["verified"], 2);
    for figure in SPREADS {
        let [min, median, max] =
            ["min", "median", "max"].map(|name| summary[figure][name].as_f64().unwrap_or(f64::NAN));
        assert!(
            min <= median && median <= max && min >= 0.0,
            "{figure}: {summary}"
        );
    }
    let named: BTreeSet<String> = SPREADS.iter().map(ToString::to_string).collect();
    let all: BTreeSet<String> = keys(summary);
    let rest: Vec<&String> = all.difference(&named).collect();
    assert_eq!(rest, ["completed", "verified"]);
}

#[test]
fn nothing_is_verified_where_nobody_asked() {
    let _turn = turn();
    let done = run("--guest process --memory 64MiB --working-set 16MiB");
    assert_eq!(done.code, Some(0), "{done:?}");
    let report = done.report();
    assert_eq!(report["summary"]["completed"], 1);
    assert_eq!(report["summary"]["verified"], 0);
    assert_eq!(report["reference"], Value::Null);
    assert_eq!(report["runs"][0]["ratio_to_sockets"], Value::Null);
}

#[test]
fn zero_pages_cost_next_to_nothing() {
    let _turn = turn();
    for kind in kinds() {
        let run = run(&format!(
            "--guest {kind} --memory 128MiB --fill zero --working-set 0 --verify"
        ))
        .first_run();
        assert_fields(&run, &RUN[..3]);
        assert!(count(&run, "/wire_bytes") < 4 * MIB, "{run}");
        assert!(count(&run, "/pages/raw") < 1024, "{run}");
        assert!(count(&run, "/content_bytes") < 4 * MIB, "{run}");
    }
}

#[test]
fn random_pages_stay_raw_and_text_gets_smaller() {
    let _turn = turn();
    for kind in kinds() {
        let line = |fill, codec| {
            format!(
                "--guest {kind} --memory 64MiB --fill {fill} --codec {codec} --working-set 0 \
                 --verify"
            )
        };
        let random = run(&line("random", "auto")).first_run();
        let sum = |names: &[&str]| -> u64 {
            let counts = names
                .iter()
                .map(|name| count(&random, &format!("/pages/{name}")));
            counts.sum()
        };
        let content = pages(&random) - sum(&["absent", "zero", "constant"]);
        assert!(sum(&["raw", "live"]) > content * 9 / 10, "{random}");
        let plain = run(&line("text", "none")).first_run();
        assert_eq!(plain["pages"]["lz4"], 0, "{plain}");
        let wire = |run: &Value| count(run, "/wire_bytes");
        let packed = run(&line("text", "lz4")).first_run();
        assert!(wire(&packed) < wire(&plain) * 3 / 4, "{packed}");
        // Whether it pays is a matter of the link; it never costs more than not to have asked.
        let auto = run(&line("text", "auto")).first_run();
        assert!(wire(&auto) < wire(&plain) + MIB, "{auto}");
    }
}

#[test]
fn memory_that_was_never_touched_costs_nothing() {
    let _turn = turn();
    for kind in kinds() {
        let run = run(&format!(
            "--guest {kind} --memory 128MiB --touched 50% --working-set 16MiB --verify"
        ))
        .first_run();
        assert_fields(&run, &RUN[..3]);
        let all = 128 * MIB / PAGE_BYTES;
        let absent = count(&run, "/pages/absent");
        assert!(absent > all * 2 / 5 && absent < all * 3 / 5, "{run}");
        let first = count(&run, "/rounds/0/wire_bytes");
        assert!(first < 80 * MIB, "{run}");
    }
}

/// A terabyte of addresses of which a little is used moves as that little does.
#[test]
fn a_guest_may_be_far_larger_than_what_it_touches() {
    let _turn = turn();
    let run =
        run("--guest process --memory 1TiB --touched 64MiB --working-set 16MiB --verify-digest")
            .first_run();
    assert_fields(&run, &RUN[..3]);
    assert_eq!(count(&run, "/guest_bytes"), MIB << 20);
    assert_eq!(run["verified"]["digest"], "ok");
    assert!(count(&run, "/wire_bytes") < 160 * MIB, "{run}");
    let absent = count(&run, "/pages/absent") * PAGE_BYTES;
    assert!(absent > (MIB << 20) - 128 * MIB, "{run}");
    for side in ["/overhead_bytes/source", "/overhead_bytes/target"] {
        assert!(count(&run, side) < 128 * MIB, "{run}");
    }
}

#[test]
fn a_run_that_does_not_complete_says_null_for_what_nobody_measured() {
    let _turn = turn();
    let run = start(
        "run --quiet --no-reference --repeat 1 --hops 10000 --json - --guest process \
         --memory 64MiB --working-set 16MiB",
    );
    std::thread::sleep(Duration::from_millis(700));
    interrupt(run.child.id());
    let done = finish(run);
    assert_eq!(done.code, Some(1), "{done:?}");
    let report = done.report();
    assert_fields(&report["runs"][0], CANCELLED_RUN);
    assert_no_others(&report["runs"][0], RUN);
    for figure in SPREADS {
        assert_eq!(report["summary"][figure], Value::Null, "{figure}");
    }
    // Quiet, but not about an error.
    assert!(done.err.contains("the guest is with: source"), "{done:?}");
}

#[test]
fn a_report_goes_to_a_file_and_the_table_to_standard_output() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let done = bench(&format!(
        "run --guest process --memory 64MiB --working-set 16MiB --repeat 1 --no-reference --verify \
         --json {}",
        path.display()
    ));
    assert_eq!(done.code, Some(0), "{done:?}");
    let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(report["schema"], "limosa.run/1");
    for row in ["downtime, guest-seen", "verified by the guest", "run 1"] {
        assert!(done.out.contains(row), "{row}: {}", done.out);
    }
}
