//! A gate's result and its file as a person reads them.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::file::{Baseline, Instructions};
use super::verdict::{Report, Row, Verdict};
use crate::report::HostFacts;

/// A row for each figure, then which are worse.
pub(super) fn report(report: &Report) -> String {
    let mut table = table([
        "figure",
        "expected",
        "measured",
        "change",
        "tolerance",
        "verdict",
    ]);
    for row in &report.rows {
        table.add_row(cells([
            format!("{}\n{}", row.figure, row.unit),
            digits(row.expected),
            measured(row),
            row.change_percent
                .map_or_else(|| "–".into(), |percent| format!("{percent:+.1}%")),
            format!("{}%", row.tolerance_percent),
            word(row.verdict).to_owned(),
        ]));
    }
    let heading = heading(report);
    let notes: String = report.rows.iter().filter_map(note).collect();
    format!("{heading}{table}\n{notes}{}", conclusion(report))
}

fn heading(report: &Report) -> String {
    let (before, now) = (&report.baseline_machine, &report.machine);
    let mut heading = format!(
        "baseline of {} on {}\n",
        report.baseline_date,
        machine(before)
    );
    if before != now {
        heading += &format!("measured now on {}\n", machine(now));
    }
    for difference in &report.other_tools {
        heading += &format!("other tools, so that counts differ a little: {difference}\n");
    }
    heading
}

fn machine(host: &HostFacts) -> String {
    format!("{} · {} LPs · Linux {}", host.cpu, host.lps, host.kernel)
}

fn measured(row: &Row) -> String {
    let median = digits(row.measured);
    row.bounds.map_or_else(
        || median.clone(),
        |[low, high]| format!("{median}\n{} to {}", digits(Some(low)), digits(Some(high))),
    )
}

fn note(row: &Row) -> Option<String> {
    let why = row.why.as_ref()?;
    Some(format!("{} was not compared: {why}\n", row.figure))
}

fn conclusion(report: &Report) -> String {
    let worse: Vec<_> = report.regressions().map(regression).collect();
    let better = report.rows.iter();
    let better = better.filter(|row| row.verdict == Verdict::Improvement);
    let better: Vec<_> = better.map(|row| row.figure.as_str()).collect();
    let mut lines = Vec::new();
    if !better.is_empty() {
        let better = better.join(", ");
        lines.push(format!("better than expected, --update keeps it: {better}"));
    }
    if worse.is_empty() {
        lines.push("no regression".into());
    }
    lines.extend(worse);
    lines.join("\n")
}

fn regression(row: &Row) -> String {
    format!(
        "REGRESSION: {}: {} where {} was expected ({:+.1}%, tolerance {}%)",
        row.figure,
        digits(row.measured),
        digits(row.expected),
        row.change_percent.unwrap_or_default(),
        row.tolerance_percent
    )
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::AsExpected => "as expected",
        Verdict::Regression => "REGRESSION",
        Verdict::Improvement => "better",
        Verdict::NotCompared => "not compared",
    }
}

/// What was written to a file.
pub(super) fn baseline(baseline: &Baseline) -> String {
    let mut table = table(["figure", "expected", "tolerance"]);
    for count in &baseline.instructions {
        table.add_row(cells([
            format!("{}\ninstructions a {}", count.kernel, count.unit),
            digits(Some(count.count)),
            format!("{}%", baseline.tolerance.instructions_percent),
        ]));
    }
    for ratio in &baseline.ratios {
        let spread = ratio.expected;
        let (low, high) = (digits(Some(spread.min)), digits(Some(spread.max)));
        table.add_row(cells([
            format!("{}\n{}", ratio.name, ratio.what),
            format!("{}\n{low} to {high}", digits(Some(spread.median))),
            format!("{}%", ratio.tolerance_percent),
        ]));
    }
    format!("{}\n{table}", machine(&baseline.machine))
}

/// A row for each kernel, a column for each number of threads.
pub(super) fn threads<'a>(
    host: &HostFacts,
    threads: &[u16],
    rows: impl Iterator<Item = &'a [Instructions]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let heads = threads.iter().map(|count| format!("{count} thr."));
    table.set_header(std::iter::once("instructions".to_owned()).chain(heads));
    for row in rows {
        let Some(first) = row.first() else { continue };
        let name = first.kernel.split('@').next().unwrap_or_default();
        let counts = row.iter().map(|count| {
            Cell::new(format!("{:.1}", count.count)).set_alignment(CellAlignment::Right)
        });
        let name = Cell::new(format!("{name}, a {}", first.unit));
        table.add_row(std::iter::once(name).chain(counts));
    }
    format!("{}\n{table}", machine(host))
}

fn table<const N: usize>(head: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(head);
    table
}

/// The first to the left, figures to the right.
fn cells<const N: usize>(texts: [String; N]) -> Vec<Cell> {
    let mut cells: Vec<_> = texts
        .into_iter()
        .map(|text| Cell::new(text).set_alignment(CellAlignment::Right))
        .collect();
    if let Some(first) = cells.first_mut() {
        *first = first.clone().set_alignment(CellAlignment::Left);
    }
    cells
}

/// As many digits as a figure deserves.
fn digits(figure: Option<f64>) -> String {
    match figure {
        None => "–".into(),
        Some(figure) if figure >= 100.0 => format!("{figure:.0}"),
        Some(figure) if figure >= 10.0 => format!("{figure:.1}"),
        Some(figure) => format!("{figure:.2}"),
    }
}
