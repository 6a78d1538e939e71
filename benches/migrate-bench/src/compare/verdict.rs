//! Two reports side by side, as the JSON schema `limosa.compare/1`; `docs/report.md` describes each
//! field.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::figures::{Better, FIGURES, Figure, Unit};
use super::load::Loaded;
use super::mann_whitney::{least_p_value, p_value};
use crate::report::Spread;

/// The schema's name and version.
const SCHEMA: &str = "limosa.compare/1";
/// What decides.
const TEST: &str = "Mann-Whitney U, two-sided, on the runs of either report";
/// Of `config`: what follows from a run, and how many there were, was not asked for.
const NOT_ASKED_FOR: [&str; 3] = ["guest_reason", "io", "repeat"];

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Comparison {
    schema: &'static str,
    pub(super) a: Side,
    pub(super) b: Side,
    test: &'static str,
    pub(super) level: f64,
    pub(super) config_differences: Vec<Difference>,
    pub(super) host_differences: Vec<Difference>,
    pub(super) figures: Vec<Compared>,
}

/// One of the two reports.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Side {
    pub(super) file: String,
    pub(super) runs: usize,
}

/// A field that the reports don't agree on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Difference {
    pub(super) name: String,
    pub(super) a: Value,
    pub(super) b: Value,
}

/// One figure in both reports.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Compared {
    figure: &'static str,
    #[serde(skip)]
    pub(super) name: &'static str,
    pub(super) unit: Unit,
    pub(super) better: Better,
    pub(super) a: Spread,
    pub(super) b: Spread,
    /// Of the medians; none where the first is 0.
    pub(super) change_percent: Option<f64>,
    pub(super) p: f64,
    pub(super) verdict: Verdict,
}

/// Whether the runs of one report are larger than those of the other by more than chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Better,
    Worse,
    NotSignificant,
    /// So few that no difference between them, however large, would be significant.
    TooFewRuns,
}

impl Comparison {
    /// Every figure that both reports have; `level` is the largest probability of a difference by
    /// chance at which it counts.
    pub(super) fn of(a: &Loaded, b: &Loaded, level: f64) -> Self {
        let figures = FIGURES
            .iter()
            .filter_map(|figure| Compared::of(figure, &figure.values(a), &figure.values(b), level));
        let asked = |name: &str| !NOT_ASKED_FOR.contains(&name);
        Self {
            schema: SCHEMA,
            a: Side::of(a),
            b: Side::of(b),
            test: TEST,
            level,
            config_differences: differences(a, b, "config", asked),
            host_differences: differences(a, b, "host", |_| true),
            figures: figures.collect(),
        }
    }
}

impl Side {
    fn of(loaded: &Loaded) -> Self {
        Self {
            file: loaded.file.display().to_string(),
            runs: loaded.completed().count(),
        }
    }
}

impl Compared {
    fn of(figure: &Figure, a: &[f64], b: &[f64], level: f64) -> Option<Self> {
        let p = p_value(a, b)?;
        let [spread_a, spread_b] = [
            Spread::of(a.iter().copied())?,
            Spread::of(b.iter().copied())?,
        ];
        let verdict = if least_p_value(a.len(), b.len()) >= level {
            Verdict::TooFewRuns
        } else if p >= level {
            Verdict::NotSignificant
        } else if is_better(figure.better, a, b) {
            Verdict::Better
        } else {
            Verdict::Worse
        };
        let change = (spread_b.median / spread_a.median - 1.0) * 100.0;
        Some(Self {
            figure: figure.key,
            name: figure.name,
            unit: figure.unit,
            better: figure.better,
            a: spread_a,
            b: spread_b,
            change_percent: (spread_a.median != 0.0).then_some(change),
            p,
            verdict,
        })
    }
}

/// Whether a value of `b` is the better one more often than one of `a`: what the test looks at,
/// where medians may even be equal.
fn is_better(better: Better, a: &[f64], b: &[f64]) -> bool {
    let pairs = a.iter().flat_map(|a| b.iter().map(move |b| (a, b)));
    let (lower, higher) = pairs.fold((0, 0), |(lower, higher), (a, b)| {
        (lower + u32::from(b < a), higher + u32::from(b > a))
    });
    match better {
        Better::Lower => lower > higher,
        Better::Higher => higher > lower,
    }
}

/// The fields of `part` in which two reports differ; one that only one of them has is `null` in
/// the other.
fn differences(a: &Loaded, b: &Loaded, part: &str, counts: fn(&str) -> bool) -> Vec<Difference> {
    let [a, b] = [a, b].map(|loaded| &loaded.report[part]);
    let keys = [a, b].map(|part| part.as_object().into_iter().flatten());
    let names: BTreeSet<&String> = keys.into_iter().flatten().map(|(name, _)| name).collect();
    names
        .into_iter()
        .filter(|name| counts(name) && a[*name] != b[*name])
        .map(|name| Difference {
            name: name.clone(),
            a: a[name].clone(),
            b: b[name].clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn report(codec: &str, totals_ms: &[f64]) -> Loaded {
        let runs: Vec<Value> = totals_ms
            .iter()
            .map(|ms| {
                json!({
                    "outcome": "completed",
                    "total_ms": ms,
                    "throughput_gib_s": 1e3 / ms,
                    "wire_bytes": 1 << 20,
                    "rounds": [{}, {}],
                })
            })
            .collect();
        Loaded {
            file: "a.json".into(),
            report: json!({
                "config": {"codec": codec, "repeat": runs.len(), "io": "any"},
                "host": {"lps": 2},
                "runs": runs,
            }),
        }
    }

    fn verdict(comparison: &Comparison, key: &str) -> Verdict {
        let mut figures = comparison.figures.iter();
        figures.find(|found| found.figure == key).unwrap().verdict
    }

    #[test]
    fn options_that_differ_are_named_and_repeats_are_not() {
        let (a, b) = (report("none", &[1.0, 2.0]), report("lz4", &[1.0, 2.0, 3.0]));
        let comparison = Comparison::of(&a, &b, 0.05);
        let codec = Difference {
            name: "codec".into(),
            a: "none".into(),
            b: "lz4".into(),
        };
        assert_eq!(comparison.config_differences, [codec]);
        assert_eq!(comparison.host_differences, []);
        assert_eq!(comparison.a.runs, 2);
        assert_eq!(comparison.b.runs, 3);
    }

    #[test]
    fn a_field_that_one_report_lacks_is_a_difference() {
        let (a, mut b) = (report("none", &[1.0; 2]), report("none", &[1.0; 2]));
        b.report["config"]["link"] = "1Gbit".into();
        let [a_to_b, b_to_a] =
            [(&a, &b), (&b, &a)].map(|(a, b)| Comparison::of(a, b, 0.05).config_differences);
        assert_eq!(a_to_b.len(), 1);
        assert_eq!(
            (&a_to_b[0].a, &a_to_b[0].b),
            (&Value::Null, &json!("1Gbit"))
        );
        assert_eq!(
            (&b_to_a[0].a, &b_to_a[0].b),
            (&json!("1Gbit"), &Value::Null)
        );
    }

    #[test]
    fn figures_of_one_report_only_are_left_out() {
        let (a, mut b) = (report("none", &[1.0; 4]), report("none", &[2.0; 4]));
        for run in b.report["runs"].as_array_mut().unwrap() {
            run["wire_bytes"] = Value::Null;
        }
        let comparison = Comparison::of(&a, &b, 0.05);
        let keys = comparison.figures.iter().map(|found| found.figure);
        assert_eq!(
            keys.collect::<Vec<_>>(),
            ["total_ms", "throughput_gib_s", "rounds"]
        );
    }

    #[test]
    fn few_runs_are_called_few() {
        let (a, b) = (
            report("none", &[1.0, 1.1, 1.2]),
            report("none", &[9.0, 9.1, 9.2]),
        );
        let verdict_at = |level| verdict(&Comparison::of(&a, &b, level), "total_ms");
        assert_eq!(verdict_at(0.05), Verdict::TooFewRuns);
        // 2 of 20 arrangements are as extreme.
        assert_eq!(verdict_at(0.11), Verdict::Worse);
    }

    /// Around 1 s, by at most 2 %.
    fn calm(counts: std::ops::Range<usize>) -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(980.0..1020.0, counts)
    }

    proptest! {
        #[test]
        fn a_report_does_not_differ_from_itself(totals in prop::collection::vec(1.0..1e5, 2..60)) {
            let report = report("none", &totals);
            for found in Comparison::of(&report, &report, 0.05).figures {
                let verdict = found.verdict;
                prop_assert!(matches!(verdict, Verdict::NotSignificant | Verdict::TooFewRuns));
                prop_assert_eq!(found.change_percent, Some(0.0));
                prop_assert_eq!(found.p, 1.0);
            }
        }

        #[test]
        fn a_tenth_more_is_found_where_runs_are_calm(a in calm(4..20), b in calm(4..20)) {
            let slower: Vec<f64> = b.iter().map(|ms| ms * 1.1).collect();
            let (a, b) = (report("none", &a), report("none", &slower));
            for (from, to, expected) in [(&a, &b, Verdict::Worse), (&b, &a, Verdict::Better)] {
                let comparison = Comparison::of(from, to, 0.05);
                for key in ["total_ms", "throughput_gib_s"] {
                    prop_assert_eq!(verdict(&comparison, key), expected, "{}", key);
                }
                prop_assert_eq!(verdict(&comparison, "wire_bytes"), Verdict::NotSignificant);
            }
            let change = Comparison::of(&a, &b, 0.05).figures[0].change_percent.unwrap();
            prop_assert!((5.0..15.0).contains(&change), "{}", change);
        }
    }
}
