//! What a session tells an observer. Nothing depends on it.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use limosa_wire::RoundKind;

use crate::config::OnStall;
use crate::custody::Custody;
use crate::error::{NotConverging, Stage};
use crate::forecast::Forecast;
use crate::round::{RoundPlan, RoundReport};
use crate::slowdown::Slowdown;

/// A difference between guest and host that is forgiven: the guest moves all the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Warning {
    /// What differs, by its usual name.
    pub name: String,
    /// Where it differs, with both values: one line.
    pub what: String,
    /// Why it is forgiven.
    pub forgiven: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; forgiven: {}", self.what, self.forgiven)
    }
}

/// Something happened.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The session has come to a stage.
    Stage(Stage),
    /// Both sides judge that the guest fits, and have agreed on its processor; so many streams are
    /// used.
    Accepted {
        /// Page streams.
        stream_count: u16,
    },
    /// This side found a difference and forgives it.
    Warning(Warning),
    /// A round begins.
    RoundStarted(RoundPlan),
    /// A round was sent.
    RoundSent(RoundReport),
    /// A round has begun or landed at the target.
    RoundSeen(RoundKind),
    /// What pausing the guest now would take; it decides whether another round follows.
    Estimate {
        /// The pause.
        expected: Duration,
        /// Bytes of pages that were written since the last harvest.
        dirty_bytes: u64,
        /// Bytes of pages that the guest dirties a second.
        dirty_bytes_per_second: u64,
        /// Bytes that reach the target a second.
        send_bytes_per_second: u64,
        /// What is to come as a whole; none where no end is in sight.
        forecast: Option<Forecast>,
    },
    /// The guest writes too fast: a pause that fits its budget is not in sight.
    Stalled {
        /// Both rates, and the pause.
        why: NotConverging,
        /// What is done about it.
        policy: OnStall,
    },
    /// The guest is held back from now on, or no more.
    Slowed(Slowdown),
    /// Custody has changed.
    Custody(Custody),
}
