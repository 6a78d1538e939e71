//! The live progress bar of a move.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::protocol::Answer;
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

    /// Shows how far the move is.
    pub(crate) fn on_progress(&self, answer: &Answer) {
        let Answer::Progress {
            round,
            remaining_bytes,
            send_rate,
            dirty_rate,
            ..
        } = answer
        else {
            return;
        };
        let eta = if *send_rate > 0.0 {
            *remaining_bytes as f64 / send_rate
        } else {
            0.0
        };
        self.0.set_prefix(format!("round {round}"));
        self.0.set_position(
            self.0
                .length()
                .unwrap_or(0)
                .saturating_sub(*remaining_bytes),
        );
        self.0.set_message(format!(
            "{}/s, {} left, written {}/s, about {:.1} s",
            show_bytes(*send_rate as u64),
            show_bytes(*remaining_bytes),
            show_bytes(*dirty_rate as u64),
            Duration::from_secs_f64(eta.min(1e6)).as_secs_f64(),
        ));
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.0.finish_and_clear();
    }
}
