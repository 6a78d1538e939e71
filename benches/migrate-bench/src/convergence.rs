//! How a guest was brought to stand still, for a report: what was foretold, what was tried out, and
//! what was done about a guest that was too busy.

use limosa::{Band, OnStall, Slowdown, SourceReport};
use serde::{Deserialize, Serialize};

use crate::units::ms;

/// Of one move.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConvergenceFigures {
    /// What a pause took that was tried out; null where that can't be done.
    pub(crate) rehearsal: Option<RehearsalFigures>,
    /// After each round that was followed by a decision.
    pub(crate) foretold: Vec<Foretold>,
    /// The policy that was needed; null for a guest that converged by itself.
    pub(crate) stalled: Option<String>,
    /// How the guest was held back, in turn.
    pub(crate) slowed: Vec<Slowed>,
    /// Pages that were held back to be sent late, over all rounds.
    pub(crate) held_pages: u64,
    pub(crate) rested_ms: f64,
}

/// A pause on trial.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct RehearsalFigures {
    pub(crate) pause_ms: f64,
    pub(crate) export_ms: f64,
}

/// A forecast, and whether it came true.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Foretold {
    /// Since the move began.
    pub(crate) ms: f64,
    /// Null where no end was in sight.
    pub(crate) left: Option<Told>,
    pub(crate) downtime: Option<Told>,
}

/// A time that was foretold, with the band of nine in ten.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) low_ms: f64,
    pub(crate) likely_ms: f64,
    pub(crate) high_ms: f64,
    /// What it was in the end lies between.
    pub(crate) came_true: bool,
}

/// The guest was held back from a time on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Slowed {
    /// Since the move began.
    pub(crate) ms: f64,
    /// Share of the time that each vCPU may run; null where that is not limited.
    pub(crate) run_share: Option<f64>,
    /// What each vCPU may dirty a second; null where that is not limited.
    pub(crate) dirty_bytes_per_second: Option<u64>,
}

impl ConvergenceFigures {
    /// Of a move that completed.
    pub(crate) fn of(report: &SourceReport) -> Self {
        let told = |band: &Band, truth| Told {
            low_ms: ms(band.low),
            likely_ms: ms(band.likely),
            high_ms: ms(band.high),
            came_true: band.holds(truth),
        };
        let foretold = report.foretold.iter().map(|foretold| {
            let forecast = foretold.forecast.as_ref();
            let left = report.elapsed.saturating_sub(foretold.at);
            Foretold {
                ms: ms(foretold.at),
                left: forecast.map(|forecast| told(&forecast.left, left)),
                downtime: forecast
                    .map(|forecast| told(&forecast.downtime, report.switchover.total)),
            }
        });
        let slowed = report.slowed.iter().map(|slowed| Slowed {
            ms: ms(slowed.at),
            run_share: run_share(slowed.slowdown),
            dirty_bytes_per_second: dirty_limit(slowed.slowdown),
        });
        Self {
            rehearsal: report.rehearsal.map(|rehearsal| RehearsalFigures {
                pause_ms: ms(rehearsal.pause),
                export_ms: ms(rehearsal.export),
            }),
            foretold: foretold.collect(),
            stalled: report.stalled.map(|policy| name_of(policy).into()),
            slowed: slowed.collect(),
            held_pages: report.rounds.iter().map(|round| round.held_pages).sum(),
            rested_ms: ms(report.rested),
        }
    }
}

/// Share of the time that each vCPU may run; none where that is not limited.
pub(crate) fn run_share(slowdown: Slowdown) -> Option<f64> {
    match slowdown {
        Slowdown::DutyCycle { run_permille } => Some(f64::from(run_permille) / 1000.0),
        Slowdown::None | Slowdown::DirtyLimit { .. } => None,
    }
}

/// Bytes of pages that each vCPU may dirty a second; none where that is not limited.
pub(crate) const fn dirty_limit(slowdown: Slowdown) -> Option<u64> {
    match slowdown {
        Slowdown::DirtyLimit { bytes_per_second } => Some(bytes_per_second),
        Slowdown::None | Slowdown::DutyCycle { .. } => None,
    }
}

/// As on the command line.
pub(crate) const fn name_of(policy: OnStall) -> &'static str {
    match policy {
        OnStall::Fail => "fail",
        OnStall::Stop => "stop",
        OnStall::Throttle => "throttle",
        OnStall::Limit => "limit",
    }
}
