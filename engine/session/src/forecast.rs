//! How long a migration will still take and how long its pause will be: with what is likely, and a
//! band in which nine of ten lie.

use core::time::Duration;

use crate::convergence::{Next, next_step};
use crate::rates::{Rates, scaled};

/// A time that is yet to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Band {
    /// One in twenty is shorter.
    pub low: Duration,
    /// As the rates are now.
    pub likely: Duration,
    /// One in twenty is longer.
    pub high: Duration,
}

impl Band {
    /// Does it hold that time?
    #[must_use]
    pub fn holds(&self, time: Duration) -> bool {
        (self.low..=self.high).contains(&time)
    }
}

/// What is to come, with 90 % confidence; `testbeds` and the matrix of `migrate-bench` check how
/// often it comes true.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Forecast {
    /// Until the guest runs at the target.
    pub left: Band,
    /// The pause.
    pub downtime: Band,
}

/// Rates drift by so much from one round to the next, on quiet links and busy ones.
const DRIFT: f64 = 2.0;
/// Threads are late by that much at the most, nine times of ten, in any pause.
const LATE: Duration = Duration::from_millis(3);
/// Rounds that are looked ahead at the most.
const ROUNDS_AHEAD_MAX: u32 = 64;

/// What is to come with `left` pages left; none where no end is in sight.
pub(crate) fn forecast(rates: &Rates, left: f64) -> Option<Forecast> {
    let likely = play(rates, left)?;
    let quicker = rates.worse(1.0 / DRIFT);
    let best = play(&quicker, left).unwrap_or(likely);
    // A guest that might not converge has no upper bound, but for what it would take now.
    let worst = play(&rates.worse(DRIFT), left).unwrap_or_else(|| {
        let rates = rates.worse(DRIFT);
        let longest = rates.downtime_max().max(rates.pause(left));
        Played {
            left: scaled(likely.left, DRIFT * DRIFT).saturating_add(longest),
            pause: longest,
            pages: left,
        }
    });
    let band = |of: fn(&Played) -> Duration| Band {
        low: of(&best).min(of(&likely)),
        likely: of(&likely),
        high: of(&worst).max(of(&likely)).saturating_add(LATE),
    };
    let mut downtime = band(|played| played.pause);
    // A round more than is expected leaves fewer pages for the pause, and in it nobody waits as
    // long for an answer as beside a guest that runs.
    let fewest = best.pages.min(likely.pages);
    let fewest = fewest.min(quicker.left_after(fewest));
    downtime.low = downtime.low.min(quicker.least_pause(fewest));
    Some(Forecast {
        left: band(|played| played.left),
        downtime,
    })
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Played {
    left: Duration,
    pause: Duration,
    /// That are sent in the pause.
    pages: f64,
}

/// Plays the rounds that are to come.
fn play(rates: &Rates, mut left: f64) -> Option<Played> {
    let mut time = Duration::ZERO;
    for _ in 0..ROUNDS_AHEAD_MAX {
        match next_step(rates, left) {
            Next::Pause => {
                let pause = rates.pause(left);
                return Some(Played {
                    left: time.saturating_add(pause),
                    pause,
                    pages: left,
                });
            }
            Next::Stall => return None,
            Next::Round => {
                time = time.saturating_add(rates.round(left));
                left = rates.left_after(left);
            }
        }
    }
    None
}
