//! A comparison as a person reads it.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::Value;

use super::figures::Unit;
use super::verdict::{Compared, Comparison, Difference, Verdict};
use crate::report::Spread;
use crate::units::{show_bytes, show_ms};

/// The warnings, the figures side by side, and what "significant" means.
pub(super) fn show(comparison: &Comparison) -> String {
    let (a, b) = (&comparison.a, &comparison.b);
    let mut text = format!(
        "A: {} ({} runs)\nB: {} ({} runs)\n",
        a.file, a.runs, b.file, b.runs
    );
    text += &warning("the options differ", &comparison.config_differences);
    text += &warning("the machines differ", &comparison.host_differences);
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let head = [
        "A: median (range)",
        "B: median (range)",
        "change",
        "p",
        "significant",
    ];
    let head = std::iter::once(Cell::new("")).chain(head.map(right));
    table.set_header(head);
    for compared in &comparison.figures {
        let unit = compared.unit;
        table.add_row([
            Cell::new(compared.name),
            right(&show_spread(compared.a, unit)),
            right(&show_spread(compared.b, unit)),
            right(&show_change(compared.change_percent)),
            right(&format!("{:.3}", compared.p)),
            right(word(compared.verdict)),
        ]);
    }
    format!("{text}{table}\n{}", notes(comparison))
}

fn warning(what: &str, differences: &[Difference]) -> String {
    if differences.is_empty() {
        return String::new();
    }
    let each = differences.iter().map(|difference| {
        let [a, b] = [&difference.a, &difference.b].map(show_value);
        format!("{} {a} | {b}", difference.name)
    });
    format!(
        "warning: {what} (A | B): {}\n",
        each.collect::<Vec<_>>().join(", ")
    )
}

fn show_value(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), String::from)
}

fn show_spread(spread: Spread, unit: Unit) -> String {
    let [min, median, max] =
        [spread.min, spread.median, spread.max].map(|value| show_value_in(value, unit));
    if min == max {
        median
    } else {
        format!("{median} ({min} to {max})")
    }
}

fn show_value_in(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Milliseconds => show_ms(value),
        Unit::GibPerSecond => format!("{value:.2} GiB/s"),
        Unit::Bytes => show_bytes(value as u64),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::SecondsPerGib => format!("{value:.2} s/GiB"),
        Unit::Count => format!("{value:.0}"),
        Unit::Ratio => format!("{value:.2}"),
    }
}

fn show_change(percent: Option<f64>) -> String {
    percent.map_or_else(|| "–".into(), |percent| format!("{percent:+.1}%"))
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "WORSE",
        Verdict::NotSignificant => "no",
        Verdict::TooFewRuns => "too few runs",
    }
}

fn notes(comparison: &Comparison) -> String {
    let level = comparison.level;
    let mut notes = format!(
        "significant: p < {level} by the Mann-Whitney U test (two-sided, exact up to 100 runs); by \
         chance alone about one figure in {:.0} is\n",
        1.0 / level
    );
    let is_short = |compared: &Compared| compared.verdict == Verdict::TooFewRuns;
    if comparison.figures.iter().any(is_short) {
        notes += "too few runs: no difference between so few can be significant; at the level of \
                  0.05 four of each are enough, seven are better\n";
    }
    notes
}

fn right(text: &str) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}
