//! What the rounds so far have taught: how fast pages reach the target, how fast the guest dirties
//! them, and what a pause costs besides.

use core::time::Duration;

use limosa_pages::{PAGE_BYTES, PageCount};
use limosa_wire::{FRAME_HEADER_BYTES, RECORD_BYTES};

use crate::config::SessionConfig;
use crate::round::{Harvest, Rehearsal, RoundReport};
use crate::timers::Timestamp;

/// A round with fewer bytes says more about latency than about the rate.
const TELLING_BYTES: u64 = 4 << 20;
/// Most bytes of one page on the wire: the page, a frame's header and a record of its own.
const WIRE_BYTES_PER_PAGE_MAX: f64 = (PAGE_BYTES + FRAME_HEADER_BYTES + RECORD_BYTES) as f64;
/// Messages of a switchover that wait for an answer: the state, and the hand-over.
const SWITCHOVER_TURNS: u32 = 2;

/// Rates and costs, as measured.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Rates {
    downtime_max: Duration,
    send_bytes_per_second: f64,
    wire_bytes_per_page: f64,
    dirty_pages_per_second: f64,
    /// How long a round goes on when all is handed over, until the target says that it landed: the
    /// way there and back. None before anything was measured.
    turnaround: Option<Duration>,
    /// Short rounds that it was measured by.
    tails: u32,
    assumed_cost: Duration,
    rehearsal: Option<Rehearsal>,
    last_harvest: Timestamp,
    round_began: Timestamp,
}

impl Rates {
    pub(crate) fn new(config: &SessionConfig) -> Self {
        Self {
            downtime_max: config.downtime_max,
            send_bytes_per_second: 0.0,
            wire_bytes_per_page: PAGE_BYTES as f64,
            dirty_pages_per_second: 0.0,
            turnaround: None,
            tails: 0,
            assumed_cost: config.switchover_cost,
            rehearsal: None,
            last_harvest: Timestamp::default(),
            round_began: Timestamp::default(),
        }
    }

    /// Another budget holds from now on.
    pub(crate) const fn set_downtime_max(&mut self, downtime_max: Duration) {
        self.downtime_max = downtime_max;
    }

    /// From now on writes count towards the next harvest.
    pub(crate) const fn tracking_began(&mut self, now: Timestamp) {
        self.last_harvest = now;
    }

    /// A round is about to be sent.
    pub(crate) const fn round_began(&mut self, now: Timestamp) {
        self.round_began = now;
    }

    /// A pause was tried out.
    pub(crate) const fn rehearsed(&mut self, rehearsal: Option<Rehearsal>) {
        self.rehearsal = rehearsal;
    }

    /// Learns from a round that has landed by now. What counts is when the target had it, not when
    /// the sockets had taken it: for as long will the last round hold the guest up.
    pub(crate) fn landed(&mut self, report: &RoundReport, now: Timestamp) {
        let since = now.since(self.round_began).saturating_sub(report.idle);
        let took = since.max(report.elapsed);
        let is_telling = report.wire_bytes >= TELLING_BYTES;
        let sending = match self.send_bytes_per_second {
            rate if rate > 0.0 => report.wire_bytes as f64 / rate,
            _ => 0.0,
        };
        let waited = took.as_secs_f64() - sending;
        let waited = Duration::try_from_secs_f64(waited).unwrap_or_default();
        // What comes after the last byte was handed over is also what sockets still held.
        let tail = took.saturating_sub(report.elapsed).min(waited);
        self.learn_turnaround(tail, is_telling);
        if took > Duration::ZERO {
            // A round that says little about the rate still shows that it is not lower.
            self.send_bytes_per_second = match is_telling {
                true => report.wire_bytes as f64 / took.as_secs_f64(),
                false => {
                    let waited = self.turnaround().min(took / 2);
                    let rate = report.wire_bytes as f64 / (took - waited).as_secs_f64();
                    rate.max(self.send_bytes_per_second)
                }
            };
        }
        let data_pages = report.pages.data();
        if data_pages > 0 {
            // In rounds of mostly zero pages the few others would seem to take what the zeros did.
            let per_page = report.wire_bytes as f64 / data_pages as f64;
            self.wire_bytes_per_page = per_page.min(WIRE_BYTES_PER_PAGE_MAX);
        }
    }

    /// A round took so much longer than its pages did.
    fn learn_turnaround(&mut self, tail: Duration, is_telling: bool) {
        self.turnaround = match (self.turnaround, is_telling) {
            (None, true) => None,
            (Some(known), true) => Some(known.min(tail)),
            (Some(known), false) if self.tails > 0 => Some((known + tail) / 2),
            (Some(known), false) => Some(known.min(tail)),
            (None, false) => Some(tail),
        };
        self.tails += u32::from(!is_telling);
    }

    /// The page streams are being opened.
    pub(crate) const fn binding_began(&mut self, now: Timestamp) {
        self.round_began = now;
    }

    /// They are bound: a first idea of how soon the target answers.
    pub(crate) const fn bound(&mut self, now: Timestamp) {
        self.turnaround = Some(now.since(self.round_began));
    }

    /// Learns from a harvest: what was written since the last one, and what those pages are written
    /// that were held back, of which nothing can be seen.
    pub(crate) fn harvested(&mut self, harvest: &Harvest, now: Timestamp) {
        let interval = now.since(self.last_harvest).as_secs_f64().max(1e-6);
        self.last_harvest = now;
        let fresh = harvest.left.get().saturating_sub(harvest.held.get());
        self.dirty_pages_per_second =
            fresh as f64 / interval + harvest.held_pages_per_second as f64;
    }

    /// Time that the sending of so many pages takes.
    pub(crate) fn sending(&self, pages: f64) -> Duration {
        match self.send_bytes_per_second {
            rate if rate > 0.0 => {
                let seconds = pages * self.wire_bytes_per_page / rate;
                Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
            }
            // Nothing was ever sent, so nothing is known but that it takes no time.
            _ => Duration::ZERO,
        }
    }

    /// Pages that can be sent in that time.
    pub(crate) fn sendable(&self, time: Duration) -> f64 {
        time.as_secs_f64() * self.send_bytes_per_second / self.wire_bytes_per_page
    }

    /// Time that a round of so many pages takes, until it has landed.
    pub(crate) fn round(&self, pages: f64) -> Duration {
        self.turnaround().saturating_add(self.sending(pages))
    }

    /// What a round takes besides sending.
    fn turnaround(&self) -> Duration {
        self.turnaround.unwrap_or_default()
    }

    /// What a pause takes besides sending pages, as measured where a pause was tried out.
    fn switchover_cost(&self) -> Duration {
        let messages = self.turnaround().saturating_mul(SWITCHOVER_TURNS);
        self.switchover_work().saturating_add(messages)
    }

    /// The same without a wait for messages.
    fn switchover_work(&self) -> Duration {
        self.rehearsal.map_or(self.assumed_cost, |rehearsal| {
            // What the target does to put the state in place is about what taking it takes here.
            let export = rehearsal.export.saturating_mul(2);
            rehearsal.pause.saturating_add(export)
        })
    }

    /// What pausing the guest now would take with so many pages left.
    pub(crate) fn pause(&self, left: f64) -> Duration {
        self.switchover_cost().saturating_add(self.sending(left))
    }

    /// The least that a pause can take, with so many pages left: its messages take no time.
    pub(crate) fn least_pause(&self, left: f64) -> Duration {
        self.switchover_work().saturating_add(self.sending(left))
    }

    /// What of it is held against the budget. A budget below the cost could never be met: then the
    /// cost is half of what the budget allows.
    pub(crate) fn charged(&self, left: f64) -> Duration {
        let cost = self.switchover_cost().min(self.downtime_max / 2);
        cost.saturating_add(self.sending(left))
    }

    /// What of the budget is left for pages.
    pub(crate) fn spare(&self) -> Duration {
        self.downtime_max.saturating_sub(self.charged(0.0))
    }

    /// Pages that will have been dirtied when a round of `left` pages has landed.
    pub(crate) fn left_after(&self, left: f64) -> f64 {
        self.dirty_pages_per_second * self.round(left).as_secs_f64()
    }

    pub(crate) const fn downtime_max(&self) -> Duration {
        self.downtime_max
    }

    pub(crate) const fn dirty_pages_per_second(&self) -> f64 {
        self.dirty_pages_per_second
    }

    /// Bytes of pages that the guest dirties a second.
    pub(crate) fn dirty_bytes_per_second(&self) -> u64 {
        PageCount::new(self.dirty_pages_per_second as u64).bytes()
    }

    /// Bytes that reach the target a second.
    pub(crate) const fn send_bytes_per_second(&self) -> u64 {
        self.send_bytes_per_second as u64
    }

    /// The same with links slower and guests busier by `factor`, or the other way round below 1.
    pub(crate) fn worse(&self, factor: f64) -> Self {
        let assumed_cost = scaled(self.switchover_work(), factor);
        Self {
            send_bytes_per_second: self.send_bytes_per_second / factor,
            dirty_pages_per_second: self.dirty_pages_per_second * factor,
            turnaround: self.turnaround.map(|time| scaled(time, factor)),
            assumed_cost,
            rehearsal: None,
            ..self.clone()
        }
    }
}

/// `time`, so many times.
pub(crate) fn scaled(time: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}
