//! The life of a vCPU: fill, then probe, dirty, check and print until the end of the world.

use crate::clock::{Clock, start_ticks};
use crate::cpu;
use crate::cpuid;
use crate::memory::{Own, add, field, load, mailbox, store};
use crate::pages::Pages;
use crate::plan::Plan;
use crate::probe::{Gaps, Probe};
use crate::protocol::{self, CATCH_UP_MAX_NS, Command, FLAG_SERIAL, Params, VcpuState};
use crate::serial;
use crate::stats::CheckResult;

/// Does all of it.
pub fn run(own: Own, params: &Params, plan: &Plan) -> ! {
    let clock = Clock::new(params);
    store(field!(own, tsc_khz), clock.khz);
    let mut worker = Worker {
        own,
        clock,
        vcpu_count: u64::from(params.vcpu_count),
        probe: Probe::new(own, clock),
        pages: Pages::new(params, plan, own.index),
        // A check that was posted before the vCPU was ready is answered when it is.
        sequence: 0,
    };
    let port = own.index == 0 && params.flags & FLAG_SERIAL != 0;
    if port {
        serial::start();
    }
    let fill_ns = worker.fill();
    let heartbeat = clock.counts(params.heartbeat_ns);
    let mut heart = port.then(|| {
        serial::answer(b'F', &[fill_ns]);
        Heart {
            period: heartbeat,
            next: cpu::time(),
        }
    });
    own.set_state(VcpuState::Ready);

    let sleeps = params.probe == protocol::Probe::Sleep.number();
    let tick = if sleeps {
        clock.counts(params.tick_ns)
    } else {
        0
    };
    let mut pacer = Pacer::new(params, clock, tick, worker.pages.working());
    if sleeps {
        start_ticks(params.apic_counts_per_tick);
    }
    // What came before this was no stall.
    worker.probe.stamp(0, Gaps::Work);
    loop {
        if sleeps {
            cpu::sleep();
        }
        let now = worker.probe.stamp(tick, Gaps::Stalls);
        let mut more = pacer.due(now);
        while more {
            worker.write();
            // A spinning vCPU looks at the clock after every page.
            more = sleeps && pacer.due(now);
        }
        if pacer.dropped > 0 {
            add(
                field!(own, writes_dropped),
                core::mem::take(&mut pacer.dropped),
            );
        }
        if worker.command() {
            pacer.restart(cpu::time());
        }
        if let Some(heart) = heart.as_mut().filter(|heart| heart.beats(now)) {
            heart.next = now + heart.period;
            worker.serve();
        }
    }
}

struct Worker<'a> {
    own: Own,
    clock: Clock,
    vcpu_count: u64,
    probe: Probe,
    pages: Pages<'a>,
    sequence: u64,
}

impl Worker<'_> {
    fn fill(&mut self) -> u64 {
        self.own.set_state(VcpuState::Filling);
        let start = cpu::time();
        let pages = self.pages.fill(&mut self.probe);
        let ns = self.clock.ns(cpu::time().saturating_sub(start));
        store(field!(self.own, fill_ns), ns);
        store(field!(self.own, fill_pages), pages);
        ns
    }

    #[inline(always)]
    fn write(&mut self) {
        self.pages.write();
        store(field!(self.own, writes), self.pages.writes);
    }

    /// Obeys a new command; says whether there was one.
    #[inline(always)]
    fn command(&mut self) -> bool {
        let sequence: u64 = load(mailbox!(sequence));
        if sequence == self.sequence {
            return false;
        }
        self.sequence = sequence;
        if load::<u32>(mailbox!(command)) == Command::Check.number() {
            self.check(sequence);
        }
        true
    }

    fn check(&mut self, sequence: u64) {
        self.own.set_state(VcpuState::Checking);
        if self.own.index == 0 {
            // What the processor says now: the guest may have moved since it looked last.
            cpuid::store_table();
        }
        let start = cpu::time();
        let mut result = self.pages.check(&mut self.probe);
        // The stats page is memory, too: it must agree with what the vCPU itself remembers.
        if load::<u64>(field!(self.own, writes)) != self.pages.writes {
            if result.bad_pages == 0 {
                result.first_bad = self.own.base;
            }
            result.bad_pages += 1;
        }
        let elapsed_ns = self.clock.ns(cpu::time().saturating_sub(start));
        self.own.set_state(VcpuState::Ready);
        self.own.set_check(CheckResult {
            sequence,
            elapsed_ns,
            ..result
        });
        self.probe.stamp(0, Gaps::Work);
    }

    /// Prints a dot and does what the serial port asks for.
    fn serve(&mut self) {
        serial::put(b'.');
        let asked = serial::take();
        match asked {
            Some(b'V') => {
                let sequence = load::<u64>(mailbox!(sequence)).wrapping_add(1);
                store(mailbox!(command), Command::Check.number());
                store(mailbox!(sequence), sequence);
                self.command();
                self.print_verdict(sequence);
            }
            Some(b'G') => serial::answer(b'G', &[self.probe.take_longest_ns()]),
            _ => {}
        }
        if asked.is_some() {
            // The many exits of an answer are the payload's own work.
            self.probe.stamp(0, Gaps::Work);
        }
    }

    fn print_verdict(&mut self, sequence: u64) {
        let (mut bad, mut first, mut writes) = (0, 0, 0);
        for index in 0..self.vcpu_count {
            let other = Own::of(index);
            while other.checked() != sequence {
                self.probe.stamp(0, Gaps::Work);
                cpu::relax();
            }
            let result: CheckResult = load(field!(other, check));
            if bad == 0 {
                first = result.first_bad;
            }
            bad += result.bad_pages + u64::from(result.writes_found != result.writes_done);
            writes += result.writes_done;
        }
        if bad == 0 {
            serial::answer(b'K', &[writes]);
        } else {
            serial::answer(b'X', &[bad, first]);
        }
    }
}

/// When the next dot is due.
struct Heart {
    period: u64,
    next: u64,
}

impl Heart {
    fn beats(&self, now: u64) -> bool {
        // Also when the counter went back by more than a period.
        now >= self.next || self.next - now > self.period
    }
}

/// When the next page write is due. A rate, not a debt.
struct Pacer {
    /// Counts between two writes, 8 bits after the point; 0 for none at all.
    period: u64,
    /// Longest delay that is caught up, likewise.
    slack: u64,
    start: u64,
    next: u64,
    dropped: u64,
}

impl Pacer {
    fn new(params: &Params, clock: Clock, tick: u64, own_pages: u64) -> Self {
        let rate = u128::from(params.dirty_pages_per_second);
        let second = u128::from(clock.khz) * 1000;
        let period = (second * u128::from(params.vcpu_count)) << 8;
        let period = period.checked_div(rate).unwrap_or(0) as u64;
        let idle = rate == 0 || own_pages == 0;
        Self {
            period: if idle { 0 } else { period.max(1) },
            slack: (clock.counts(CATCH_UP_MAX_NS) + tick) << 8,
            start: cpu::time(),
            next: 0,
            dropped: 0,
        }
    }

    /// Whether a write is due, which is then taken as done.
    #[inline(always)]
    fn due(&mut self, now: u64) -> bool {
        if self.period == 0 {
            return false;
        }
        let Some(passed) = now.checked_sub(self.start) else {
            self.restart(now);
            return false;
        };
        let passed = passed << 8;
        if passed < self.next {
            return false;
        }
        self.next += self.period;
        let late = passed.saturating_sub(self.next);
        if late > self.slack {
            self.dropped += late / self.period;
            self.next = passed;
        }
        true
    }

    /// Begins anew, with nothing due.
    fn restart(&mut self, now: u64) {
        self.start = now;
        self.next = self.period;
    }
}
