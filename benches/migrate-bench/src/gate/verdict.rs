//! What was measured beside what is expected, as the JSON schema `limosa.gate-result/1`: which
//! figures are worse by more than their tolerance. It measures nothing.

use serde::Serialize;
use statrs::distribution::{Binomial, DiscreteCDF};

use super::Extent;
use super::file::{Baseline, Instructions, Ratio, Tools};
use super::measure::Measured;
use super::ratios::Sampled;
use super::valgrind::Count;
use crate::report::{HostFacts, Spread};

/// The schema's name and version.
const SCHEMA: &str = "limosa.gate-result/1";
/// Largest probability of a median beyond its bound by chance.
const LEVEL: f64 = 0.05;

/// All of it.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    /// When and where the baseline was measured.
    pub(super) baseline_date: String,
    pub(super) baseline_machine: HostFacts,
    pub(super) machine: HostFacts,
    /// What the baseline was measured with and this was not.
    pub(super) other_tools: Vec<String>,
    pub(super) rows: Vec<Row>,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Row {
    pub(super) figure: String,
    /// What it is counted in, or what the ratio is of.
    pub(super) unit: String,
    pub(super) expected: Option<f64>,
    pub(super) measured: Option<f64>,
    /// Of several samples, the bounds of their median.
    pub(super) bounds: Option<[f64; 2]>,
    pub(super) change_percent: Option<f64>,
    pub(super) tolerance_percent: f64,
    pub(super) verdict: Verdict,
    /// Why it was not compared.
    pub(super) why: Option<String>,
}

/// Lower is better, for every figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    AsExpected,
    Regression,
    Improvement,
    NotCompared,
}

impl Report {
    /// Compares what was measured with the figures of `baseline`; that a figure is gone is said
    /// where all were asked for.
    pub(super) fn of(baseline: &Baseline, measured: &Measured, extent: Extent) -> Self {
        let other_tools = differences(&baseline.tools, &measured.tools);
        let tolerance = &baseline.tolerance;
        let allowed = Allowed {
            percent: if other_tools.is_empty() {
                tolerance.instructions_percent
            } else {
                tolerance.instructions_other_tools_percent
            },
            least: tolerance.instructions_least,
        };
        let mut rows = Vec::new();
        if let Some(counts) = &measured.counts {
            rows.extend(count_rows(baseline, counts, allowed, extent));
        }
        if let Some(ratios) = &measured.ratios {
            rows.extend(
                ratios
                    .iter()
                    .map(|sampled| ratio_row(baseline, &measured.machine, sampled)),
            );
        }
        Self {
            schema: SCHEMA,
            baseline_date: baseline.date.clone(),
            baseline_machine: baseline.machine.clone(),
            machine: measured.machine.clone(),
            other_tools,
            rows,
        }
    }

    /// The figures that are worse by more than their tolerance.
    pub(super) fn regressions(&self) -> impl Iterator<Item = &Row> {
        let rows = self.rows.iter();
        rows.filter(|row| row.verdict == Verdict::Regression)
    }
}

/// Whether a batch is surely slower than it may be.
pub(super) fn is_slower(baseline: &Baseline, machine: &HostFacts, sampled: &Sampled) -> bool {
    ratio_row(baseline, machine, sampled).verdict == Verdict::Regression
}

/// How many more instructions a count may have.
#[derive(Debug, Clone, Copy)]
struct Allowed {
    percent: f64,
    /// Instructions for a unit, where that is more.
    least: f64,
}

impl Allowed {
    /// In tenths of a percent, as it is shown.
    fn percent_of(self, expected: f64) -> f64 {
        let least = self.least / expected.max(self.least) * 1000.0;
        self.percent.max(least.round() / 10.0)
    }
}

impl Baseline {
    /// The ratio of that name.
    fn ratio(&self, name: &str) -> Option<&Ratio> {
        self.ratios.iter().find(|ratio| ratio.name == name)
    }

    /// How much more that ratio may be on `machine`: caches and memory differ more than code does.
    fn ratio_tolerance_percent(&self, known: &Ratio, machine: &HostFacts) -> f64 {
        let here = &self.machine;
        if (&here.cpu, here.lps) == (&machine.cpu, machine.lps) {
            known.tolerance_percent
        } else {
            let other = self.tolerance.ratios_other_machine_percent;
            known.tolerance_percent.max(other)
        }
    }
}

/// A row for each count, and one for each that the file has and nobody could measure.
fn count_rows(baseline: &Baseline, counts: &[Count], allowed: Allowed, extent: Extent) -> Vec<Row> {
    let known = |count: &Count| {
        let name = count.counted.to_string();
        baseline.instructions.iter().find(|it| it.kernel == name)
    };
    let of_count = |count: &Count| count_row(known(count), count, allowed);
    let mut rows: Vec<Row> = counts.iter().map(of_count).collect();
    let is_measured = |it: &&Instructions| {
        !counts
            .iter()
            .any(|count| count.counted.to_string() == it.kernel)
    };
    if extent == Extent::Whole {
        let gone = baseline.instructions.iter().filter(is_measured);
        rows.extend(gone.map(|it| Row {
            figure: it.kernel.clone(),
            unit: format!("instructions a {}", it.unit),
            expected: Some(it.count),
            measured: None,
            bounds: None,
            change_percent: None,
            tolerance_percent: allowed.percent_of(it.count),
            verdict: Verdict::NotCompared,
            why: Some("this build has no such kernel: --update takes it out of FILE".into()),
        }));
    }
    rows
}

fn count_row(known: Option<&Instructions>, count: &Count, allowed: Allowed) -> Row {
    let tolerance_percent = known.map_or(allowed.percent, |known| allowed.percent_of(known.count));
    let row = Row {
        figure: count.counted.to_string(),
        unit: format!("instructions a {}", count.counted.kernel.unit()),
        expected: known.map(|known| known.count),
        measured: Some(count.per_unit),
        bounds: None,
        change_percent: None,
        tolerance_percent,
        verdict: Verdict::NotCompared,
        why: None,
    };
    let Some(known) = known else {
        let why = Some("FILE does not have it: --update adds it".into());
        return Row { why, ..row };
    };
    if known.loops != count.loops {
        let why = format!(
            "counted with the {} loops, FILE has it with {}",
            count.loops, known.loops
        );
        let why = Some(why);
        return Row { why, ..row };
    }
    Row {
        change_percent: Some(change_percent(known.count, count.per_unit)),
        verdict: judge(known.count, [count.per_unit; 2], tolerance_percent),
        ..row
    }
}

fn unknown_ratio(sampled: &Sampled) -> Row {
    let spread = Spread::of(sampled.samples.iter().copied());
    Row {
        figure: sampled.name.into(),
        unit: sampled.what.into(),
        expected: None,
        measured: spread.map(|spread| spread.median),
        bounds: median_bounds(&sampled.samples),
        change_percent: None,
        tolerance_percent: sampled.tolerance_percent,
        verdict: Verdict::NotCompared,
        why: Some("FILE does not have it: --update adds it".into()),
    }
}

fn ratio_row(baseline: &Baseline, machine: &HostFacts, sampled: &Sampled) -> Row {
    let Some(known) = baseline.ratio(sampled.name) else {
        return unknown_ratio(sampled);
    };
    let tolerance_percent = baseline.ratio_tolerance_percent(known, machine);
    let row = Row {
        expected: Some(known.expected.median),
        tolerance_percent,
        ..unknown_ratio(sampled)
    };
    if known.of != sampled.of {
        let said = |of: &Option<String>| of.clone().unwrap_or_else(|| "none".into());
        let why = format!(
            "of {}, FILE has it of {}",
            said(&sampled.of),
            said(&known.of)
        );
        let why = Some(why);
        return Row { why, ..row };
    }
    let (Some(bounds), Some(measured)) = (row.bounds, row.measured) else {
        let why = Some("there are no samples".into());
        return Row { why, ..row };
    };
    Row {
        change_percent: Some(change_percent(known.expected.median, measured)),
        verdict: judge(known.expected.median, bounds, tolerance_percent),
        why: None,
        ..row
    }
}

/// Worse only where all that the figure may be is worse, and better likewise.
fn judge(expected: f64, [low, high]: [f64; 2], tolerance_percent: f64) -> Verdict {
    let beyond = tolerance_percent / 100.0;
    if low > expected * (1.0 + beyond) {
        Verdict::Regression
    } else if high * (1.0 + beyond) < expected {
        Verdict::Improvement
    } else {
        Verdict::AsExpected
    }
}

fn change_percent(expected: f64, measured: f64) -> f64 {
    if expected > 0.0 {
        (measured / expected - 1.0) * 100.0
    } else {
        0.0
    }
}

/// Between which of the samples their true median lies; each bound is wrong with a probability of
/// [`LEVEL`] at most, or as near to it as so few samples come.
fn median_bounds(samples: &[f64]) -> Option<[f64; 2]> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let coin = Binomial::new(0.5, sorted.len() as u64).ok()?;
    // How many samples may be thrown away at either end.
    let spare = (0..sorted.len() / 2)
        .take_while(|spare| coin.cdf(*spare as u64) <= LEVEL)
        .count();
    let first = spare.saturating_sub(1);
    Some([*sorted.get(first)?, sorted[sorted.len() - 1 - first]])
}

fn differences(before: &Tools, now: &Tools) -> Vec<String> {
    let pairs = [
        ("compiler", &before.compiler, &now.compiler),
        ("C compiler", &before.c_compiler, &now.c_compiler),
        ("build", &before.build, &now.build),
        ("libc", &before.libc, &now.libc),
        ("valgrind", &before.valgrind, &now.valgrind),
    ];
    let different = pairs.into_iter().filter(|(_, before, now)| before != now);
    let said = |(name, before, now): (&str, &String, &String)| {
        format!("{name}: {before} in FILE, {now} here")
    };
    let mut said: Vec<_> = different.map(said).collect();
    if let (Some(before), Some(now)) = (&before.processor, &now.processor)
        && before != now
    {
        said.push(format!(
            "processor that valgrind shows: {before} in FILE, {now} here"
        ));
    }
    said
}

#[cfg(test)]
mod tests;
