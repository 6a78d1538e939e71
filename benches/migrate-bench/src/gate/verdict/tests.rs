//! Planted slow-downs and speed-ups, and what is mere chance.

use super::*;
use crate::facts::host_facts;
use crate::gate::ratios::RATIOS;

const PACK: &str = "pack-raw";

fn tools() -> Tools {
    Tools {
        compiler: "rustc 1".into(),
        c_compiler: "cc 1".into(),
        build: "release".into(),
        libc: "glibc 2".into(),
        valgrind: "valgrind-3".into(),
        processor: Some("x86_64 with avx2".into()),
    }
}

fn counted(name: &str, per_unit: f64) -> Count {
    Count {
        counted: name.parse().unwrap(),
        per_unit,
        loops: "avx2".into(),
        processor: "x86_64 with avx2".into(),
    }
}

fn sampled(samples: &[f64]) -> Sampled {
    Sampled {
        name: RATIOS[0].name,
        what: "ours ÷ theirs",
        of: None,
        tolerance_percent: 35.0,
        samples: samples.to_vec(),
    }
}

fn measured(counts: Vec<Count>, samples: &[f64]) -> Measured {
    Measured {
        machine: host_facts(),
        tools: tools(),
        counts: Some(counts),
        ratios: Some(vec![sampled(samples)]),
    }
}

/// A file whose kernel takes 1000 instructions, and whose ratio is 1.2.
fn baseline() -> Baseline {
    Baseline::updated(
        None,
        &measured(vec![counted(PACK, 1000.0)], &[1.2; 9]),
        Extent::Whole,
    )
}

fn verdicts(now: &Measured) -> Vec<Verdict> {
    let report = Report::of(&baseline(), now, Extent::Whole);
    report.rows.iter().map(|row| row.verdict).collect()
}

fn verdict_on(count: f64, samples: &[f64]) -> [Verdict; 2] {
    let verdicts = verdicts(&measured(vec![counted(PACK, count)], samples));
    verdicts.try_into().unwrap()
}

#[test]
fn a_tenth_more_instructions_is_a_regression_and_a_hundredth_is_not() {
    use Verdict::{AsExpected, Improvement, Regression};
    let usual = [1.2; 9];
    for (count, expected) in [
        (1000.0, AsExpected),
        (1019.0, AsExpected),
        (1021.0, Regression),
        (1100.0, Regression),
        (981.0, AsExpected),
        (900.0, Improvement),
    ] {
        assert_eq!(verdict_on(count, &usual), [expected, AsExpected], "{count}");
    }
}

#[test]
fn an_instruction_more_is_allowed_to_the_shortest_kernel_and_a_tenth_more_is_not() {
    let before = measured(vec![counted(PACK, 18.0)], &[1.2; 9]);
    let before = Baseline::updated(None, &before, Extent::Whole);
    for (count, expected) in [
        (18.9, Verdict::AsExpected),
        (19.8, Verdict::Regression),
        (17.1, Verdict::AsExpected),
    ] {
        let now = measured(vec![counted(PACK, count)], &[1.2; 9]);
        let report = Report::of(&before, &now, Extent::Whole);
        assert_eq!(report.rows[0].verdict, expected, "{count}");
        assert!((report.rows[0].tolerance_percent - 5.6).abs() < 1e-9);
    }
}

#[test]
fn a_regression_is_named_with_its_change() {
    let now = measured(vec![counted(PACK, 1100.0)], &[1.2; 9]);
    let report = Report::of(&baseline(), &now, Extent::Whole);
    let found: Vec<_> = report.regressions().collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].figure, PACK);
    assert_eq!(found[0].expected, Some(1000.0));
    assert!((found[0].change_percent.unwrap() - 10.0).abs() < 1e-9);
}

#[test]
fn ratios_are_worse_only_when_nearly_all_of_them_are() {
    use Verdict::{AsExpected, Improvement, Regression};
    for (samples, expected) in [
        ([1.2; 9], AsExpected),
        ([1.7; 9], Regression),
        // One lucky pair does not hide it, two do: then it may be chance.
        ([1.0, 1.7, 1.7, 1.8, 1.8, 1.8, 1.9, 2.0, 9.0], Regression),
        ([1.0, 1.1, 1.7, 1.8, 1.8, 1.8, 1.9, 2.0, 9.0], AsExpected),
        // A machine that is busy for some of the pairs.
        ([1.1, 1.1, 1.2, 1.2, 1.2, 9.0, 9.0, 9.0, 9.0], AsExpected),
        ([0.7; 9], Improvement),
    ] {
        let [_, verdict] = verdict_on(1000.0, &samples);
        assert_eq!(verdict, expected, "{samples:?}");
        let slower = is_slower(&baseline(), &host_facts(), &sampled(&samples));
        assert_eq!(slower, expected == Regression);
    }
}

#[test]
fn ratios_of_another_machine_are_held_to_gross_faults_only() {
    let mut now = measured(vec![counted(PACK, 1000.0)], &[3.0; 9]);
    assert_eq!(verdicts(&now)[1], Verdict::Regression);
    now.machine.cpu = "another".into();
    assert_eq!(verdicts(&now)[1], Verdict::AsExpected);
    now.ratios = Some(vec![sampled(&[4.0; 9])]);
    assert_eq!(verdicts(&now)[1], Verdict::Regression);
}

#[test]
fn a_processor_that_valgrind_shows_is_a_tool() {
    let mut now = measured(vec![counted(PACK, 1060.0)], &[1.2; 9]);
    now.tools.processor = Some("x86_64 with sse4.2".into());
    assert_eq!(verdicts(&now)[0], Verdict::AsExpected);
    let said = Report::of(&baseline(), &now, Extent::Whole).other_tools;
    assert!(said[0].contains("sse4.2"), "{said:?}");
}

#[test]
fn other_tools_widen_the_tolerance_of_counts_and_a_tenth_is_still_seen() {
    let mut now = measured(vec![counted(PACK, 1060.0)], &[1.2; 9]);
    assert_eq!(verdicts(&now)[0], Verdict::Regression);
    now.tools.compiler = "rustc 2".into();
    assert_eq!(verdicts(&now)[0], Verdict::AsExpected);
    let report = Report::of(&baseline(), &now, Extent::Whole);
    assert_eq!(report.other_tools.len(), 1);
    now.counts = Some(vec![counted(PACK, 1100.0)]);
    assert_eq!(verdicts(&now)[0], Verdict::Regression);
}

#[test]
fn what_cannot_be_compared_is_said_and_fails_nothing() {
    let mut other = counted(PACK, 5000.0);
    other.loops = "portable".into();
    let mut now = measured(vec![other, counted("land-raw", 1.0)], &[9.0; 9]);
    now.ratios.as_mut().unwrap()[0].of = Some("process guest".into());
    let report = Report::of(&baseline(), &now, Extent::Whole);
    let whys: Vec<_> = report
        .rows
        .iter()
        .map(|row| row.why.as_deref().unwrap())
        .collect();
    assert!(whys[0].contains("portable") && whys[0].contains("avx2"));
    assert!(whys[1].contains("--update"));
    assert!(whys[2].contains("process guest"));
    assert_eq!(report.regressions().count(), 0);
}

#[test]
fn a_kernel_that_is_gone_is_said_unless_others_were_asked_for() {
    let now = measured(vec![counted("land-raw", 1.0)], &[1.2; 9]);
    let rows = |extent| Report::of(&baseline(), &now, extent).rows.len();
    assert_eq!(rows(Extent::Whole), 3);
    assert_eq!(rows(Extent::Part), 2);
}

#[test]
fn tolerances_stay_when_the_file_is_written_anew() {
    let mut before = baseline();
    before.tolerance.instructions_percent = 3.5;
    before.ratios[0].tolerance_percent = 70.0;
    let now = measured(vec![counted(PACK, 2000.0)], &[2.0; 9]);
    let after = Baseline::updated(Some(before), &now, Extent::Whole);
    assert_eq!(after.tolerance.instructions_percent, 3.5);
    assert_eq!(after.ratios[0].tolerance_percent, 70.0);
    assert_eq!(after.instructions[0].count, 2000.0);
    assert_eq!(after.ratios[0].expected.median, 2.0);
}

#[test]
fn bounds_of_a_median_hold_it() {
    let samples: Vec<f64> = (1..=15).map(f64::from).collect();
    assert_eq!(median_bounds(&samples), Some([4.0, 12.0]));
    assert_eq!(median_bounds(&samples[..7]), Some([1.0, 7.0]));
    assert_eq!(median_bounds(&samples[..9]), Some([2.0, 8.0]));
    assert_eq!(median_bounds(&[3.0]), Some([3.0, 3.0]));
    assert_eq!(median_bounds(&[]), None);
}
