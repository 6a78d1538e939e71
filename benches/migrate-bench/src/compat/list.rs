//! `compat list`: the fixed baselines, what each adds, and which includes which.

use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use limosa_compat::{Baseline, baselines};
use serde_json::{Value, json};

use super::args::{ListArgs, Plain};

/// The schema's name and version.
const SCHEMA: &str = "limosa.baselines/1";
/// Widest line of the table.
const COLUMNS: u16 = 118;
/// Most features that are named of a pair that can't be compared.
const NAMED_MAX: usize = 6;

pub(super) fn run(args: &ListArgs) -> Result<ExitCode> {
    let text = match args.format {
        Plain::Table => format!("{}\n{}", table(), incomparable()),
        Plain::Json => {
            let rows: Vec<Value> = baselines().iter().map(row).collect();
            let all = json!({"schema": SCHEMA, "baselines": rows});
            serde_json::to_string_pretty(&all)? + "\n"
        }
    };
    crate::output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The baselines that `baseline` includes with none between.
fn next_below(baseline: &Baseline) -> Vec<&'static Baseline> {
    let below: Vec<&Baseline> = baselines()
        .iter()
        .filter(|other| *other < baseline)
        .collect();
    let mut next = below.clone();
    next.retain(|one| !below.iter().any(|other| *one < *other));
    next
}

/// What a baseline has and none of those has that it includes.
fn adds(baseline: &Baseline) -> Vec<&'static str> {
    let below = next_below(baseline);
    let known: Vec<&str> = below.iter().flat_map(|below| below.features()).collect();
    let mut adds = baseline.features();
    adds.retain(|name| !known.contains(name));
    adds
}

fn vendor(baseline: &Baseline) -> String {
    let any = || "any".to_owned();
    baseline
        .vendor()
        .map_or_else(any, |vendor| vendor.to_string())
}

fn names(baselines: &[&Baseline]) -> Vec<&'static str> {
    baselines.iter().map(|baseline| baseline.name()).collect()
}

fn row(baseline: &Baseline) -> Value {
    let all: Vec<&Baseline> = baselines()
        .iter()
        .filter(|other| *other < baseline)
        .collect();
    json!({
        "name": baseline.name(),
        "vendor": baseline.vendor().map(|vendor| vendor.to_string()),
        "phys_bits": baseline.phys_bits(),
        "source": baseline.source(),
        "includes": names(&next_below(baseline)),
        "includes_all": names(&all),
        "adds": adds(baseline),
        "features": baseline.features(),
    })
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(COLUMNS);
    table.set_header(["baseline", "vendor", "features", "includes", "adds"]);
    for baseline in baselines() {
        table.add_row([
            baseline.name().to_owned(),
            vendor(baseline),
            baseline.features().len().to_string(),
            names(&next_below(baseline)).join(", "),
            adds(baseline).join(" "),
        ]);
    }
    table
}

/// Pairs of one vendor's of which neither includes the other: a guest of one fits no host that has
/// just the other.
fn incomparable() -> String {
    let mut text = String::new();
    for (number, one) in baselines().iter().enumerate() {
        for other in baselines().iter().skip(number + 1) {
            let same = one.vendor() == other.vendor();
            if same && one.partial_cmp(other).is_none() {
                text += &format!(
                    "  {} has {}, {} has {}\n",
                    one.name(),
                    beyond(one, other),
                    other.name(),
                    beyond(other, one)
                );
            }
        }
    }
    if text.is_empty() {
        return text;
    }
    format!("neither includes the other:\n{text}")
}

/// What only `one` of two has.
fn beyond(one: &Baseline, other: &Baseline) -> String {
    let known = other.features();
    let mut only = one.features();
    only.retain(|name| !known.contains(name));
    let more = only.len().saturating_sub(NAMED_MAX);
    only.truncate(NAMED_MAX);
    let mut text = only.join(" ");
    if more > 0 {
        text += &format!(" and {more} more");
    }
    text
}
