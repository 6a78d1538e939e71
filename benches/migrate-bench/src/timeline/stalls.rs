//! The longest stalls of a guest over time, in bounded memory.

use std::time::Duration;

/// Most looks that are kept; even, so that they pair.
const LOOKS_MAX: usize = 2048;

/// What the guest's own clock showed at each look, since the look before.
#[derive(Debug)]
pub(crate) struct Stalls {
    /// When, since the move began, and the longest stall; in order.
    looks: Vec<(Duration, Duration)>,
    /// How many looks each of these holds, but for the last.
    each: usize,
    /// How many the last one holds.
    in_last: usize,
}

impl Default for Stalls {
    fn default() -> Self {
        Self {
            looks: Vec::new(),
            each: 1,
            in_last: 1,
        }
    }
}

impl Stalls {
    /// Takes a look down; of a long move two become one, and then four.
    pub(crate) fn push(&mut self, at: Duration, longest: Duration) {
        if let Some(last) = self.looks.last_mut()
            && self.in_last < self.each
        {
            *last = (at, longest.max(last.1));
            self.in_last += 1;
            return;
        }
        if self.looks.len() == LOOKS_MAX {
            let pairs = self.looks.chunks(2);
            let merged = pairs.filter_map(|pair| {
                let at = pair.last()?.0;
                Some((at, pair.iter().map(|(_, longest)| *longest).max()?))
            });
            self.looks = merged.collect();
            self.each *= 2;
        }
        self.looks.push((at, longest));
        self.in_last = 1;
    }

    /// The longest after `start` and until `end`; none where nobody looked.
    pub(crate) fn longest_within(&self, start: Duration, end: Duration) -> Option<Duration> {
        let first = self.looks.partition_point(|(at, _)| *at <= start);
        let looks = self.looks.get(first..).unwrap_or_default().iter();
        let within = looks.take_while(|(at, _)| *at <= end);
        within.map(|(_, longest)| *longest).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn the_longest_between_two_moments() {
        let mut stalls = Stalls::default();
        for (at, longest) in [(10, 3), (20, 9), (30, 1)] {
            stalls.push(us(at), us(longest));
        }
        assert_eq!(stalls.longest_within(us(0), us(9)), None);
        assert_eq!(stalls.longest_within(us(0), us(10)), Some(us(3)));
        assert_eq!(stalls.longest_within(us(10), us(30)), Some(us(9)));
        assert_eq!(stalls.longest_within(us(20), us(99)), Some(us(1)));
        assert_eq!(stalls.longest_within(us(30), us(99)), None);
    }

    #[test]
    fn many_looks_take_little_memory_and_keep_the_longest() {
        let mut stalls = Stalls::default();
        for look in 0..100_000 {
            let longest = if look == 777 { 5000 } else { look % 100 };
            stalls.push(us(look), us(longest));
        }
        assert!(stalls.looks.len() <= LOOKS_MAX);
        assert_eq!(stalls.longest_within(us(0), us(99_999)), Some(us(5000)));
        assert_eq!(stalls.longest_within(us(50_000), us(99_999)), Some(us(99)));
    }
}
