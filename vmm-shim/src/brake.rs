//! When a guest's threads are held back, and for how long. It stops nobody itself: `threads.rs`
//! does what is decided here.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use limosa::Slowdown;
use limosa_dirty::VcpuRings;
use limosa_pages::PAGE_BYTES;

/// The shortest run within a turn of a duty cycle, where that leaves the turn short enough: calling
/// a vCPU out and letting it in again takes 0.1 to 0.2 ms.
const RUN_MIN: Duration = Duration::from_micros(500);

/// The shortest turn of a duty cycle.
const TURN_MIN: Duration = Duration::from_millis(4);

const TURN_MAX: Duration = Duration::from_millis(Slowdown::TURN_MAX_MS);

/// How often writes are counted: a vCPU dirties no more than some 150 pages meanwhile.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// A vCPU that is ahead of its quota by less goes on: holding it back would cost as much.
const AHEAD_MAX: Duration = Duration::from_micros(500);

/// So much of an unused quota may be used later, or a page's worth where that is more.
const SAVED_MAX: Duration = Duration::from_millis(5);

/// The longest that a vCPU waits for its quota at once. It is reached below some 0.5 MiB/s, where
/// the pages that are dirtied between two looks are more than a second's worth.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Counts what each thread dirties.
pub(crate) trait Meter: Debug + Send + Sync {
    /// Pages since some moment long ago.
    fn pages(&self) -> Vec<u64>;
}

impl Meter for VcpuRings {
    fn pages(&self) -> Vec<u64> {
        let writes = self.writes();
        writes.iter().map(|vcpu| vcpu.pages.get()).collect()
    }
}

/// Decides who is held back.
#[derive(Debug)]
pub(crate) enum Regulator {
    Duty(DutyCycle),
    Limit(DirtyLimit),
}

impl Regulator {
    /// A share of the time, in thousandths, brought into 1 to 999.
    pub(crate) fn duty(run_permille: u16) -> Self {
        Self::Duty(DutyCycle::new(run_permille))
    }

    /// So many bytes of pages a second for each thread, at least a page.
    pub(crate) fn limit(bytes_per_second: u64, meter: Arc<dyn Meter>) -> Self {
        Self::Limit(DirtyLimit::new(bytes_per_second, meter))
    }

    /// What it must know to look, if anything.
    pub(crate) fn meter(&self) -> Option<Arc<dyn Meter>> {
        match self {
            Self::Duty(_) => None,
            Self::Limit(limit) => Some(Arc::clone(&limit.meter)),
        }
    }

    /// Says of each thread whether it is to be held back from now on, and when to look again.
    pub(crate) fn look(&mut self, now: Instant, pages: &[u64], held: &mut [bool]) -> Instant {
        match self {
            Self::Duty(duty) => duty.look(now, held),
            Self::Limit(limit) => limit.look(now, pages, held),
        }
    }
}

/// All threads run, and then all stand still, in turns.
#[derive(Debug)]
pub(crate) struct DutyCycle {
    run: Duration,
    rest: Duration,
    /// What they do, until when.
    phase: Option<(Phase, Instant)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Run,
    Rest,
}

impl DutyCycle {
    fn new(run_permille: u16) -> Self {
        let run_permille = u32::from(run_permille.clamp(1, 999));
        let turn = (RUN_MIN * 1000 / run_permille).clamp(TURN_MIN, TURN_MAX);
        let run = turn * run_permille / 1000;
        Self {
            run,
            rest: turn - run,
            phase: None,
        }
    }

    /// Phases follow a plan: one that began late ends no later for that, or the share would depend
    /// on how busy the host is.
    fn look(&mut self, now: Instant, held: &mut [bool]) -> Instant {
        let (mut phase, mut until) = self.phase.unwrap_or((Phase::Rest, now));
        if now > until + TURN_MAX {
            // So late that there is nothing to make up for.
            until = now;
        }
        while until <= now {
            (phase, until) = match phase {
                Phase::Run => (Phase::Rest, until + self.rest),
                Phase::Rest => (Phase::Run, until + self.run),
            };
        }
        self.phase = Some((phase, until));
        held.fill(phase == Phase::Rest);
        until
    }
}

/// A thread that has dirtied its quota waits until it has another.
#[derive(Debug)]
pub(crate) struct DirtyLimit {
    page_time: Duration,
    meter: Arc<dyn Meter>,
    threads: Vec<Quota>,
}

#[derive(Clone, Copy, Debug)]
struct Quota {
    seen: u64,
    /// When the quota for what was dirtied so far is complete.
    due: Instant,
    is_held: bool,
}

impl DirtyLimit {
    fn new(bytes_per_second: u64, meter: Arc<dyn Meter>) -> Self {
        let rate = bytes_per_second.max(PAGE_BYTES as u64);
        let page_time = Duration::from_nanos(PAGE_BYTES as u64 * 1_000_000_000 / rate);
        Self {
            page_time,
            meter,
            threads: Vec::new(),
        }
    }

    fn look(&mut self, now: Instant, pages: &[u64], held: &mut [bool]) -> Instant {
        // What was dirtied before the first look is nobody's debt.
        let known = self.threads.len();
        let new = pages.iter().skip(known).map(|&seen| Quota {
            seen,
            due: now,
            is_held: false,
        });
        self.threads.extend(new);
        let saved_max = SAVED_MAX.max(self.page_time);
        for ((quota, &pages), held) in self.threads.iter_mut().zip(pages).zip(held) {
            let new = pages.saturating_sub(quota.seen).try_into();
            let debt = self.page_time.saturating_mul(new.unwrap_or(u32::MAX));
            let saved = now.checked_sub(saved_max).unwrap_or(now);
            let due = quota.due.max(saved).checked_add(debt);
            let due = due.map_or(now + WAIT_MAX, |due| due.min(now + WAIT_MAX));
            // One that waits does so to the end.
            let ahead_max = if quota.is_held {
                Duration::ZERO
            } else {
                AHEAD_MAX
            };
            *quota = Quota {
                seen: pages,
                due,
                is_held: due > now + ahead_max,
            };
            *held = quota.is_held;
        }
        now + LOOK_EVERY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[derive(Debug)]
    struct NoMeter;

    impl Meter for NoMeter {
        fn pages(&self) -> Vec<u64> {
            Vec::new()
        }
    }

    #[test]
    fn a_duty_cycle_keeps_its_share_however_late_it_is_looked_at() {
        for (permille, late) in [(1, 0), (10, 50), (250, 0), (500, 700), (900, 20), (999, 0)] {
            let mut duty = DutyCycle::new(permille);
            assert!(duty.run + duty.rest <= TURN_MAX && !duty.run.is_zero());
            let (start, mut now) = (Instant::now(), Instant::now());
            let (mut ran, mut held) = (Duration::ZERO, [true; 3]);
            while now < start + Duration::from_secs(10) {
                let next = duty.look(now, &mut held) + Duration::from_micros(late);
                assert!(next > now && next <= now + TURN_MAX + MILLISECOND);
                assert!(held.iter().all(|one| *one == held[0]));
                if !held[0] {
                    ran += next - now;
                }
                now = next;
            }
            let share = ran.as_secs_f64() / (now - start).as_secs_f64() * 1000.0;
            let wanted = f64::from(permille);
            assert!((share - wanted).abs() < 5.0, "{share} of {wanted}");
        }
    }

    #[test]
    fn a_duty_cycle_makes_nothing_up_after_a_long_time() {
        let (mut duty, mut held) = (DutyCycle::new(500), [false]);
        let start = Instant::now();
        duty.look(start, &mut held);
        let late = start + Duration::from_secs(3600);
        assert!(duty.look(late, &mut held) <= late + TURN_MAX);
    }

    /// Threads that dirty a page every so many microseconds while they may, over 10 seconds.
    fn pages_dirtied(bytes_per_second: u64, page_micros: [u64; 2]) -> [u64; 2] {
        let mut limit = DirtyLimit::new(bytes_per_second, Arc::new(NoMeter));
        let (start, mut now) = (Instant::now(), Instant::now());
        let (mut micros, mut held) = ([0; 2], [false; 2]);
        let pages = |micros: [u64; 2]| [micros[0] / page_micros[0], micros[1] / page_micros[1]];
        while now < start + Duration::from_secs(10) {
            let next = limit.look(now, &pages(micros), &mut held);
            for (micros, _) in micros.iter_mut().zip(held).filter(|(_, held)| !held) {
                *micros += (next - now).as_micros() as u64;
            }
            now = next;
        }
        pages(micros)
    }

    #[test]
    fn a_limit_holds_those_who_write_more_and_nobody_else() {
        // 100 MiB/s are 25 600 pages a second; the first could write 250 000, the second 1000.
        let [much, little] = pages_dirtied(100 << 20, [4, 1000]);
        assert!((250_000..262_000).contains(&much), "{much}");
        assert_eq!(little, 10_000);
        // A page a second, where 125 are written between two looks: as long as it may wait.
        let [much, little] = pages_dirtied(1, [4, 1_000_000]);
        assert!((1000..2000).contains(&much), "{much}");
        assert!((9..=10).contains(&little), "{little}");
    }
}
