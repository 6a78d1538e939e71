//! A matrix as a person reads it: a line for each scenario.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::plan::Axis;
use super::report::{MatrixReport, Row};
use crate::report::Spread;
use crate::units::{show_bytes, show_ms};

/// A figure of a scenario, by its name.
type Column = (&'static str, fn(&Row) -> String);

/// What follows the values of the axes.
const COLUMNS: [Column; 8] = [
    ("total", |row| median(row.summary.total_ms, show_ms)),
    ("gap p50 / max", gap),
    ("budget kept", budget_kept),
    ("rounds", |row| {
        median(row.summary.rounds, |count| format!("{count:.0}"))
    }),
    ("sent ÷ memory", sent),
    ("foretold", foretold),
    ("held back to", held_back),
    ("outcome", outcome),
];

/// The table, with what it is of above it, and what went wrong below.
pub(super) fn show(report: &MatrixReport) -> String {
    let varying: Vec<&Axis> = report
        .axes
        .iter()
        .filter(|axis| axis.values.len() > 1)
        .collect();
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let names = varying.iter().map(|axis| axis.name.as_str());
    let heads = COLUMNS.iter().map(|(name, _)| *name);
    table.set_header(["#"].into_iter().chain(names).chain(heads).map(Cell::new));
    for (number, row) in (1..).zip(&report.scenarios) {
        let values = varying.iter().map(|axis| value(row, &axis.name));
        let figures = COLUMNS.iter().map(|(_, figure)| figure(row));
        let cells = std::iter::once(format!("{number}"))
            .chain(values)
            .chain(figures)
            .map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
        table.add_row(cells);
    }
    format!("{}\n{table}\n{}", heading(report), errors(report))
}

/// What went wrong in which scenario; empty where nothing did.
pub(super) fn errors(report: &MatrixReport) -> String {
    let mut lines = String::new();
    for (number, row) in (1..).zip(&report.scenarios) {
        let Some((error, count)) = row.error() else {
            continue;
        };
        let more = match count {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        lines += &format!("scenario {number}: {error}{more}\n");
        if !row.as_expected {
            lines += &format!("  to see it alone: {}\n", row.command);
        }
    }
    if report.interrupted {
        lines += "interrupted: not everything was run\n";
    }
    lines
}

fn heading(report: &MatrixReport) -> String {
    let fixed = report.axes.iter().filter(|axis| axis.values.len() == 1);
    let fixed: String = fixed
        .map(|axis| format!(", {} {}", axis.name, axis.values[0]))
        .collect();
    let host = &report.host;
    format!(
        "{}: {} scenarios, repeat {}{fixed}\n{} · {} LPs · Linux {} · {}",
        report.file,
        report.scenarios.len(),
        report.repeat,
        host.cpu,
        host.lps,
        host.kernel,
        host.kvm,
    )
}

fn value(row: &Row, axis: &str) -> String {
    row.values.get(axis).cloned().unwrap_or_default()
}

fn median(spread: Option<Spread>, show: fn(f64) -> String) -> String {
    spread.map_or_else(unknown, |spread| show(spread.median))
}

fn gap(row: &Row) -> String {
    let show = |gap: Spread| format!("{} / {}", show_ms(gap.median), show_ms(gap.max));
    row.summary.downtime_guest_ms.map_or_else(unknown, show)
}

fn budget_kept(row: &Row) -> String {
    match row.summary.completed {
        0 => unknown(),
        completed => format!("{} of {completed}", row.within_budget),
    }
}

fn foretold(row: &Row) -> String {
    match row.foretold.count {
        0 => unknown(),
        count => format!("{} of {count}", row.foretold.came_true),
    }
}

/// The most that was done to a guest of this scenario.
fn held_back(row: &Row) -> String {
    let figures = row.runs.iter().filter_map(|run| run.convergence.as_ref());
    let slowed: Vec<_> = figures.flat_map(|figures| &figures.slowed).collect();
    let shares = slowed.iter().filter_map(|slowed| slowed.run_share);
    let limits = slowed
        .iter()
        .filter_map(|slowed| slowed.dirty_bytes_per_second);
    match (shares.reduce(f64::min), limits.min()) {
        (Some(share), _) => format!("{:.0} %", share * 100.0),
        (None, Some(limit)) => format!("{}/s", show_bytes(limit)),
        (None, None) => unknown(),
    }
}

fn sent(row: &Row) -> String {
    let both = row.summary.wire_bytes.zip(row.config.as_ref());
    both.map_or_else(unknown, |(sent, config)| {
        format!("{:.2}", sent.median / config.memory_bytes.max(1) as f64)
    })
}

fn outcome(row: &Row) -> String {
    match row.as_expected {
        true => row.outcome.clone(),
        false => format!("{}: NOT AS EXPECTED", row.outcome),
    }
}

fn unknown() -> String {
    "–".into()
}
