//! What an embedder can watch while a migration runs.

use std::time::Duration;

use limosa_session::Slowdown;
use limosa_wire::Round;

/// A moment of a migration.
#[derive(Debug, Clone, PartialEq)]
pub enum Moment {
    /// The session's own events: stages, verdict, rounds, estimates.
    Session(limosa_session::Event),
    /// How far the running round is: as it begins, about fifty times a second, and as it ends.
    Progress(Progress),
    /// Source only: an operator lets the migration rest, or go on.
    Rest {
        /// Which of them.
        step: RestStep,
        /// When, since the migration began.
        elapsed: Duration,
    },
    /// Source only: the guest was stopped, or runs again.
    Guest {
        /// What happened.
        step: GuestStep,
        /// When, since the migration began.
        elapsed: Duration,
    },
}

/// What an operator did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestStep {
    /// No page is sent any more.
    Begins,
    /// Pages are sent again.
    Ends,
}

/// What happened to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestStep {
    /// It was asked to stand still: the downtime begins.
    PauseAsked,
    /// Every vCPU stands still.
    Paused,
    /// It runs on the target, as far as the source knows: the downtime ends.
    RunsThere,
    /// It runs on here: the migration goes wrong.
    RunsHere,
}

/// How far the running round is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The running round; 0 sends everything.
    pub round: Round,
    /// Guest pages still to be read in this round, in bytes; 0 as it ends.
    pub remaining_bytes: u64,
    /// Bytes that went to the wire so far, over all rounds.
    pub wire_bytes: u64,
    /// Guest bytes dealt with a second, in this round.
    pub bytes_per_second: f64,
    /// Bytes of pages that the guest wrote a second, measured between the last two harvests before
    /// the pause; none before the first round has ended.
    pub dirty_bytes_per_second: Option<f64>,
    /// How the guest is held back.
    pub slowdown: Slowdown,
    /// Since the migration began.
    pub elapsed: Duration,
}

/// Is told each moment, on the engine's own thread: it must return quickly.
pub trait Observer {
    /// Something happened.
    fn on_moment(&mut self, moment: &Moment);
}

/// Watches nothing.
impl Observer for () {
    fn on_moment(&mut self, _: &Moment) {}
}

impl<F: FnMut(&Moment)> Observer for F {
    fn on_moment(&mut self, moment: &Moment) {
        self(moment);
    }
}
