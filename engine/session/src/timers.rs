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
struct Deadline {
    at: Timestamp,
    /// As an operator reads it: "the verdict".
    what: &'static str,
    longest: Duration,
}

/// Which timer has fired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fired {
    /// Nothing was said for a while: say that this side is still here.
    KeepAlive,
    /// The peer has been silent for too long: it is gone, though no link said so.
    PeerSilent {
        /// How long is too long.
        longest: Duration,
    },
    /// What was waited for did not come.
    Deadline {
        /// What.
        what: &'static str,
        /// How long was waited.
        longest: Duration,
    },
}

/// The timers of one side: its own keep-alives, the peer's silence, and one deadline.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Timers {
    keep_alive_every: Duration,
    /// None once no word of the peer is needed any more.
    peer_silence_max: Option<Duration>,
    last_said: Timestamp,
    last_heard: Timestamp,
    deadline: Option<Deadline>,
}

impl Timers {
    pub(crate) const fn new(every: Duration, silence_max: Duration, now: Timestamp) -> Self {
        Self {
            keep_alive_every: every,
            peer_silence_max: Some(silence_max),
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

    /// The peer may be silent for ever.
    pub(crate) const fn wait_for_nobody(&mut self) {
        self.deadline = None;
        self.peer_silence_max = None;
    }

    pub(crate) fn next(&self) -> Timestamp {
        let keep_alive = self.last_said.after(self.keep_alive_every);
        let silent = self
            .peer_silence_max
            .map(|longest| self.last_heard.after(longest));
        let deadline = self.deadline.map(|deadline| deadline.at);
        let others = silent.into_iter().chain(deadline);
        others.fold(keep_alive, Timestamp::min)
    }

    /// What is due at `now`, the gravest first.
    pub(crate) fn fired(&self, now: Timestamp) -> Option<Fired> {
        if let Some(Deadline { what, longest, .. }) = self.deadline.filter(|it| it.at <= now) {
            return Some(Fired::Deadline { what, longest });
        }
        let silent = |longest: &Duration| self.last_heard.after(*longest) <= now;
        if let Some(longest) = self.peer_silence_max.filter(silent) {
            return Some(Fired::PeerSilent { longest });
        }
        (self.last_said.after(self.keep_alive_every) <= now).then_some(Fired::KeepAlive)
    }
}
