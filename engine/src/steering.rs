//! What an operator may do to a migration that runs: let it rest, hold it to a rate, give it
//! another budget or policy.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use limosa_session::Terms;

/// Cloned freely; what is asked of one clone reaches the migration that was given another. Source
/// only.
///
/// From the pause of the guest on nothing here slows the migration down any more: the guest waits.
#[derive(Debug, Clone, Default)]
pub struct Steering(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bandwidth: Option<NonZeroU64>,
    /// When what was sent so far is paid for.
    free_at: Option<Instant>,
    rests_since: Option<Instant>,
    rested: Duration,
    terms: Option<Terms>,
}

/// What a stream may do after it asked for leave to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    /// Send.
    Given,
    /// End: the migration is over.
    Halted,
}

/// So much may be sent at once after a time without sending.
const BURST: Duration = Duration::from_millis(2);
/// How often a stream that waits looks whether the migration is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Steering {
    /// A migration without limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Most bytes a second that all page streams may send together while the guest runs; `None`
    /// for as many as the link takes, the default.
    ///
    /// A lower rate makes rounds longer, so that the guest dirties more in each. The last round is
    /// not held to it.
    pub fn set_bandwidth(&self, bytes_per_second: Option<NonZeroU64>) {
        let mut state = self.lock();
        state.bandwidth = bytes_per_second;
        state.free_at = None;
        self.0.changed.notify_all();
    }

    /// Another budget and policy, from the next decision on.
    pub fn set_terms(&self, terms: Terms) {
        self.lock().terms = Some(terms);
    }

    /// Lets the migration rest: no page is sent, the guest runs on, and its writes are recorded.
    /// The peer is told every second that this side is still here. Within 20 ms and a frame.
    pub fn pause(&self) {
        let mut state = self.lock();
        state.rests_since.get_or_insert_with(Instant::now);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        let mut state = self.lock();
        if let Some(since) = state.rests_since.take() {
            state.rested += since.elapsed();
        }
        self.0.changed.notify_all();
    }

    /// Does it rest?
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.lock().rests_since.is_some()
    }

    /// How long it has rested so far.
    pub(crate) fn rested(&self) -> Duration {
        let state = self.lock();
        let now = state.rests_since.map(|since| since.elapsed());
        state.rested + now.unwrap_or_default()
    }

    /// New terms that nobody has taken yet.
    pub(crate) fn take_terms(&self) -> Option<Terms> {
        self.lock().terms.take()
    }

    /// Waits until `bytes` may be sent.
    pub(crate) fn ask(&self, bytes: usize, halt: &AtomicBool) -> Leave {
        let mut state = self.lock();
        loop {
            if halt.load(Ordering::Acquire) {
                return Leave::Halted;
            }
            let nap = match state.wait(Instant::now()) {
                None => break,
                Some(wait) => wait.min(LOOK_EVERY),
            };
            let waited = self.0.changed.wait_timeout(state, nap);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.pay(bytes);
        Leave::Given
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is a single step: a panic leaves no half of one.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How long nothing may be sent from `now` on; none where something may.
    fn wait(&self, now: Instant) -> Option<Duration> {
        if self.rests_since.is_some() {
            return Some(LOOK_EVERY);
        }
        let free_at = self.bandwidth.and(self.free_at)?;
        let wait = free_at.saturating_duration_since(now);
        (wait > BURST).then(|| wait - BURST)
    }

    /// Takes `bytes` down as sent.
    fn pay(&mut self, bytes: usize) {
        let Some(rate) = self.bandwidth else {
            return;
        };
        let now = Instant::now();
        let begun = self.free_at.map_or(now, |free_at| free_at.max(now));
        let cost = Duration::try_from_secs_f64(bytes as f64 / rate.get() as f64);
        self.free_at = begun.checked_add(cost.unwrap_or(LOOK_EVERY));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_paid_for_by_waiting() {
        let mut state = State {
            bandwidth: NonZeroU64::new(1_000_000),
            ..State::default()
        };
        let now = Instant::now();
        assert_eq!(state.wait(now), None);
        state.pay(500_000);
        state.pay(500_000);
        let wait = state.wait(now).expect("a wait");
        let second = Duration::from_secs(1) - BURST;
        assert!(
            wait >= second && wait < second + Duration::from_millis(500),
            "{wait:?}"
        );
        assert_eq!(state.wait(now + Duration::from_secs(2)), None);
        state.bandwidth = None;
        assert_eq!(state.wait(now), None);
    }

    #[test]
    fn a_rest_ends_by_word_or_with_the_migration() {
        let steering = Steering::new();
        let halt = AtomicBool::new(false);
        assert_eq!(steering.ask(1, &halt), Leave::Given);
        steering.pause();
        steering.pause();
        assert!(steering.is_paused());
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| steering.ask(1, &halt));
            std::thread::sleep(Duration::from_millis(5));
            assert!(!waits.is_finished());
            steering.resume();
            assert_eq!(waits.join().expect("a thread"), Leave::Given);
        });
        let rested = steering.rested();
        assert!(rested >= Duration::from_millis(5));
        assert_eq!(steering.rested(), rested);
        steering.pause();
        halt.store(true, Ordering::Release);
        assert_eq!(steering.ask(1, &halt), Leave::Halted);
    }
}
