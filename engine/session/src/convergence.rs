//! When to stop copying: what a pause would take now, and whether another round makes it shorter.

use core::time::Duration;

use limosa_pages::{PAGE_BYTES, PageCount};
use limosa_wire::{FRAME_HEADER_BYTES, RECORD_BYTES};

use crate::config::{OnStall, SessionConfig};
use crate::error::NotConverging;
use crate::round::RoundReport;
use crate::timers::Timestamp;

/// A round with fewer bytes says more about latency than about the rate.
const TELLING_BYTES: u64 = 4 << 20;
/// Most bytes of one page on the wire: the page, a frame's header and a record of its own.
const WIRE_BYTES_PER_PAGE_MAX: f64 = (PAGE_BYTES + FRAME_HEADER_BYTES + RECORD_BYTES) as f64;
/// A pause this short is not worth another round.
const SHORT_ENOUGH: Duration = Duration::from_millis(8);
/// A round shrinks the work when it leaves less than this share of what the one before left.
const SHRINKS_BELOW: f64 = 0.8;
/// So many rounds in a row that shrink nothing and don't fit the budget are a stall.
const STALLED_ROUNDS_MAX: u32 = 4;

/// What to do next.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Decision {
    /// Another round while the guest runs.
    AnotherRound,
    /// Pause the guest now.
    SwitchOver,
    /// End the migration.
    GiveUp(NotConverging),
}

/// What a pause would take now, and the rates that say so.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(crate) struct Estimate {
    pub(crate) expected: Duration,
    pub(crate) dirty_bytes_per_second: u64,
    pub(crate) send_bytes_per_second: u64,
}

/// What the rounds so far have taught.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Convergence {
    downtime_max: Duration,
    switchover_cost: Duration,
    rounds_max: u32,
    on_stall: OnStall,
    rounds: u32,
    stalled: u32,
    send_bytes_per_second: f64,
    wire_bytes_per_page: f64,
    last_left: Option<u64>,
    last_harvest: Timestamp,
    round_began: Timestamp,
    estimate: Estimate,
}

impl Convergence {
    pub(crate) fn new(config: &SessionConfig) -> Self {
        Self {
            downtime_max: config.downtime_max,
            // A budget below the cost could never be met: then the cost is what the budget allows.
            switchover_cost: config.switchover_cost.min(config.downtime_max / 2),
            rounds_max: config.rounds_max,
            on_stall: config.on_stall,
            rounds: 0,
            stalled: 0,
            send_bytes_per_second: 0.0,
            wire_bytes_per_page: PAGE_BYTES as f64,
            last_left: None,
            last_harvest: Timestamp::default(),
            round_began: Timestamp::default(),
            estimate: Estimate::default(),
        }
    }

    /// The last estimate.
    pub(crate) const fn estimate(&self) -> Estimate {
        self.estimate
    }

    /// From now on writes count towards the next harvest.
    pub(crate) const fn tracking_began(&mut self, now: Timestamp) {
        self.last_harvest = now;
    }

    /// A round is about to be sent.
    pub(crate) const fn round_began(&mut self, now: Timestamp) {
        self.round_began = now;
    }

    /// Learns from a round that has landed by now. What counts is when the target had it, not when
    /// the sockets had taken it: for as long will the last round hold the guest up.
    pub(crate) fn learn(&mut self, report: &RoundReport, now: Timestamp) {
        self.rounds += 1;
        let took = now.since(self.round_began).max(report.elapsed);
        let wire_bytes = report.wire_bytes as f64;
        if took > Duration::ZERO {
            let rate = wire_bytes / took.as_secs_f64();
            // A round that says little about the rate still shows that it is not lower.
            self.send_bytes_per_second = match report.wire_bytes >= TELLING_BYTES {
                true => rate,
                false => rate.max(self.send_bytes_per_second),
            };
        }
        let data_pages = report.pages.data();
        if data_pages > 0 {
            // In rounds of mostly zero pages the few others would seem to take what the zeros did.
            let per_page = wire_bytes / data_pages as f64;
            self.wire_bytes_per_page = per_page.min(WIRE_BYTES_PER_PAGE_MAX);
        }
    }

    /// Decides, `left` pages having been written since the last round took its own.
    pub(crate) fn decide(&mut self, left: PageCount, now: Timestamp) -> Decision {
        self.estimate = self.estimated(left, now.since(self.last_harvest));
        self.last_harvest = now;
        let expected = self.estimate.expected;
        let shrinks = self
            .last_left
            .replace(left.get())
            .is_none_or(|last| (left.get() as f64) < SHRINKS_BELOW * last as f64);
        let fits = expected <= self.downtime_max;
        self.stalled = if shrinks || fits { 0 } else { self.stalled + 1 };
        let last_chance = self.rounds >= self.rounds_max;
        if fits && (expected <= SHORT_ENOUGH || !shrinks || last_chance) {
            return Decision::SwitchOver;
        }
        if !last_chance && self.stalled < STALLED_ROUNDS_MAX {
            return Decision::AnotherRound;
        }
        match self.on_stall {
            OnStall::Stop => Decision::SwitchOver,
            OnStall::Fail => Decision::GiveUp(self.verdict()),
        }
    }

    fn estimated(&self, left: PageCount, interval: Duration) -> Estimate {
        let seconds = match self.send_bytes_per_second {
            rate if rate > 0.0 => left.get() as f64 * self.wire_bytes_per_page / rate,
            // Nothing was ever sent, so nothing is known but that it takes no time.
            _ => 0.0,
        };
        let sending = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let interval = interval.as_secs_f64().max(1e-6);
        Estimate {
            expected: self.switchover_cost.saturating_add(sending),
            dirty_bytes_per_second: (left.bytes() as f64 / interval) as u64,
            send_bytes_per_second: self.send_bytes_per_second as u64,
        }
    }

    fn verdict(&self) -> NotConverging {
        NotConverging {
            rounds: self.rounds,
            dirty_bytes_per_second: self.estimate.dirty_bytes_per_second,
            send_bytes_per_second: self.estimate.send_bytes_per_second,
            expected: self.estimate.expected,
            budget: self.downtime_max,
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use alloc::vec::Vec;

    use limosa_wire::{EncodingCounts, Round};

    use super::*;

    fn report(pages: u64, ms: u64) -> RoundReport {
        RoundReport {
            round: Round::FIRST,
            pages: EncodingCounts {
                raw: pages,
                ..EncodingCounts::default()
            },
            wire_bytes: pages * PAGE_BYTES as u64,
            frames: Vec::new(),
            elapsed: Duration::from_millis(ms),
        }
    }

    fn at(ms: u64) -> Timestamp {
        Timestamp::new(Duration::from_millis(ms))
    }

    /// 100 000 pages a second.
    fn learned(config: &SessionConfig) -> Convergence {
        let mut convergence = Convergence::new(config);
        convergence.learn(&report(100_000, 1000), at(0));
        convergence
    }

    #[test]
    fn a_budget_below_the_usual_cost_can_be_met() {
        let config = SessionConfig {
            downtime_max: Duration::from_millis(2),
            ..SessionConfig::default()
        };
        let mut convergence = learned(&config);
        assert_eq!(
            convergence.decide(PageCount::ZERO, at(1)),
            Decision::SwitchOver
        );
    }

    #[test]
    fn an_idle_guest_is_paused_at_once() {
        let mut convergence = learned(&SessionConfig::default());
        assert_eq!(
            convergence.decide(PageCount::new(10), at(1)),
            Decision::SwitchOver
        );
        assert!(convergence.estimate().expected < Duration::from_millis(6));
    }

    #[test]
    fn rounds_go_on_while_they_shorten_the_pause() {
        let mut convergence = learned(&SessionConfig::default());
        assert_eq!(
            convergence.decide(PageCount::new(20_000), at(1)),
            Decision::AnotherRound
        );
        assert_eq!(
            convergence.decide(PageCount::new(4_000), at(2)),
            Decision::AnotherRound
        );
        assert_eq!(
            convergence.decide(PageCount::new(3_900), at(3)),
            Decision::SwitchOver
        );
    }

    #[test]
    fn a_stall_fails_with_both_rates_or_stops() {
        let left = PageCount::new(90_000);
        for (on_stall, stops) in [(OnStall::Fail, false), (OnStall::Stop, true)] {
            let config = SessionConfig {
                on_stall,
                ..SessionConfig::default()
            };
            let mut convergence = learned(&config);
            let mut ms = 0;
            let decision = loop {
                ms += 1000;
                match convergence.decide(left, at(ms)) {
                    Decision::AnotherRound => convergence.learn(&report(90_000, 900), at(0)),
                    decision => break decision,
                }
                assert!(ms < 60_000, "it never ends");
            };
            match decision {
                Decision::GiveUp(verdict) => {
                    assert!(!stops);
                    let text = alloc::string::ToString::to_string(&verdict);
                    assert!(
                        text.contains("351 MiB/s") && text.contains("390 MiB/s"),
                        "{text}"
                    );
                }
                decision => assert!(stops && decision == Decision::SwitchOver),
            }
        }
    }

    /// What one socket buffer swallows says nothing about the link; when it landed does.
    #[test]
    fn the_rate_is_that_of_landing() {
        let mut convergence = Convergence::new(&SessionConfig::default());
        convergence.round_began(at(100));
        convergence.learn(&report(10_000, 1), at(1100));
        convergence.decide(PageCount::new(10_000), at(1100));
        let estimate = convergence.estimate();
        assert_eq!(estimate.send_bytes_per_second, 10_000 * PAGE_BYTES as u64);
        assert_eq!(estimate.expected, Duration::from_millis(1005));
    }

    /// A guest of few pages that writes a little all the time: its first round is too small to show
    /// the rate, and so are all others.
    #[test]
    fn small_rounds_raise_a_rate_that_the_first_one_put_too_low() {
        let mut convergence = Convergence::new(&SessionConfig::default());
        convergence.learn(&report(10, 100), at(0));
        let left = PageCount::new(500);
        assert_eq!(convergence.decide(left, at(100)), Decision::AnotherRound);
        convergence.learn(&report(500, 10), at(0));
        assert_eq!(convergence.decide(left, at(110)), Decision::SwitchOver);
        let estimate = convergence.estimate();
        convergence.learn(&report(1, 10), at(0));
        convergence.decide(left, at(120));
        assert_eq!(convergence.estimate().expected, estimate.expected);
    }

    #[test]
    fn zero_pages_do_not_make_others_dear() {
        let mut convergence = Convergence::new(&SessionConfig::default());
        let mut mostly_zero = report(1, 1000);
        mostly_zero.pages.zero = 1_000_000;
        mostly_zero.wire_bytes = 16_000_000;
        convergence.learn(&mostly_zero, at(0));
        convergence.decide(PageCount::new(1000), at(1000));
        assert!(convergence.estimate().expected < Duration::from_millis(300));
    }

    #[test]
    fn rounds_have_an_end_even_for_a_guest_that_seems_to_converge() {
        let config = SessionConfig {
            rounds_max: 3,
            ..SessionConfig::default()
        };
        let mut convergence = learned(&config);
        let mut left = 4_000_000;
        for _ in 0..2 {
            left /= 2;
            let decision = convergence.decide(PageCount::new(left), at(1));
            assert_eq!(decision, Decision::AnotherRound);
            convergence.learn(&report(left, 1000), at(0));
        }
        let decision = convergence.decide(PageCount::new(left / 2), at(2));
        assert!(matches!(decision, Decision::GiveUp(why) if why.rounds == 3));
    }
}
