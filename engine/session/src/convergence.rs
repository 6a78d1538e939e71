//! When to stop copying: what a pause would take now, and whether another round makes it shorter.

use core::time::Duration;

use limosa_pages::{PAGE_BYTES, PageCount};

use crate::config::{OnStall, SessionConfig};
use crate::error::NotConverging;
use crate::round::RoundReport;
use crate::timers::Timestamp;

/// A round with fewer bytes says more about latency than about the rate.
const TELLING_BYTES: u64 = 4 << 20;
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
    expected: Duration,
}

impl Convergence {
    pub(crate) fn new(config: &SessionConfig) -> Self {
        Self {
            downtime_max: config.downtime_max,
            switchover_cost: config.switchover_cost,
            rounds_max: config.rounds_max,
            on_stall: config.on_stall,
            rounds: 0,
            stalled: 0,
            send_bytes_per_second: 0.0,
            wire_bytes_per_page: PAGE_BYTES as f64,
            last_left: None,
            last_harvest: Timestamp::default(),
            expected: Duration::ZERO,
        }
    }

    /// What a pause would take, as last estimated.
    pub(crate) const fn expected(&self) -> Duration {
        self.expected
    }

    /// The record of writes begins now.
    pub(crate) const fn harvest_began(&mut self, now: Timestamp) {
        self.last_harvest = now;
    }

    /// Learns from a round that has landed.
    pub(crate) fn learn(&mut self, report: &RoundReport) {
        self.rounds += 1;
        let seconds = report.elapsed.as_secs_f64();
        let telling = report.wire_bytes >= TELLING_BYTES || self.send_bytes_per_second == 0.0;
        if telling && seconds > 0.0 {
            self.send_bytes_per_second = report.wire_bytes as f64 / seconds;
        }
        let data_pages = report.pages.raw + report.pages.lz4;
        if data_pages > 0 {
            self.wire_bytes_per_page = report.wire_bytes as f64 / data_pages as f64;
        }
    }

    /// Decides, `left` pages having been written since the last round took its own.
    pub(crate) fn decide(&mut self, left: PageCount, now: Timestamp) -> Decision {
        let interval = now.since(self.last_harvest);
        self.last_harvest = now;
        self.expected = self.estimate(left);
        let shrinks = self
            .last_left
            .replace(left.get())
            .is_none_or(|last| (left.get() as f64) < SHRINKS_BELOW * last as f64);
        let fits = self.expected <= self.downtime_max;
        self.stalled = if shrinks || fits { 0 } else { self.stalled + 1 };
        let last_chance = self.rounds >= self.rounds_max;
        if fits && (self.expected <= SHORT_ENOUGH || !shrinks || last_chance) {
            return Decision::SwitchOver;
        }
        if !last_chance && self.stalled < STALLED_ROUNDS_MAX {
            return Decision::AnotherRound;
        }
        match self.on_stall {
            OnStall::Stop => Decision::SwitchOver,
            OnStall::Fail => Decision::GiveUp(self.verdict(left, interval)),
        }
    }

    fn estimate(&self, left: PageCount) -> Duration {
        let seconds = match self.send_bytes_per_second {
            rate if rate > 0.0 => left.get() as f64 * self.wire_bytes_per_page / rate,
            // Nothing was ever sent, so nothing is known but that it takes no time.
            _ => 0.0,
        };
        let sending = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        self.switchover_cost.saturating_add(sending)
    }

    fn verdict(&self, left: PageCount, interval: Duration) -> NotConverging {
        let seconds = interval.as_secs_f64().max(1e-6);
        NotConverging {
            rounds: self.rounds,
            dirty_bytes_per_second: (left.bytes() as f64 / seconds) as u64,
            send_bytes_per_second: self.send_bytes_per_second as u64,
            expected: self.expected,
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
        convergence.learn(&report(100_000, 1000));
        convergence
    }

    #[test]
    fn an_idle_guest_is_paused_at_once() {
        let mut convergence = learned(&SessionConfig::default());
        assert_eq!(
            convergence.decide(PageCount::new(10), at(1)),
            Decision::SwitchOver
        );
        assert!(convergence.expected() < Duration::from_millis(6));
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
                    Decision::AnotherRound => convergence.learn(&report(90_000, 900)),
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
}
