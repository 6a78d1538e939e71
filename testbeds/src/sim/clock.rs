//! Simulated time: a number, and what is due when. Nothing here asks a real clock.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

/// What is to happen, in the order of time; of two at the same time the one noted first.
#[derive(Debug)]
pub(crate) struct Agenda<E> {
    now: Duration,
    noted: u64,
    entries: BinaryHeap<Reverse<Entry<E>>>,
}

#[derive(Debug)]
struct Entry<E> {
    at: Duration,
    number: u64,
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self {
            now: Duration::ZERO,
            noted: 0,
            entries: BinaryHeap::new(),
        }
    }
}

impl<E> Agenda<E> {
    /// The time, since the world began.
    pub(crate) const fn now(&self) -> Duration {
        self.now
    }

    /// Lets the time be `now`, unless it is later already.
    pub(crate) fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    /// Notes what is due at a time; what is late is due at once.
    pub(crate) fn at(&mut self, at: Duration, event: E) {
        let number = self.noted;
        self.noted += 1;
        self.entries.push(Reverse(Entry { at, number, event }));
    }

    /// Notes what is due in a while.
    pub(crate) fn after(&mut self, wait: Duration, event: E) {
        self.at(self.now + wait, event);
    }

    /// When the next thing is due.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        self.entries
            .peek()
            .map(|Reverse(entry)| entry.at.max(self.now))
    }

    /// Takes the next thing.
    pub(crate) fn pop(&mut self) -> Option<E> {
        self.entries.pop().map(|Reverse(entry)| entry.event)
    }

    /// Forgets all that is due.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_comes_in_the_order_of_time_and_then_of_notes() {
        let mut agenda = Agenda::default();
        for (at, event) in [(5, 'a'), (3, 'b'), (5, 'c'), (0, 'd')] {
            agenda.at(Duration::from_millis(at), event);
        }
        agenda.advance(Duration::from_millis(4));
        agenda.advance(Duration::from_millis(1));
        assert_eq!(agenda.next_at(), Some(Duration::from_millis(4)));
        let order: String = std::iter::from_fn(|| agenda.pop()).collect();
        assert_eq!(order, "dbac");
    }
}
