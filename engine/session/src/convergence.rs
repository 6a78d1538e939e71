//! When to stop copying: what a pause would take now, whether another round makes it shorter, which
//! pages had better wait for the end, and what becomes of a guest that is too busy.

use core::time::Duration;

use limosa_pages::{PAGE_BYTES, PageCount};

use crate::config::{OnStall, SessionConfig, Terms};
use crate::error::NotConverging;
use crate::forecast::{Forecast, forecast};
use crate::rates::{Rates, scaled};
use crate::round::{Harvest, HoldBack, Rehearsal, RoundReport};
use crate::slowdown::Slowdown;
use crate::timers::Timestamp;

/// A pause this short is not worth another round.
const SHORT_ENOUGH: Duration = Duration::from_millis(8);
/// A round shrinks the work when it leaves less than this share of what the one before left.
const SHRINKS_BELOW: f64 = 0.8;
/// So many rounds in a row that shrink nothing and don't fit the budget are a stall.
const STALLED_ROUNDS_MAX: u32 = 4;
/// Where the guest can be held back that is done sooner: each round costs it time, too.
const STALLED_ROUNDS_BEFORE_SLOWING: u32 = 2;
/// Cold pages that are sent within this are done, however much fewer they become.
const COLD_NO_MORE: Duration = Duration::from_millis(1);
/// Of the pages that fit in the pause, so many may be held back; the rest is for cold ones.
const HELD_SHARE_MAX: f64 = 0.5;
/// A guest is held back so that it dirties this share of what would just converge.
const SLOWED_TO: f64 = 0.7;
/// Where that was not enough, to this share of what it was at most.
const SLOWED_FURTHER: f64 = 0.7;
/// The least that is left to a guest, in thousandths of its time: below it stands still more or
/// less, and a pause is kinder.
const RUN_PERMILLE_MIN: u16 = 20;
/// The least that a vCPU may dirty, in pages a second.
const DIRTY_LIMIT_MIN: f64 = 64.0;

/// What to do next.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Decision {
    /// Another round while the guest runs.
    AnotherRound(HoldBack),
    /// Hold the guest back from now on; then another round.
    SlowDown(Slowdown),
    /// Pause the guest now.
    SwitchOver,
    /// End the migration.
    GiveUp(NotConverging),
}

/// What the rates alone say of `left` pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next {
    /// A pause fits, and gets no shorter.
    Pause,
    /// Another round makes the pause shorter.
    Round,
    /// The pause doesn't fit, and gets no shorter.
    Stall,
}

/// What to do with `left` pages, as far as the rates hold.
pub(crate) fn next_step(rates: &Rates, left: f64) -> Next {
    let pause = rates.charged(left);
    let fits = pause <= rates.downtime_max();
    if fits && pause <= SHORT_ENOUGH {
        return Next::Pause;
    }
    let after = rates.charged(rates.left_after(left));
    match (fits, after < scaled(pause, SHRINKS_BELOW)) {
        (_, true) => Next::Round,
        (true, false) => Next::Pause,
        (false, false) => Next::Stall,
    }
}

/// Whether pages may still be held back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holding {
    /// Cold pages are still being sent.
    On,
    /// Those are done: all that is left is sent, or waits for the pause.
    Over,
}

/// What the rounds so far have taught, and what follows from it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Convergence {
    rates: Rates,
    on_stall: OnStall,
    rounds_max: u32,
    rounds: u32,
    stalled: u32,
    last_left: Option<u64>,
    last_fresh: Option<u64>,
    left: u64,
    holding: Holding,
    slowdown: Slowdown,
}

impl Convergence {
    pub(crate) fn new(config: &SessionConfig) -> Self {
        Self {
            rates: Rates::new(config),
            on_stall: config.on_stall,
            rounds_max: config.rounds_max,
            rounds: 0,
            stalled: 0,
            last_left: None,
            last_fresh: None,
            left: 0,
            holding: Holding::On,
            slowdown: Slowdown::None,
        }
    }

    /// From now on writes count towards the next harvest.
    pub(crate) const fn tracking_began(&mut self, now: Timestamp) {
        self.rates.tracking_began(now);
    }

    /// The page streams are being opened.
    pub(crate) const fn binding_began(&mut self, now: Timestamp) {
        self.rates.binding_began(now);
    }

    /// The target has said that they are bound.
    pub(crate) const fn bound(&mut self, now: Timestamp) {
        self.rates.bound(now);
    }

    /// A round is about to be sent.
    pub(crate) const fn round_began(&mut self, now: Timestamp) {
        self.rates.round_began(now);
    }

    /// A pause was tried out.
    pub(crate) const fn rehearsed(&mut self, rehearsal: Option<Rehearsal>) {
        self.rates.rehearsed(rehearsal);
    }

    /// The operator has changed budget or policy.
    pub(crate) fn renegotiate(&mut self, terms: Terms) {
        self.rates.set_downtime_max(terms.downtime_max);
        self.on_stall = terms.on_stall;
        self.stalled = 0;
    }

    /// Learns from a round that has landed by now.
    pub(crate) fn learn(&mut self, report: &RoundReport, now: Timestamp) {
        self.rounds += 1;
        self.rates.landed(report, now);
    }

    /// What the measured rates are.
    pub(crate) const fn rates(&self) -> &Rates {
        &self.rates
    }

    /// What pausing the guest now would take.
    pub(crate) fn expected(&self) -> Duration {
        self.rates.pause(self.left as f64)
    }

    /// What is to come; none where no end is in sight.
    pub(crate) fn forecast(&self) -> Option<Forecast> {
        forecast(&self.rates, self.left as f64)
    }

    /// Why this does not converge, in figures.
    pub(crate) fn verdict(&self) -> NotConverging {
        NotConverging {
            rounds: self.rounds,
            dirty_bytes_per_second: self.rates.dirty_bytes_per_second(),
            send_bytes_per_second: self.rates.send_bytes_per_second(),
            expected: self.expected(),
            budget: self.rates.downtime_max(),
            slowdown: self.slowdown,
        }
    }

    /// Decides, by what was found since the last round took its own.
    pub(crate) fn decide(&mut self, harvest: &Harvest, now: Timestamp) -> Decision {
        self.rates.harvested(harvest, now);
        let left = harvest.left.get();
        self.left = left;
        let held = harvest.held.get();
        let fresh = left.saturating_sub(held);
        let charged = self.rates.charged(left as f64);
        let fits = charged <= self.rates.downtime_max();
        let cold_shrinks = shrank(self.last_fresh.replace(fresh), fresh)
            && self.rates.sending(fresh as f64) > COLD_NO_MORE;
        if held > 0 && !cold_shrinks {
            self.holding = Holding::Over;
            // What was held back is sent for the first time.
            self.last_left = None;
        }
        let shrinks = shrank(self.last_left.replace(left), left);
        // What shrinks while pages are held back are the cold ones; the sum may not show it.
        let is_holding = held > 0 && self.holding == Holding::On;
        self.stalled = if shrinks || fits || is_holding {
            0
        } else {
            self.stalled + 1
        };
        let last_chance = self.rounds >= self.rounds_max;
        let goes_on = is_holding || shrinks && next_step(&self.rates, left as f64) == Next::Round;
        if fits && (charged <= SHORT_ENOUGH || !goes_on || last_chance) {
            return Decision::SwitchOver;
        }
        let is_slowable = matches!(self.on_stall, OnStall::Throttle | OnStall::Limit);
        let stalled_max = match is_slowable {
            true => STALLED_ROUNDS_BEFORE_SLOWING,
            false => STALLED_ROUNDS_MAX,
        };
        if last_chance {
            return self.give_in();
        }
        if self.stalled < stalled_max {
            return Decision::AnotherRound(self.hold_back(left));
        }
        self.stalled = 0;
        let Some(slowdown) = self.slower() else {
            return self.give_in();
        };
        self.slowdown = slowdown;
        Decision::SlowDown(slowdown)
    }

    /// The end of all patience.
    fn give_in(&self) -> Decision {
        match self.on_stall {
            OnStall::Stop => Decision::SwitchOver,
            OnStall::Fail | OnStall::Throttle | OnStall::Limit => Decision::GiveUp(self.verdict()),
        }
    }

    /// Which pages of the next round may wait.
    fn hold_back(&self, left: u64) -> HoldBack {
        if self.holding == Holding::Over {
            return HoldBack::NONE;
        }
        let rates = &self.rates;
        let pages_max = rates.sendable(scaled(rates.spare(), HELD_SHARE_MAX)) as u64;
        let horizon = rates.round(left as f64);
        HoldBack {
            pages_max: PageCount::new(pages_max),
            horizon,
        }
    }

    /// How the guest is to be held back so that it converges; none where that was tried as far as
    /// it goes, or the policy is another one.
    fn slower(&self) -> Option<Slowdown> {
        let rates = &self.rates;
        let fitting = rates.sendable(rates.spare()).max(1.0);
        let round = rates.round(fitting);
        // A round in which no more is dirtied than fits in the pause can be the last but one.
        let bearable = SLOWED_TO * fitting / round.as_secs_f64().max(1e-6);
        let share = bearable / rates.dirty_pages_per_second().max(1.0);
        match (self.on_stall, self.slowdown) {
            (OnStall::Throttle, Slowdown::DutyCycle { run_permille }) => {
                let share = share.min(SLOWED_FURTHER);
                let less = (f64::from(run_permille) * share) as u16;
                (run_permille > RUN_PERMILLE_MIN).then_some(Slowdown::DutyCycle {
                    run_permille: less.max(RUN_PERMILLE_MIN),
                })
            }
            (OnStall::Throttle, _) => {
                let run_permille = (1000.0 * share) as u16;
                Some(Slowdown::DutyCycle {
                    run_permille: run_permille.clamp(RUN_PERMILLE_MIN, 950),
                })
            }
            (OnStall::Limit, Slowdown::DirtyLimit { bytes_per_second }) => {
                let pages = bytes_per_second as f64 / PAGE_BYTES as f64;
                let less = pages * share.min(SLOWED_FURTHER);
                (pages > DIRTY_LIMIT_MIN).then(|| limit_of(less))
            }
            // Perhaps one vCPU writes all of it; where more do, the next step tells.
            (OnStall::Limit, _) => Some(limit_of(bearable)),
            (OnStall::Fail | OnStall::Stop, _) => None,
        }
    }
}

fn limit_of(pages_per_second: f64) -> Slowdown {
    let pages = PageCount::new(pages_per_second.max(DIRTY_LIMIT_MIN) as u64);
    Slowdown::DirtyLimit {
        bytes_per_second: pages.bytes(),
    }
}

/// Is `now` much less than what was found before? What was never found before is.
fn shrank(before: Option<u64>, now: u64) -> bool {
    before.is_none_or(|before| (now as f64) < SHRINKS_BELOW * before as f64)
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
            idle: Duration::ZERO,
        }
    }

    /// So many pages are left, none of them held back.
    fn left(pages: u64) -> Harvest {
        PageCount::new(pages).into()
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
        assert_eq!(convergence.decide(&left(0), at(1)), Decision::SwitchOver);
    }

    #[test]
    fn an_idle_guest_is_paused_at_once() {
        let mut convergence = learned(&SessionConfig::default());
        assert_eq!(convergence.decide(&left(10), at(1)), Decision::SwitchOver);
        assert!(convergence.expected() < Duration::from_millis(6));
    }

    #[test]
    fn rounds_go_on_while_they_shorten_the_pause() {
        let mut convergence = learned(&SessionConfig::default());
        for (pages, ms) in [(20_000, 1000), (4_000, 1200)] {
            let decision = convergence.decide(&left(pages), at(ms));
            assert!(
                matches!(decision, Decision::AnotherRound(_)),
                "{decision:?}"
            );
        }
        assert_eq!(
            convergence.decide(&left(3_900), at(1240)),
            Decision::SwitchOver
        );
    }

    #[test]
    fn a_stall_fails_with_both_rates_or_stops() {
        for (on_stall, stops) in [(OnStall::Fail, false), (OnStall::Stop, true)] {
            let config = SessionConfig {
                on_stall,
                ..SessionConfig::default()
            };
            let mut convergence = learned(&config);
            let mut ms = 0;
            let decision = loop {
                ms += 1000;
                match convergence.decide(&left(90_000), at(ms)) {
                    Decision::AnotherRound(_) => convergence.learn(&report(90_000, 900), at(0)),
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
        convergence.decide(&left(10_000), at(1100));
        let rate = convergence.rates().send_bytes_per_second();
        assert_eq!(rate, 10_000 * PAGE_BYTES as u64);
        assert_eq!(convergence.expected(), Duration::from_millis(1005));
    }

    /// A guest of few pages that writes a little all the time: its first round is too small to show
    /// the rate, and so are all others.
    #[test]
    fn small_rounds_raise_a_rate_that_the_first_one_put_too_low() {
        let mut convergence = Convergence::new(&SessionConfig::default());
        convergence.learn(&report(10, 100), at(0));
        let decision = convergence.decide(&left(500), at(100));
        assert!(
            matches!(decision, Decision::AnotherRound(_)),
            "{decision:?}"
        );
        convergence.learn(&report(500, 10), at(0));
        assert_eq!(
            convergence.decide(&left(500), at(110)),
            Decision::SwitchOver
        );
        let expected = convergence.expected();
        convergence.learn(&report(1, 10), at(0));
        convergence.decide(&left(500), at(120));
        assert_eq!(convergence.expected(), expected);
    }

    #[test]
    fn zero_pages_do_not_make_others_dear() {
        let mut convergence = Convergence::new(&SessionConfig::default());
        let mut mostly_zero = report(1, 1000);
        mostly_zero.pages.zero = 1_000_000;
        mostly_zero.wire_bytes = 16_000_000;
        convergence.learn(&mostly_zero, at(0));
        convergence.decide(&left(1000), at(1000));
        assert!(convergence.expected() < Duration::from_millis(300));
    }

    #[test]
    fn rounds_have_an_end_even_for_a_guest_that_seems_to_converge() {
        let config = SessionConfig {
            rounds_max: 3,
            ..SessionConfig::default()
        };
        let mut convergence = learned(&config);
        let mut pages = 4_000_000;
        for _ in 0..2 {
            pages /= 2;
            let decision = convergence.decide(&left(pages), at(1));
            assert!(
                matches!(decision, Decision::AnotherRound(_)),
                "{decision:?}"
            );
            convergence.learn(&report(pages, 1000), at(0));
        }
        let decision = convergence.decide(&left(pages / 2), at(2));
        assert!(matches!(decision, Decision::GiveUp(why) if why.rounds == 3));
    }

    /// Plays rounds of a guest that dirties 90 000 pages a second unless it is held back, over a
    /// link that sends 100 000.
    fn play(on_stall: OnStall) -> (Vec<Slowdown>, Decision) {
        let config = SessionConfig {
            on_stall,
            ..SessionConfig::default()
        };
        let mut convergence = learned(&config);
        let (mut ms, mut pages, mut slowdowns) = (1000, 90_000_u64, Vec::new());
        let mut rate = 90_000;
        loop {
            match convergence.decide(&left(pages), at(ms)) {
                Decision::AnotherRound(_) => {}
                Decision::SlowDown(slowdown) => {
                    rate = match slowdown {
                        Slowdown::DutyCycle { run_permille } => 90 * u64::from(run_permille),
                        Slowdown::DirtyLimit { bytes_per_second } => {
                            (bytes_per_second / PAGE_BYTES as u64).min(90_000)
                        }
                        Slowdown::None => 90_000,
                    };
                    slowdowns.push(slowdown);
                }
                decision => return (slowdowns, decision),
            }
            let took = pages / 100;
            convergence.round_began(at(ms));
            convergence.learn(&report(pages, took), at(ms + took));
            ms += took.max(1);
            pages = (rate * took / 1000).min(90_000);
            assert!(ms < 100_000, "it never ends: {slowdowns:?}");
        }
    }

    #[test]
    fn a_guest_is_held_back_by_as_much_as_is_needed() {
        let (slowdowns, decision) = play(OnStall::Throttle);
        assert_eq!(decision, Decision::SwitchOver, "{slowdowns:?}");
        let [Slowdown::DutyCycle { run_permille }] = slowdowns[..] else {
            panic!("{slowdowns:?}");
        };
        assert!((500..900).contains(&run_permille), "{run_permille}");
        let (slowdowns, decision) = play(OnStall::Limit);
        assert_eq!(decision, Decision::SwitchOver, "{slowdowns:?}");
        let [Slowdown::DirtyLimit { bytes_per_second }] = slowdowns[..] else {
            panic!("{slowdowns:?}");
        };
        let pages = bytes_per_second / PAGE_BYTES as u64;
        assert!((45_000..90_000).contains(&pages), "{pages}");
    }

    /// A guest that writes on as before, however it is held back.
    #[test]
    fn holding_back_has_an_end_too() {
        for on_stall in [OnStall::Throttle, OnStall::Limit] {
            let config = SessionConfig {
                on_stall,
                rounds_max: 1000,
                ..SessionConfig::default()
            };
            let mut convergence = learned(&config);
            let (mut ms, mut slowed) = (0, 0);
            let why = loop {
                ms += 1000;
                match convergence.decide(&left(90_000), at(ms)) {
                    Decision::AnotherRound(_) => {}
                    Decision::SlowDown(_) => slowed += 1,
                    Decision::GiveUp(why) => break why,
                    Decision::SwitchOver => panic!("nothing fits"),
                }
                convergence.learn(&report(90_000, 900), at(0));
                assert!(ms < 200_000, "it never ends");
            };
            assert!(slowed > 3, "{slowed}");
            assert_ne!(why.slowdown, Slowdown::None);
            let text = alloc::string::ToString::to_string(&why);
            assert!(text.contains("although each vCPU"), "{text}");
        }
    }

    /// As long as cold pages become fewer, hot ones wait; then all are sent, or the guest stops.
    #[test]
    fn hot_pages_wait_while_cold_ones_become_fewer() {
        let mut convergence = learned(&SessionConfig::default());
        let Decision::AnotherRound(hold) = convergence.decide(&left(40_000), at(1000)) else {
            panic!("too much for a pause");
        };
        assert!(hold.pages_max > PageCount::new(10_000), "{hold:?}");
        assert!(hold.horizon >= Duration::from_millis(400), "{hold:?}");
        let with_hot = |cold: u64| Harvest {
            left: PageCount::new(10_000 + cold),
            held: PageCount::new(10_000),
            held_pages_per_second: 100_000,
        };
        convergence.round_began(at(1000));
        convergence.learn(&report(30_000, 300), at(1300));
        let decision = convergence.decide(&with_hot(8_000), at(1300));
        assert!(
            matches!(decision, Decision::AnotherRound(hold) if hold != HoldBack::NONE),
            "{decision:?}"
        );
        convergence.round_began(at(1320));
        convergence.learn(&report(8_000, 80), at(1400));
        // What is left of the cold ones stays, and the hot ones are dirtied as fast as they go.
        assert_eq!(
            convergence.decide(&with_hot(7_900), at(1400)),
            Decision::SwitchOver
        );
    }

    #[test]
    fn a_forecast_has_what_is_likely_within_its_bands() {
        let mut convergence = learned(&SessionConfig::default());
        convergence.decide(&left(20_000), at(1000));
        let Some(Forecast { left, downtime }) = convergence.forecast() else {
            panic!("it converges");
        };
        for band in [left, downtime] {
            assert!(
                band.low <= band.likely && band.likely < band.high,
                "{band:?}"
            );
        }
        // Two rounds of 200 and 40 ms, and a pause.
        assert!(left.likely > Duration::from_millis(200), "{left:?}");
        assert!(left.likely < Duration::from_millis(300), "{left:?}");
        assert!(downtime.likely < Duration::from_millis(20), "{downtime:?}");
    }
}
