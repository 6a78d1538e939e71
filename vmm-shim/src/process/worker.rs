//! One thread of a process guest: fills, probes, writes and checks its share of memory like a vCPU
//! of the payload, one small step at a time. Between two steps it can be stopped, and moved.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use limosa_payload::content::{PageKind, page_kind};
use limosa_payload::plan::Plan;
use limosa_payload::protocol::{CATCH_UP_MAX_NS, Command, Fill, Params, Pattern, Probe, VcpuState};
use limosa_payload::stats::CheckResult;

use super::books::Books;
use super::memory::{COUNTER, Memory};
use super::state::{Check, ThreadState};
use crate::threads::Worker;
use crate::vcpu::VcpuFault;

/// The clock of a process guest counts nanoseconds of real time, which two hosts share.
pub(super) const CLOCK_KHZ: u64 = 1_000_000;

/// What a thread is to do, and how far it is.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) params: Params,
    pub(super) plan: Plan,
    pub(super) state: ThreadState,
}

/// One thread's task, if it has one yet, and the memory that it works on.
#[derive(Debug)]
pub(super) struct TaskCell {
    memory: Memory,
    task: Mutex<Option<Task>>,
    called: Mutex<bool>,
    alarm: Condvar,
}

impl TaskCell {
    pub(super) fn new(ram: Arc<crate::memory::GuestRam>, task: Option<Task>) -> Self {
        Self {
            memory: Memory(ram),
            task: Mutex::new(task),
            called: Mutex::new(false),
            alarm: Condvar::new(),
        }
    }

    /// The task, once the thread stands still.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Task>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_called(&self, called: bool) {
        *self.called.lock().unwrap_or_else(PoisonError::into_inner) = called;
        self.alarm.notify_all();
    }

    /// Sleeps until somebody calls, or for so long.
    fn sleep(&self, longest: Duration) {
        let called = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        drop(
            self.alarm
                .wait_timeout_while(called, longest, |called| !*called),
        );
    }
}

impl Worker for TaskCell {
    type Fault = VcpuFault;

    fn let_in(&self) {
        self.set_called(false);
    }

    fn call_out(&self) {
        self.set_called(true);
    }

    fn work(&self, wanted: &dyn Fn() -> bool) -> Result<(), VcpuFault> {
        let mut task = self.lock();
        let Some(task) = task.as_mut() else {
            return Ok(());
        };
        let mut thread = Thread {
            books: Books::of(&self.memory, task.state.index),
            memory: &self.memory,
            params: &task.params,
            plan: &task.plan,
            state: &mut task.state,
        };
        while wanted() {
            if let Some(longest) = thread.step()? {
                self.sleep(longest);
            }
        }
        Ok(())
    }
}

/// What a gap without a switchover means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gaps {
    Stalls,
    Work,
}

struct Thread<'a> {
    memory: &'a Memory,
    books: Books<'a>,
    params: &'a Params,
    plan: &'a Plan,
    state: &'a mut ThreadState,
}

impl Thread<'_> {
    /// Does one small thing. Returns how long there is nothing to do.
    fn step(&mut self) -> Result<Option<Duration>, VcpuFault> {
        if self.state.fill_begun_ns == 0 {
            self.begin()?;
        } else if self.state.filled < self.own_pages() {
            self.fill_one()?;
        } else if let Some(check) = self.state.check.take() {
            self.check_one(check)?;
        } else {
            return self.beat();
        }
        Ok(None)
    }

    fn begin(&mut self) -> Result<(), VcpuFault> {
        let now = now_ns();
        self.state.fill_begun_ns = now;
        self.state.last_ns = now;
        self.state.switchover = self.books.switchover()?;
        self.books.begin(self.state.index, CLOCK_KHZ)?;
        self.become_ready()
    }

    fn fill_one(&mut self) -> Result<(), VcpuFault> {
        let number = self.state.filled;
        let (address, number_in_set) = self.touched(number);
        let cleared = match number_in_set {
            Some(in_set) => {
                if self.pattern() != Pattern::Sequential {
                    self.memory.store_short(self.counter(in_set), 0)?;
                }
                COUNTER
            }
            None => 0,
        };
        let fill = self.fill();
        self.memory.fill(self.params.seed, address, fill, cleared)?;
        self.stamp(0, Gaps::Work)?;
        self.state.filled = self.state.filled.saturating_add(1);
        self.become_ready()
    }

    /// Goes to work once everything is filled.
    fn become_ready(&mut self) -> Result<(), VcpuFault> {
        if self.state.filled < self.own_pages() {
            return Ok(());
        }
        let now = now_ns();
        let ns = now.saturating_sub(self.state.fill_begun_ns);
        self.books.set_fill(ns, self.state.filled)?;
        (self.state.due_ns, self.state.tick_ns) = (now, now);
        self.books.set_state(VcpuState::Ready)
    }

    /// A turn of the loop of a thread at work.
    fn beat(&mut self) -> Result<Option<Duration>, VcpuFault> {
        let sleeps = self.params.probe == Probe::Sleep.number();
        let tick = if sleeps { self.params.tick_ns } else { 0 };
        let now = now_ns();
        if sleeps && now < self.state.tick_ns && self.state.tick_ns - now <= tick {
            return Ok(Some(Duration::from_nanos(self.state.tick_ns - now)));
        }
        self.state.tick_ns = now.saturating_add(tick);
        self.stamp(tick, Gaps::Stalls)?;
        while self.is_due(now, tick)? {
            self.write_one()?;
            if !sleeps {
                break;
            }
        }
        let (sequence, command) = self.books.command()?;
        if sequence != self.state.sequence {
            self.state.sequence = sequence;
            if command == Command::Check.number() {
                self.books.set_state(VcpuState::Checking)?;
                self.state.check = Some(Check {
                    done: 0,
                    begun_ns: now,
                    found: CheckResult {
                        sequence,
                        writes_done: self.state.writes,
                        ..CheckResult::default()
                    },
                });
            }
        }
        Ok(None)
    }

    /// Takes a time stamp and books the gap since the last one, less `expected` nanoseconds.
    fn stamp(&mut self, expected: u64, gaps: Gaps) -> Result<(), VcpuFault> {
        // The time belongs to the number of switchovers only if that did not change around it.
        let (now, switchover) = loop {
            let before = self.books.switchover()?;
            let now = now_ns();
            if self.books.switchover()? == before {
                break (now, before);
            }
        };
        self.books.add_stamp()?;
        let gap = now.checked_sub(self.state.last_ns);
        let gap = gap.map(|gap| gap.saturating_sub(expected));
        self.state.last_ns = now;
        if switchover != self.state.switchover {
            self.state.switchover = switchover;
            self.books.add_gap(switchover, gap)
        } else if gaps == Gaps::Stalls || gap.is_none() {
            self.books.add_stall(gap)
        } else {
            Ok(())
        }
    }

    /// Whether a write is due, which is then taken as done. A rate, not a debt.
    fn is_due(&mut self, now: u64, tick: u64) -> Result<bool, VcpuFault> {
        let rate = u128::from(self.params.dirty_pages_per_second);
        let all = u128::from(self.params.vcpu_count) * 1_000_000_000;
        let period = all.checked_div(rate).unwrap_or(0) as u64;
        if rate == 0 || self.working() == 0 {
            return Ok(false);
        }
        let period = period.max(1);
        if now.saturating_add(period) < self.state.due_ns {
            // The clock went back.
            self.state.due_ns = now;
        }
        if now < self.state.due_ns {
            return Ok(false);
        }
        self.state.due_ns = self.state.due_ns.saturating_add(period);
        let late = now.saturating_sub(self.state.due_ns);
        if late > CATCH_UP_MAX_NS + tick {
            self.books.add_dropped(late / period)?;
            self.state.due_ns = now;
        }
        Ok(true)
    }

    fn write_one(&mut self) -> Result<(), VcpuFault> {
        let own = self.working();
        let chosen = match self.pattern() {
            Pattern::Sequential => self.state.cursor,
            Pattern::Random => self.any(own),
            Pattern::HotCold => {
                let hot = self.any(10) != 0;
                let hot_pages = own.div_ceil(10);
                if hot || hot_pages == own {
                    self.any(hot_pages)
                } else {
                    hot_pages + self.any(own - hot_pages)
                }
            }
        };
        let number = self.plan.share(self.state.index.into()).working.start + chosen;
        self.memory.bump(self.plan.touched_address(number))?;
        if self.pattern() == Pattern::Sequential {
            self.state.cursor = self.state.cursor.saturating_add(1);
            if self.state.cursor >= own {
                self.state.cursor = 0;
                self.state.passes = self.state.passes.wrapping_add(1);
            }
        } else {
            self.memory.bump(self.counter(number))?;
        }
        self.state.writes = self.state.writes.wrapping_add(1);
        self.books.set_writes(self.state.writes)
    }

    fn check_one(&mut self, mut check: Check) -> Result<(), VcpuFault> {
        let touched = self.own_pages();
        let untouched = self.plan.share(self.state.index.into()).untouched;
        let all = touched + (untouched.end - untouched.start);
        if check.done >= all {
            return self.answer(check);
        }
        let seed = self.params.seed;
        let (address, good) = if check.done < touched {
            let (address, in_set) = self.touched(check.done);
            let kind = page_kind(seed, address, self.fill());
            match in_set {
                Some(number) => {
                    let found = self.memory.load_short(address)?;
                    check.found.writes_found = check.found.writes_found.wrapping_add(found.into());
                    let same = self.memory.holds(seed, address, kind, COUNTER)?;
                    (address, same && found == self.expected_counter(number)?)
                }
                None => (address, self.memory.holds(seed, address, kind, 0)?),
            }
        } else {
            let number = untouched.start + (check.done - touched);
            let address = self.plan.untouched_address(number);
            (
                address,
                self.memory.holds(seed, address, PageKind::Zero, 0)?,
            )
        };
        check.done = check.done.saturating_add(1);
        check.found.pages = check.found.pages.wrapping_add(1);
        note(&mut check.found, address, good);
        self.state.check = Some(check);
        self.stamp(0, Gaps::Work)
    }

    fn answer(&mut self, check: Check) -> Result<(), VcpuFault> {
        let mut found = check.found;
        // Counters have 32 bits: whole turns of one of them are no difference.
        if found.writes_done.wrapping_sub(found.writes_found) & COUNTER == 0 {
            found.writes_found = found.writes_done;
        }
        // The stats are memory, too: they must agree with what the thread itself remembers.
        let same = self.books.writes()? == self.state.writes;
        note(&mut found, self.books.address(), same);
        found.elapsed_ns = now_ns().saturating_sub(check.begun_ns);
        self.state.due_ns = now_ns();
        self.books.set_state(VcpuState::Ready)?;
        self.books.set_check(&found)
    }

    /// How often a page of the working set was written, as memory or the order of writes has it.
    fn expected_counter(&self, number: u64) -> Result<u32, VcpuFault> {
        if self.pattern() != Pattern::Sequential {
            return self.memory.load_short(self.counter(number));
        }
        let first = self.plan.share(self.state.index.into()).working.start;
        let begun = number - first < self.state.cursor;
        Ok(self.state.passes.wrapping_add(begun.into()) as u32)
    }

    /// Address of one of the thread's own touched pages, and its number if it is of the working
    /// set.
    fn touched(&self, own: u64) -> (u64, Option<u64>) {
        let share = self.plan.share(self.state.index.into());
        let working = share.working.end - share.working.start;
        if own < working {
            let number = share.working.start + own;
            (self.plan.touched_address(number), Some(number))
        } else {
            let number = share.still.start + (own - working);
            (self.plan.touched_address(number), None)
        }
    }

    fn own_pages(&self) -> u64 {
        let share = self.plan.share(self.state.index.into());
        share.working.end - share.working.start + share.still.end - share.still.start
    }

    fn working(&self) -> u64 {
        let share = self.plan.share(self.state.index.into());
        share.working.end - share.working.start
    }

    fn counter(&self, number: u64) -> u64 {
        self.params.counters.start + number * size_of::<u32>() as u64
    }

    // The plan refuses unknown numbers.
    fn pattern(&self) -> Pattern {
        Pattern::from_number(self.params.pattern).unwrap_or(Pattern::Sequential)
    }

    fn fill(&self) -> Fill {
        Fill::from_number(self.params.fill).unwrap_or(Fill::Zero)
    }

    /// A number below `bound`, which is not 0.
    fn any(&mut self, bound: u64) -> u64 {
        let random = &mut self.state.random;
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        ((u128::from(*random) * u128::from(bound)) >> 64) as u64
    }
}

fn note(found: &mut CheckResult, address: u64, good: bool) {
    if !good {
        if found.bad_pages == 0 {
            found.first_bad = address;
        }
        found.bad_pages = found.bad_pages.saturating_add(1);
    }
}

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}
