//! Forecasts beside what came of them.

use std::fmt;
use std::time::Duration;

use limosa_session::{Band, Forecast};

/// The forecasts of one attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Foretold {
    told: Vec<(Duration, Forecast)>,
    paused_at: Option<Duration>,
}

/// How often forecasts held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calibration {
    /// Of the time until the guest runs at the target.
    pub left: Score,
    /// Of the pause.
    pub downtime: Score,
}

/// How often bands held the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// Forecasts.
    pub told: u64,
    /// Those that held.
    pub true_ones: u64,
}

impl Foretold {
    /// A forecast was made, or none could be.
    pub(crate) fn tells(&mut self, now: Duration, forecast: Option<Forecast>) {
        self.told.extend(forecast.map(|forecast| (now, forecast)));
    }

    /// The guest is asked to stand still.
    pub(crate) const fn pauses(&mut self, now: Duration) {
        self.paused_at = Some(now);
    }

    /// The guest runs at the target.
    pub(crate) fn comes_true(&self, now: Duration, calibration: &mut Calibration) {
        let Some(paused_at) = self.paused_at else {
            return;
        };
        for (told_at, forecast) in &self.told {
            calibration
                .left
                .add(&forecast.left, now.saturating_sub(*told_at));
            calibration
                .downtime
                .add(&forecast.downtime, now.saturating_sub(paused_at));
        }
    }
}

impl Calibration {
    /// Adds another one's.
    pub fn merge(&mut self, other: &Self) {
        self.left.merge(other.left);
        self.downtime.merge(other.downtime);
    }
}

impl Score {
    fn add(&mut self, band: &Band, truth: Duration) {
        self.told += 1;
        self.true_ones += u64::from(band.holds(truth));
    }

    const fn merge(&mut self, other: Self) {
        self.told += other.told;
        self.true_ones += other.true_ones;
    }

    /// Of 100 forecasts, so many held; all of none.
    #[must_use]
    pub const fn percent(self) -> u64 {
        match self.told {
            0 => 100,
            told => 100 * self.true_ones / told,
        }
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { told, true_ones } = self;
        write!(f, "{true_ones} of {told} ({} %)", self.percent())
    }
}
