//! What an embedder can watch while a migration runs.

use std::time::Duration;

use limosa_wire::Round;

/// A moment of a migration.
#[derive(Debug, Clone, PartialEq)]
pub enum Moment {
    /// The session's own events: stages, verdict, rounds, estimates.
    Session(limosa_session::Event),
    /// How far the running round is; about ten times a second.
    Progress(Progress),
}

/// How far the running round is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// The running round; 0 sends everything.
    pub round: Round,
    /// Guest pages still to be read in this round, in bytes.
    pub remaining_bytes: u64,
    /// Bytes that went to the wire so far, over all rounds.
    pub wire_bytes: u64,
    /// Guest bytes dealt with a second, in this round.
    pub bytes_per_second: f64,
    /// Guest bytes written by the guest a second, measured between the last two harvests.
    pub dirty_bytes_per_second: f64,
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
