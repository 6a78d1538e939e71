//! The live progress bar of a move.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::protocol::{Answer, ForecastNow};
use crate::units::show_bytes;

/// Draws on standard error, and nothing at all where that is no terminal or `--quiet` asks.
pub(crate) struct Bar(ProgressBar);

/// Whether to draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    Live,
    Nothing,
}

impl Bar {
    /// A bar over the guest's memory.
    pub(crate) fn new(show: Show, guest_bytes: u64) -> Self {
        let target = match show {
            Show::Live => ProgressDrawTarget::stderr(),
            Show::Nothing => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(guest_bytes), target);
        let style = ProgressStyle::with_template("{prefix} {wide_bar} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        Self(bar)
    }

    /// What the worker is doing before or after pages move.
    pub(crate) fn say(&self, what: &str) {
        self.0.set_prefix(what.to_owned());
        self.0.tick();
    }

    /// Shows how far the move is. It never runs backwards: later rounds share what the first one
    /// has left of the bar, by the time that they are expected to take.
    pub(crate) fn on_progress(&self, answer: &Answer) {
        let Answer::Progress {
            round,
            remaining_bytes,
            send_rate,
            dirty_rate,
            forecast,
            ..
        } = answer
        else {
            return;
        };
        self.0.set_prefix(format!("round {round}"));
        let length = self.0.length().unwrap_or(0);
        let share = share_done(*round, *remaining_bytes, length, forecast.as_ref());
        let position = (length as f64 * share) as u64;
        self.0.set_position(position.max(self.0.position()));
        self.0.set_message(format!(
            "{}/s, {} left, written {}/s, {}",
            show_bytes(*send_rate as u64),
            show_bytes(*remaining_bytes),
            show_bytes(*dirty_rate as u64),
            outlook(*remaining_bytes, *send_rate, forecast.as_ref()),
        ));
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// Of the bar, this much is for the first round, which sends everything.
const FIRST_ROUND: f64 = 0.9;
/// As long as a move has less to go, its end is near.
const NEAR_S: f64 = 1.0;

/// How much of the whole move is done, from 0 to 1.
fn share_done(round: u32, remaining: u64, length: u64, forecast: Option<&ForecastNow>) -> f64 {
    if round == 0 {
        let done = length.saturating_sub(remaining) as f64;
        return FIRST_ROUND * done / length.max(1) as f64;
    }
    let left_s = forecast.map_or(NEAR_S, |forecast| forecast.left_s[1]);
    1.0 - (1.0 - FIRST_ROUND) * left_s / (left_s + NEAR_S)
}

/// When it ends, and how long the guest will stand still, as far as that is known.
fn outlook(remaining: u64, send_rate: f64, forecast: Option<&ForecastNow>) -> String {
    if let Some(ForecastNow {
        left_s,
        downtime_ms,
    }) = forecast
    {
        let [low, likely, high] = left_s;
        let [_, pause, pause_max] = downtime_ms;
        return format!(
            "{likely:.1} s to go ({low:.1} to {high:.1}), pause {pause:.0} ms (up to \
             {pause_max:.0})"
        );
    }
    if send_rate > 0.0 {
        let eta_s = remaining as f64 / send_rate;
        return format!("this round {eta_s:.1} s more");
    }
    "no end in sight yet".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_never_runs_backwards() {
        let bar = Bar::new(Show::Nothing, 1000);
        let said = |round, remaining_bytes, left_s: Option<f64>| Answer::Progress {
            round,
            sent_bytes: 0,
            remaining_bytes,
            send_rate: 100.0,
            dirty_rate: 0.0,
            forecast: left_s.map(|left_s| ForecastNow {
                left_s: [left_s / 2.0, left_s, left_s * 2.0],
                downtime_ms: [1.0, 2.0, 3.0],
            }),
        };
        let mut last = 0;
        for answer in [
            said(0, 1000, None),
            said(0, 10, None),
            said(1, 500, None),
            said(1, 100, Some(3.0)),
            said(2, 400, Some(9.0)),
            said(3, 10, Some(0.0)),
        ] {
            bar.on_progress(&answer);
            let position = bar.0.position();
            assert!(
                position >= last && position <= 1000,
                "{answer:?}: {position}"
            );
            last = position;
        }
        assert_eq!(last, 1000);
    }

    #[test]
    fn the_outlook_says_what_is_known() {
        let forecast = ForecastNow {
            left_s: [0.5, 1.0, 2.0],
            downtime_ms: [1.0, 2.0, 7.0],
        };
        let text = outlook(100, 50.0, Some(&forecast));
        assert_eq!(text, "1.0 s to go (0.5 to 2.0), pause 2 ms (up to 7)");
        assert_eq!(outlook(100, 50.0, None), "this round 2.0 s more");
        assert_eq!(outlook(100, 0.0, None), "no end in sight yet");
    }
}
