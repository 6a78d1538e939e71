//! A report as a person reads it.

use comfy_table::{Cell, CellAlignment, Table, presets};

use crate::link::LinkFacts;
use crate::refusal;
use crate::report::{Check, Config, Pages, Reference, Report, Run, RunOutcome, Spread, Summary};
use crate::switchover::Steps;
use crate::units::{show_bits, show_bytes, show_ms};

/// The runs side by side, then what they have in common.
pub(crate) fn show(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let mut head = vec![Cell::new("")];
    head.extend((1..=report.runs.len()).map(|n| right(format!("run {n}"))));
    head.push(right("median".into()));
    table.set_header(head);
    for row in rows(report) {
        let mut cells = vec![Cell::new(row.name)];
        cells.extend(report.runs.iter().map(|run| right((row.figure)(run))));
        cells.push(right(row.median));
        table.add_row(cells);
    }
    let processor = report.runs.first().map(|run| run.compat.cpu.words());
    let processor = processor.map_or_else(String::new, |words| words + "\n");
    let tracking = report.runs.iter().find_map(|run| run.tracking.as_ref());
    let tracking = tracking.map_or_else(String::new, |known| {
        format!("writes recorded by {}\n", known.by)
    });
    let head = format!("{}\n{processor}{tracking}", heading(report));
    format!("{head}{table}\n{}", notes(report))
}

/// A figure's name, how a run shows it, and its median.
struct Row {
    name: &'static str,
    figure: Box<dyn Fn(&Run) -> String>,
    median: String,
}

impl Row {
    fn new(name: &'static str, figure: impl Fn(&Run) -> String + 'static) -> Self {
        Self {
            name,
            figure: Box::new(figure),
            median: String::new(),
        }
    }

    fn median(self, spread: Option<Spread>, show: fn(f64) -> String) -> Self {
        let median = spread.map_or_else(String::new, |spread| show(spread.median));
        Self { median, ..self }
    }
}

fn rows(report: &Report) -> Vec<Row> {
    let mut rows = vec![Row::new("outcome", outcome)];
    rows.extend(time_rows(report));
    rows.extend(switchover_rows(&report.runs));
    rows.extend(wire_rows(&report.summary));
    rows.extend(cost_rows());
    rows.extend([
        Row::new("verified by the guest", |run| check(run.verified.guest)),
        Row::new("processor as promised", |run| check(run.verified.processor)),
        Row::new("verified by digest", |run| check(run.verified.digest)),
    ]);
    rows
}

fn time_rows(report: &Report) -> [Row; 8] {
    let summary = &report.summary;
    let shares = report.runs.iter().filter_map(|run| run.work_share);
    let work = Spread::of(shares);
    [
        Row::new("handshake", |run| known(run.compat.handshake_ms, show_ms))
            .median(summary.handshake_ms, show_ms),
        Row::new("total", |run| known(run.total_ms, show_ms)).median(summary.total_ms, show_ms),
        Row::new("downtime, engine", |run| {
            known(run.downtime_ms.engine, show_ms)
        })
        .median(summary.downtime_engine_ms, show_ms),
        Row::new("downtime, guest-seen", |run| {
            known(run.downtime_ms.guest, show_ms)
        })
        .median(summary.downtime_guest_ms, show_ms),
        Row::new("longest stall before it", |run| {
            known(run.stall_max_ms, show_ms)
        })
        .median(summary.stall_max_ms, show_ms),
        Row::new("guest's own work meanwhile", |run| {
            known(run.work_share, show_ratio)
        })
        .median(work, show_ratio),
        Row::new("throughput", |run| known(run.throughput_gib_s, show_rate))
            .median(summary.throughput_gib_s, show_rate),
        Row::new("ratio to bare sockets", |run| {
            known(run.ratio_to_sockets, show_ratio)
        })
        .median(summary.ratio_to_sockets, show_ratio),
    ]
}

/// Where the downtime goes; the report has it in more detail.
fn switchover_rows(runs: &[Run]) -> [Row; 7] {
    let row = |name, figure: fn(&Run) -> Option<f64>| {
        let median = Spread::of(runs.iter().filter_map(figure));
        Row::new(name, move |run| known(figure(run), show_ms)).median(median, show_ms)
    };
    [
        row("  until it stands still", |run| {
            step_ms(run, |steps| steps.pause)
        }),
        row("  until its pages are there", |run| {
            step_ms(run, |steps| steps.harvest + steps.last_pages)
        }),
        row("  until it could run there", |run| {
            step_ms(run, |steps| steps.prepare)
        }),
        row("  until it is handed over", |run| {
            step_ms(run, |steps| steps.hand_over)
        }),
        row("  until it runs there", |run| {
            step_ms(run, |steps| steps.resume)
        }),
        row("start of tracking", |run| {
            run.tracking.as_ref().map(|tracking| tracking.start_ms)
        }),
        row("longest wait for tracking", |run| {
            let tracking = run.tracking.as_ref();
            tracking.map(|tracking| tracking.rearm_longest_ms)
        }),
    ]
}

fn step_ms(run: &Run, of: fn(&Steps) -> f64) -> Option<f64> {
    let switchover = run.switchover.as_ref()?;
    Some(of(&switchover.steps_us) / 1e3)
}

fn wire_rows(summary: &Summary) -> [Row; 10] {
    [
        Row::new("on the wire", |run| known(run.wire_bytes, show_bytes))
            .median(summary.wire_bytes, |bytes| show_bytes(bytes as u64)),
        Row::new("  absent", |run| share(run, |pages| pages.absent)),
        Row::new("  zero", |run| share(run, |pages| pages.zero)),
        Row::new("  constant", |run| share(run, |pages| pages.constant)),
        Row::new("  raw", |run| share(run, |pages| pages.raw)),
        Row::new("  live", |run| share(run, |pages| pages.live)),
        Row::new("  lz4", |run| share(run, |pages| pages.lz4)),
        Row::new("  zstd", |run| share(run, |pages| pages.zstd)),
        Row::new("  delta", |run| share(run, |pages| pages.delta)),
        Row::new("rounds", |run| {
            known(run.pages, |_| run.rounds.len().to_string())
        })
        .median(summary.rounds, |count| format!("{count:.0}")),
    ]
}

fn cost_rows() -> [Row; 4] {
    [
        Row::new("CPU source + target", |run| {
            show_both(Some(run.cpu_s.source), run.cpu_s.target, show_s)
        }),
        Row::new("CPU of the vCPUs", |run| {
            show_both(Some(run.cpu_s.vcpu_source), run.cpu_s.vcpu_target, show_s)
        }),
        Row::new("memory beyond the guest's", |run| {
            let overhead = run.overhead_bytes;
            show_both(overhead.source, overhead.target, show_bytes)
        }),
        Row::new("on huge pages", |run| {
            let huge = run.huge_pages;
            show_both(huge.source, huge.target, |share| {
                format!("{:.0}%", share * 100.0)
            })
        }),
    ]
}

fn heading(report: &Report) -> String {
    let (config, host) = (&report.config, &report.host);
    format!(
        "{} guest ({}), {}, {} vCPU, fill {}, {} touched, {} written at {}/s ({}), probe {}\n\
         {}{} over {} with {} streams, codec {}, budget {}\n\
         {} · {} LPs · Linux {} · {} · free memory warmed: {}{}",
        config.guest,
        config.guest_reason,
        show_bytes(config.memory_bytes),
        config.vcpus,
        config.fill,
        show_bytes(config.touched_bytes),
        show_bytes(config.working_set_bytes),
        show_bytes(config.dirty_rate_bytes),
        config.pattern,
        config.probe,
        config.transport,
        link(config),
        config.io.as_deref().unwrap_or("no page streams"),
        config.streams,
        config.codec,
        show_ms(config.downtime_ms),
        host.cpu,
        host.lps,
        host.kernel,
        host.kvm,
        show_bytes(config.warmed_bytes),
        match config.populated {
            true => ", the target's populated before it listened",
            false => "",
        },
    )
}

/// What shapes the link.
fn link(config: &Config) -> String {
    let of = |link: &LinkFacts| format!(" at {} ({})", show_bits(link.rate), link.how);
    config.link.as_ref().map_or_else(String::new, of)
}

fn notes(report: &Report) -> String {
    let mut notes = String::new();
    if let Some(reference) = &report.reference {
        notes += &references(reference);
    }
    notes + &errors(report)
}

/// What sockets and memory could do beside the runs.
fn references(reference: &Reference) -> String {
    let ratio = reference
        .ratio_to_sockets
        .map_or_else(String::new, |ratio| {
            format!(
                "; their time ÷ ours: {:.2} ({:.2} to {:.2})",
                ratio.median, ratio.min, ratio.max
            )
        });
    let spliced = reference
        .spliced
        .as_ref()
        .map_or_else(String::new, |spliced| {
            let ratio = spliced.ratio_to_sockets;
            format!(
                "the same, spliced: {}; their time ÷ ours: {:.2} ({:.2} to {:.2})\n",
                show_rate(spliced.throughput_gib_s.median),
                ratio.median,
                ratio.min,
                ratio.max
            )
        });
    let memory = reference.memory.map_or_else(String::new, |memory| {
        format!(
            "memory beside each run, one thread and all: copied {} and {}, read {} and {}\n",
            show_rate(memory.memcpy_one_gib_s.median),
            show_rate(memory.memcpy_all_gib_s.median),
            show_rate(memory.read_one_gib_s.median),
            show_rate(memory.read_all_gib_s.median),
        )
    });
    format!(
        "bare sockets after each run, with what the guest held besides zeros: {} in {}{ratio}\n\
         their settings: {}\n{spliced}{memory}",
        show_bytes(reference.bytes),
        show_rate(reference.throughput_gib_s.median),
        reference.settings.words(),
    )
}

/// What went wrong in which run, each reason of a refusal on a line; empty where nothing did.
pub(crate) fn errors(report: &Report) -> String {
    let mut lines = String::new();
    for (number, run) in (1..).zip(&report.runs) {
        let Some(error) = &run.error else { continue };
        let custody = &run.custody;
        if run.reasons.is_empty() {
            lines += &format!("run {number}: {error} (the guest is with: {custody})\n");
            continue;
        }
        lines += &format!(
            "run {number}: the guest can't live on the target (the guest is with: {custody})\n"
        );
        lines += &refusal::lines(&run.reasons);
        lines += &refusal::how_to(&run.reasons, report.config.as_target.as_deref());
    }
    lines
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn known<T>(figure: Option<T>, show: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(unknown, show)
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

fn show_ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

fn show_rate(gib_s: f64) -> String {
    format!("{gib_s:.2} GiB/s")
}

fn show_s(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

fn show_both<T>(source: Option<T>, target: Option<T>, show: fn(T) -> String) -> String {
    let [source, target] = [source, target].map(|side| known(side, show));
    format!("{source} + {target}")
}

fn share(run: &Run, encoding: fn(&Pages) -> u64) -> String {
    let Some(pages) = &run.pages else {
        return unknown();
    };
    let all = pages.all();
    match (encoding(pages), all) {
        (0, _) | (_, 0) => "0".into(),
        (count, _) => format!("{count} ({:.0}%)", count as f64 * 100.0 / all as f64),
    }
}
