//! One direction of one connection: what was sent arrives whole and in order, later, or not at all.
//! It carries no bytes itself, it says when they arrive; other lanes know nothing of it.

use std::time::Duration;

use super::rng::Rng;

/// How a lane behaves while nothing is wrong with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkShape {
    /// Time on the way.
    pub(crate) latency: Duration,
    /// Most time on top of it, drawn anew for each unit.
    pub(crate) jitter: Duration,
    /// What goes through.
    pub(crate) bytes_per_second: u64,
    /// Most bytes that a sender may have under way before it has to wait.
    pub(crate) window_bytes: u64,
}

/// What becomes of a unit at the moment when it would arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arrival {
    /// It is there.
    Now,
    /// The lane stands still until then.
    At(Duration),
    /// The lane is cut.
    Never,
}

/// One direction of one connection.
///
/// Units never overtake each other on one lane. Two lanes differ in delay, so that what was sent on
/// one may arrive after what was sent later on another.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    shape: LinkShape,
    rng: Rng,
    free_at: Duration,
    last_arrival: Duration,
    stalled_until: Duration,
    is_cut: bool,
    under_way_bytes: u64,
}

impl Lane {
    /// A lane that works.
    pub(crate) const fn new(shape: LinkShape, rng: Rng) -> Self {
        Self {
            shape,
            rng,
            free_at: Duration::ZERO,
            last_arrival: Duration::ZERO,
            stalled_until: Duration::ZERO,
            is_cut: false,
            under_way_bytes: 0,
        }
    }

    /// Sends `bytes` bytes; says when they arrive, `None` where the lane is cut.
    pub(crate) fn send(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        self.under_way_bytes += bytes as u64;
        if self.is_cut {
            return None;
        }
        let nanos =
            (bytes as u64).saturating_mul(1_000_000_000) / self.shape.bytes_per_second.max(1);
        self.free_at = self.free_at.max(now) + Duration::from_nanos(nanos);
        let jitter = self.rng.below(self.shape.jitter.as_nanos() as u64 + 1);
        let arrival = self.free_at + self.shape.latency + Duration::from_nanos(jitter);
        self.last_arrival = self.last_arrival.max(arrival);
        Some(self.last_arrival)
    }

    /// What becomes of a unit that is due now.
    pub(crate) fn arrive(&self, now: Duration) -> Arrival {
        match (self.is_cut, self.stalled_until > now) {
            (true, _) => Arrival::Never,
            (false, true) => Arrival::At(self.stalled_until),
            (false, false) => Arrival::Now,
        }
    }

    /// The receiver has dealt with `bytes` bytes: the sender may send as many more.
    pub(crate) const fn consumed(&mut self, bytes: usize) {
        self.under_way_bytes = self.under_way_bytes.saturating_sub(bytes as u64);
    }

    /// May the sender send without waiting?
    pub(crate) const fn has_room(&self) -> bool {
        self.under_way_bytes < self.shape.window_bytes
    }

    /// Lets nothing arrive before `until`.
    pub(crate) fn stall(&mut self, until: Duration) {
        self.stalled_until = self.stalled_until.max(until);
    }

    /// Lets nothing arrive any more.
    pub(crate) const fn cut(&mut self) {
        self.is_cut = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(jitter: Duration) -> Lane {
        let shape = LinkShape {
            latency: Duration::from_millis(1),
            jitter,
            bytes_per_second: 1_000_000,
            window_bytes: 1500,
        };
        Lane::new(shape, Rng::new(7))
    }

    #[test]
    fn a_lane_keeps_order_and_rate() {
        let mut lane = lane(Duration::from_millis(9));
        let mut last = Duration::ZERO;
        for number in 1..100 {
            let arrival = lane.send(Duration::ZERO, 1000).unwrap();
            assert!(arrival >= last && arrival >= Duration::from_millis(1 + number));
            last = arrival;
        }
        assert!(last <= Duration::from_millis(99 + 1 + 9));
    }

    #[test]
    fn a_window_a_stall_and_a_cut_stop_what_they_should() {
        let mut lane = lane(Duration::ZERO);
        lane.send(Duration::ZERO, 1000);
        assert!(lane.has_room());
        lane.send(Duration::ZERO, 1000);
        assert!(!lane.has_room());
        lane.consumed(1000);
        assert!(lane.has_room());
        let (early, late) = (Duration::from_millis(5), Duration::from_millis(50));
        lane.stall(late);
        assert_eq!(lane.arrive(early), Arrival::At(late));
        assert_eq!(lane.arrive(late), Arrival::Now);
        lane.cut();
        assert_eq!(lane.arrive(late), Arrival::Never);
        assert_eq!(lane.send(late, 1), None);
    }
}
