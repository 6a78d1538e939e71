//! A comparison as a person reads it.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::report::{Contender, LandingReport, Move, Report};
use crate::report::{Check, Spread};
use crate::units::{show_bytes, show_ms};

/// A row for each way to move, then what the best of the rival comes to.
pub(crate) fn show(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "target\nmemory",
        "who",
        "total",
        "GiB/s",
        "longest gap\nthe guest saw",
        "CPU s\nper GiB",
        "our time\n÷ theirs",
        "our CPU\n÷ theirs",
        "good",
    ]);
    for landing in &report.landings {
        table.add_row(row(landing, &landing.ours, String::from("limosa")));
        for contender in &landing.theirs {
            let best = landing.best.as_ref() == Some(&contender.setting);
            let mark = if best { "\n(best)" } else { "" };
            let who = format!("qemu {}{mark}", contender.setting);
            table.add_row(row(landing, contender, who));
        }
    }
    let summary: String = report.landings.iter().map(in_a_line).collect();
    let errors = errors(report);
    format!("{}\n{table}\n{summary}{errors}", heading(report))
        .trim_end()
        .to_owned()
}

fn row(landing: &LandingReport, contender: &Contender, who: String) -> Vec<Cell> {
    let ratios = contender.ratios.as_ref();
    let mut cells = vec![Cell::new(&landing.landing), Cell::new(who)];
    let figures = [
        spread(contender.total_ms, show_ms),
        spread(contender.throughput_gib_s, two_digits),
        spread(contender.gap_ms, show_ms),
        spread(contender.cpu_s_per_gib, two_digits),
        spread(ratios.and_then(|it| it.total), two_digits),
        spread(ratios.and_then(|it| it.cpu), two_digits),
        good(&contender.moves),
    ];
    let figures = figures.map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
    cells.extend(figures);
    cells
}

/// The median, and least and largest below it where they differ.
fn spread(figure: Option<Spread>, show: fn(f64) -> String) -> String {
    figure.map_or_else(
        || "–".into(),
        |Spread { min, median, max }| {
            let [median, min, max] = [median, min, max].map(show);
            if min == max {
                median
            } else {
                format!("{median}\n({min} to {max})")
            }
        },
    )
}

fn two_digits(figure: f64) -> String {
    format!("{figure:.2}")
}

/// How many moves completed with whole guests.
fn good(moves: &[Move]) -> String {
    let lost = moves.iter().any(|it| it.verified == Check::Failed);
    let good = moves.iter().filter(|it| it.is_good()).count();
    let lost = if lost { ", MEMORY WRONG" } else { "" };
    format!("{good} of {}{lost}", moves.len())
}

fn heading(report: &Report) -> String {
    let (config, host, rival) = (&report.config, &report.host, &report.rival);
    let congestion = match config.transport.as_str() {
        "tcp" => format!(" (QEMU's with {})", rival.congestion),
        _ => String::new(),
    };
    format!(
        "limosa and {}\n\
         {}, fill {}, {}% touched, {} written at {}/s ({}), probe {}, verified by the guest\n\
         {}{congestion}; limosa: {} streams, codec {}; downtime at most {}\n\
         {} · {} LPs · Linux {} · {} · free memory warmed: {}",
        rival.version,
        show_bytes(config.memory_bytes),
        config.fill,
        config.touched_percent,
        show_bytes(config.working_set_bytes),
        show_bytes(config.dirty_rate_bytes),
        config.pattern,
        config.probe,
        config.transport,
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

/// Our engine against the rival's best.
fn in_a_line(landing: &LandingReport) -> String {
    let of_best = landing
        .theirs
        .iter()
        .find(|it| landing.best.as_ref() == Some(&it.setting));
    let Some((best, ratios)) = of_best.and_then(|best| Some((best, best.ratios.as_ref()?))) else {
        return format!(
            "{} memory: no setting of the rival completed\n",
            landing.landing
        );
    };
    let Some(total) = ratios.total else {
        return format!("{} memory: no round has both\n", landing.landing);
    };
    let times = format!(
        "{:.2} times as fast ({:.2} to {:.2})",
        1.0 / total.median,
        1.0 / total.max,
        1.0 / total.min
    );
    let cpu = ratios.cpu.map_or_else(String::new, |cpu| {
        format!(
            ", with {:.2} of its CPU time ({:.2} to {:.2})",
            cpu.median, cpu.min, cpu.max
        )
    });
    let (name, setting) = (&landing.landing, &best.setting);
    format!("{name} memory: {times} as the rival at its best ({setting}){cpu}\n")
}

/// What went wrong in which round; empty where nothing did.
pub(crate) fn errors(report: &Report) -> String {
    let mut lines = String::new();
    for landing in &report.landings {
        let all = std::iter::once(&landing.ours).chain(&landing.theirs);
        for contender in all {
            for it in &contender.moves {
                let Some(error) = &it.error else { continue };
                let (memory, who, round) = (&landing.landing, &contender.setting, it.round);
                lines += &format!("{memory} memory, {who}, round {round}: {error}\n");
            }
        }
    }
    lines
}
