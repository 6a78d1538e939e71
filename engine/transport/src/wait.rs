//! How long to wait for a connection, and what ends the wait early. Waits for bytes of an open link
//! have no such bound: they are ended by its stop handle.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::error::TransportFault;

/// How often a wait looks at its flag: so quickly a cancellation is noticed.
pub(crate) const FLAG_CHECK: Duration = Duration::from_millis(50);

/// The bounds of a wait for connections.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    deadline: Option<Instant>,
    longest: Duration,
    cancelled: Option<&'a AtomicBool>,
}

impl<'a> Wait<'a> {
    /// Waits for at most `longest`, beginning now.
    #[must_use]
    pub fn at_most(longest: Duration) -> Self {
        Self {
            // An instant that can't be represented is beyond every life.
            deadline: Instant::now().checked_add(longest),
            longest,
            cancelled: None,
        }
    }

    /// Waits until something comes.
    #[must_use]
    pub fn forever() -> Self {
        Self::at_most(Duration::MAX)
    }

    /// Gives up within 50 ms once `flag` is raised, by any thread.
    #[must_use]
    pub fn unless(self, flag: &'a AtomicBool) -> Self {
        Self {
            cancelled: Some(flag),
            ..self
        }
    }

    /// How long the next nap may be, or why there is none.
    pub(crate) fn nap(&self, what: &'static str) -> Result<Duration, TransportFault> {
        if self
            .cancelled
            .is_some_and(|flag| flag.load(Ordering::Acquire))
        {
            return Err(TransportFault::Cancelled);
        }
        let left = self.deadline.map_or(FLAG_CHECK, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        if left.is_zero() {
            let longest = self.longest;
            return Err(TransportFault::TimedOut { what, longest });
        }
        Ok(left.min(FLAG_CHECK))
    }
}
