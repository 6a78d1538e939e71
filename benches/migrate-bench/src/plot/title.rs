//! What stands above a picture: what was moved and how, and what came of it.

use super::Picture;
use crate::protocol::{LinkOrder, SourceSide};
use crate::report::{Config, Report, Run, RunOutcome};
use crate::units::{show_bits, show_bytes, show_ms};

/// The picture of a report: of the completed run whose total is the median, or of the last run
/// where none completed.
pub(crate) fn of_report(report: &Report) -> Option<Picture<'_>> {
    let (place, run) = typical(&report.runs)?;
    let choice = match report.runs.len() {
        0..=2 => "",
        _ => ", the one of median total",
    };
    Some(Picture {
        what: moved_in_run(&report.config),
        outcome: format!(
            "run {} of {}{choice}: {}",
            place + 1,
            report.runs.len(),
            outcome_of_run(run)
        ),
        timeline: &run.timeline,
    })
}

/// The picture of a move from here to another host.
pub(crate) fn of_source<'a>(
    side: &'a SourceSide,
    guest_bytes: u64,
    (endpoint, link): (&str, &LinkOrder),
) -> Picture<'a> {
    let outcome = side.figures.as_ref().map_or_else(
        || side.ending.outcome.clone(),
        |figures| {
            format!(
                "total {}, downtime {}",
                show_ms(figures.total_ms),
                show_ms(figures.downtime_ms)
            )
        },
    );
    Picture {
        what: format!(
            "{} guest to {endpoint}, {} streams, codec {}",
            show_bytes(guest_bytes),
            link.streams,
            link.codec
        ),
        outcome,
        timeline: &side.timeline,
    }
}

/// The run in the middle of the completed ones, by total, with its place among all.
fn typical(runs: &[Run]) -> Option<(usize, &Run)> {
    let completed = runs.iter().enumerate();
    let completed = completed.filter(|(_, run)| run.outcome == RunOutcome::Completed);
    let mut completed: Vec<_> = completed.collect();
    completed.sort_by(|(_, a), (_, b)| {
        a.total_ms
            .unwrap_or(0.0)
            .total_cmp(&b.total_ms.unwrap_or(0.0))
    });
    let middle = completed.len().saturating_sub(1) / 2;
    let last = || runs.iter().enumerate().next_back();
    completed.get(middle).copied().or_else(last)
}

fn moved_in_run(config: &Config) -> String {
    let writes = if config.working_set_bytes == 0 {
        "idle".into()
    } else {
        format!(
            "writing {} at {}/s",
            show_bytes(config.working_set_bytes),
            show_bytes(config.dirty_rate_bytes)
        )
    };
    let vcpus = match config.vcpus {
        1 => "1 vCPU".into(),
        count => format!("{count} vCPUs"),
    };
    let link = config
        .link
        .as_ref()
        .map_or_else(String::new, |link| format!(" at {}", show_bits(link.rate)));
    let landing = if config.populated {
        " into populated memory"
    } else {
        ""
    };
    format!(
        "{} {} guest ({}, {vcpus}, {writes}) over {}{link}{landing}, {} streams, codec {}",
        show_bytes(config.memory_bytes),
        config.guest,
        config.fill,
        config.transport,
        config.streams,
        config.codec
    )
}

fn outcome_of_run(run: &Run) -> String {
    let Some(total_ms) = run.total_ms else {
        return match run.outcome {
            RunOutcome::Completed => "completed",
            RunOutcome::Refused => "refused",
            RunOutcome::Failed => "failed",
            RunOutcome::Cancelled => "cancelled",
        }
        .into();
    };
    let downtime = &run.downtime_ms;
    let downtimes = [(downtime.engine, "engine"), (downtime.guest, "guest-seen")];
    let downtimes = downtimes
        .into_iter()
        .filter_map(|(ms, who)| Some(format!("{} ({who})", show_ms(ms?))));
    let downtimes: Vec<String> = downtimes.collect();
    format!(
        "total {}, downtime {}",
        show_ms(total_ms),
        downtimes.join(", ")
    )
}
