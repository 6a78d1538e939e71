//! A token bucket: who takes bytes from it waits until a link of its rate could have carried them.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::link::Rate;

/// What may pass at once after a pause: longer than a sleep is late.
const BURST: Duration = Duration::from_millis(4);

/// One direction of a link, shared by all connections.
pub(super) struct Bucket {
    rate: Rate,
    /// When the link has carried all that was taken.
    free_at: Mutex<Instant>,
}

impl Bucket {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            free_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits until the link would have carried `bytes` more.
    pub(super) fn take(&self, bytes: usize) {
        let now = Instant::now();
        let wait = self.book(bytes, now).saturating_duration_since(now);
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }

    /// When `bytes` that are taken at `now` have been carried.
    fn book(&self, bytes: usize, now: Instant) -> Instant {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        *free_at = (*free_at).max(earliest) + self.rate.time_for(bytes as u64);
        *free_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_carried_at_the_rate_and_pauses_are_not_made_up_for() {
        let bucket = Bucket::new("8Mbit".parse().unwrap());
        let start = Instant::now() + Duration::from_secs(1);
        let second = Duration::from_secs(1);
        // A megabyte a second, less the burst.
        let mut carried_at = start;
        for _ in 0..1000 {
            carried_at = bucket.book(1000, start);
        }
        assert_eq!(carried_at, start + second - BURST);
        let later = start + 10 * second;
        assert_eq!(bucket.book(1_000_000, later), later + second - BURST);
    }
}
