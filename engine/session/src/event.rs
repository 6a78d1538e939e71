//! What a session tells an observer. Nothing depends on it.

use core::time::Duration;

use limosa_wire::RoundKind;

use crate::custody::Custody;
use crate::error::Stage;
use crate::round::{RoundPlan, RoundReport};

/// Something happened.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The session has come to a stage.
    Stage(Stage),
    /// The target accepted; so many streams are used.
    Accepted {
        /// Page streams.
        stream_count: u16,
    },
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
    },
    /// Custody has changed.
    Custody(Custody),
}
