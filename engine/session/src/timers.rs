//! Time as the session knows it: a number that the driver hands in. Nothing here asks a clock.

use core::time::Duration;

/// Time since the session began, as the driver's clock has it. It must never run backwards.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(Duration);

impl Timestamp {
    /// `since` after the session began.
    #[must_use]
    pub const fn new(since: Duration) -> Self {
        Self(since)
    }

    /// How long after the session began.
    #[must_use]
    pub const fn since_start(self) -> Duration {
        self.0
    }

    pub(crate) const fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    pub(crate) const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// What a side waits for, besides work of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Timestamp,
    /// As an operator reads it: "the verdict".
    pub(crate) what: &'static str,
    pub(crate) longest: Duration,
}

/// Which timer has fired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fired {
    /// Nothing was said for a while: say that this side is still here.
    KeepAlive,
    /// The peer has been silent for too long: it is gone, though no link said so.
    PeerSilent,
    /// What was waited for did not come.
    Deadline(Deadline),
}

/// The timers of one side.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Timers {
    keep_alive_every: Duration,
    peer_silence_max: Duration,
    last_said: Timestamp,
    last_heard: Timestamp,
    deadline: Option<Deadline>,
}

impl Timers {
    pub(crate) const fn new(every: Duration, silence_max: Duration, now: Timestamp) -> Self {
        Self {
            keep_alive_every: every,
            peer_silence_max: silence_max,
            last_said: now,
            last_heard: now,
            deadline: None,
        }
    }

    pub(crate) const fn said(&mut self, now: Timestamp) {
        self.last_said = now;
    }

    pub(crate) const fn heard(&mut self, now: Timestamp) {
        self.last_heard = now;
    }

    pub(crate) const fn peer_silence_max(&self) -> Duration {
        self.peer_silence_max
    }

    /// Waits for `what` from now on, and for nothing else.
    pub(crate) const fn wait_for(&mut self, what: &'static str, longest: Duration, now: Timestamp) {
        self.deadline = Some(Deadline {
            at: now.after(longest),
            what,
            longest,
        });
    }

    /// Waits for nothing but words of the peer.
    pub(crate) const fn wait_no_more(&mut self) {
        self.deadline = None;
    }

    pub(crate) fn next(&self) -> Timestamp {
        let keep_alive = self.last_said.after(self.keep_alive_every);
        let silent = self.last_heard.after(self.peer_silence_max);
        let first = keep_alive.min(silent);
        self.deadline
            .map_or(first, |deadline| first.min(deadline.at))
    }

    /// What is due at `now`, the gravest first.
    pub(crate) fn fired(&self, now: Timestamp) -> Option<Fired> {
        if let Some(deadline) = self.deadline.filter(|deadline| deadline.at <= now) {
            return Some(Fired::Deadline(deadline));
        }
        if self.last_heard.after(self.peer_silence_max) <= now {
            return Some(Fired::PeerSilent);
        }
        (self.last_said.after(self.keep_alive_every) <= now).then_some(Fired::KeepAlive)
    }
}
