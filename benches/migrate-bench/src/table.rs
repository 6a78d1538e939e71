//! A report as a person reads it.

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::report::{Check, Report, Run, RunOutcome, Spread};
use crate::units::{show_bytes, show_ms};

/// The runs side by side, then what they have in common.
pub(crate) fn show(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    let mut head = vec![Cell::new("")];
    head.extend((1..=report.runs.len()).map(|n| right(format!("run {n}"))));
    head.push(right("median".into()));
    table.set_header(head);
    for (name, figure, median) in rows(report) {
        let mut row = vec![Cell::new(name)];
        row.extend(report.runs.iter().map(|run| right(figure(run))));
        row.push(right(median));
        table.add_row(row);
    }
    format!("{}\n{table}\n{}", heading(report), notes(report))
}

type Row<'a> = (&'a str, Box<dyn Fn(&Run) -> String>, String);

fn rows(report: &Report) -> Vec<Row<'_>> {
    let summary = &report.summary;
    let median = |spread: Option<Spread>, show: fn(f64) -> String| {
        spread.map_or_else(String::new, |spread| show(spread.median))
    };
    vec![
        ("outcome", Box::new(outcome), String::new()),
        (
            "total",
            Box::new(|run| show_ms(run.total_ms)),
            median(summary.total_ms, show_ms),
        ),
        (
            "downtime, engine",
            Box::new(|run| show_ms(run.downtime_ms.engine)),
            median(summary.downtime_engine_ms, show_ms),
        ),
        (
            "downtime, guest-seen",
            Box::new(|run| run.downtime_ms.guest.map_or_else(unknown, show_ms)),
            median(summary.downtime_guest_ms, show_ms),
        ),
        (
            "longest stall before it",
            Box::new(|run| run.stall_max_ms.map_or_else(unknown, show_ms)),
            median(summary.stall_max_ms, show_ms),
        ),
        (
            "throughput",
            Box::new(|run| show_rate(run.throughput_gib_s)),
            median(summary.throughput_gib_s, show_rate),
        ),
        (
            "on the wire",
            Box::new(|run| show_bytes(run.wire_bytes)),
            median(summary.wire_bytes, |bytes| show_bytes(bytes as u64)),
        ),
        (
            "  absent",
            Box::new(|run| share(run, run.pages.absent)),
            String::new(),
        ),
        (
            "  zero",
            Box::new(|run| share(run, run.pages.zero)),
            String::new(),
        ),
        (
            "  raw",
            Box::new(|run| share(run, run.pages.raw)),
            String::new(),
        ),
        (
            "  lz4",
            Box::new(|run| share(run, run.pages.lz4)),
            String::new(),
        ),
        (
            "rounds",
            Box::new(|run| run.rounds.len().to_string()),
            median(summary.rounds, |count| format!("{count:.0}")),
        ),
        (
            "CPU source + target",
            Box::new(|run| format!("{:.2} + {:.2} s", run.cpu_s.source, run.cpu_s.target)),
            String::new(),
        ),
        (
            "CPU of the vCPUs",
            Box::new(|run| {
                format!(
                    "{:.2} + {:.2} s",
                    run.cpu_s.vcpu_source, run.cpu_s.vcpu_target
                )
            }),
            String::new(),
        ),
        (
            "memory beyond the guest's",
            Box::new(|run| {
                let overhead = run.overhead_bytes;
                format!(
                    "{} + {}",
                    show_bytes(overhead.source),
                    show_bytes(overhead.target)
                )
            }),
            String::new(),
        ),
        (
            "verified by the guest",
            Box::new(|run| check(run.verified.guest)),
            String::new(),
        ),
        (
            "verified by digest",
            Box::new(|run| check(run.verified.digest)),
            String::new(),
        ),
    ]
}

fn heading(report: &Report) -> String {
    let (config, host) = (&report.config, &report.host);
    format!(
        "{} guest ({}), {}, {} vCPU, fill {}, {} touched, {} written at {}/s ({}), probe {}\n\
         {} over {} with {} streams, codec {}, budget {}\n\
         {} · {} LPs · Linux {} · {} · free memory warmed: {}",
        config.guest,
        config.guest_reason,
        show_bytes(config.memory_bytes),
        config.vcpus,
        config.fill,
        format_args!("{}%", config.touched_percent),
        show_bytes(config.working_set_bytes),
        show_bytes(config.dirty_rate_bytes),
        config.pattern,
        config.probe,
        config.transport,
        config.io,
        config.streams,
        config.codec,
        show_ms(config.downtime_ms),
        host.cpu,
        host.lps,
        host.kernel,
        host.kvm,
        show_bytes(config.warmed_bytes),
    )
}

fn notes(report: &Report) -> String {
    let mut notes = String::new();
    if let Some(reference) = &report.reference {
        let ratio = reference.time_ratio.map_or_else(String::new, |ratio| {
            format!(
                "; our time ÷ theirs: {:.2} ({:.2} to {:.2})",
                ratio.median, ratio.min, ratio.max
            )
        });
        notes += &format!(
            "bare sockets beside each run: {} in {}{ratio}\n",
            show_bytes(reference.bytes),
            show_rate(reference.throughput_gib_s.median),
        );
    }
    for (number, run) in (1..).zip(&report.runs) {
        if let Some(error) = &run.error {
            notes += &format!(
                "run {number}: {error} (the guest is with: {})\n",
                run.custody
            );
        }
    }
    notes
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn unknown() -> String {
    "–".into()
}

fn outcome(run: &Run) -> String {
    match run.outcome {
        RunOutcome::Completed => "completed",
        RunOutcome::Refused => "refused",
        RunOutcome::Failed => "failed",
        RunOutcome::Cancelled => "cancelled",
    }
    .into()
}

fn check(check: Check) -> String {
    match check {
        Check::Ok => "ok",
        Check::Failed => "FAILED",
        Check::Off => "off",
    }
    .into()
}

fn show_rate(gib_s: f64) -> String {
    format!("{gib_s:.2} GiB/s")
}

fn share(run: &Run, pages: u64) -> String {
    let all = run.pages.absent + run.pages.zero + run.pages.raw + run.pages.lz4;
    match (pages, all) {
        (0, _) | (_, 0) => "0".into(),
        _ => format!("{pages} ({:.0}%)", pages as f64 * 100.0 / all as f64),
    }
}
