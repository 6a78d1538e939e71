//! What the link costs, from what sending took. It knows times and bytes, no pages.

use std::time::Duration;

use super::rule::StreamCost;

/// One hand-over of sealed frames to the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Bytes of pages with data that the frames are made of.
    pub raw_bytes: usize,
    /// Bytes handed over.
    pub wire_bytes: usize,
    /// Since the hand-over before, or since the round began: what the thread did by itself.
    pub worked: Duration,
    /// How long the hand-over kept the thread: it copies, or waits for the link.
    pub kept: Duration,
}

/// Enough bytes for a measurement: more than a link has under way, so that it has shown its pace.
const WINDOW_BYTES: usize = 2 << 20;

/// Fewest bytes of a measurement on a link that takes [`WINDOW_TIME`] for them.
const WINDOW_BYTES_MIN: usize = 512 << 10;

/// Enough time for a measurement.
const WINDOW_TIME: Duration = Duration::from_millis(20);

/// Most seconds per byte that a hand-over is taken to cost by itself: the copy to a socket. What is
/// beyond it is waiting.
const SEND_MAX: f64 = 0.3e-9;

/// How much the last measurement counts.
const WEIGHT: f64 = 0.5;

/// A measurement: sums over some hand-overs.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    pub(super) raw_bytes: f64,
    pub(super) wire_bytes: f64,
    pub(super) worked: f64,
    pub(super) encoded: f64,
    pub(super) kept: f64,
}

impl Window {
    pub(super) fn add(&mut self, sent: &Sent) {
        self.raw_bytes += sent.raw_bytes as f64;
        self.wire_bytes += sent.wire_bytes as f64;
        self.worked += sent.worked.as_secs_f64();
        self.kept += sent.kept.as_secs_f64();
    }

    /// Whether it says enough.
    pub(super) fn is_full(&self) -> bool {
        let slow = self.elapsed() >= WINDOW_TIME.as_secs_f64()
            && self.wire_bytes >= WINDOW_BYTES_MIN as f64;
        slow || self.wire_bytes >= WINDOW_BYTES as f64
    }

    pub(super) fn elapsed(&self) -> f64 {
        self.worked + self.kept
    }

    /// Seconds per byte sent, for whatever reason.
    pub(super) fn pace(&self) -> f64 {
        self.elapsed() / self.wire_bytes.max(1.0)
    }
}

/// What is known of the stream's costs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Meter {
    cost: Option<StreamCost>,
    /// Seconds per byte of the last measurements of raw pages: the fastest counts, since a thread
    /// that was interrupted makes a link look slow, and nothing makes it look fast.
    paces: [f64; PACES],
    /// The last measurements of encoded pages taken together: streams that share a link take turns.
    encoded: [Option<Window>; PACES],
}

/// Measurements in a row that are needed to find that a link is another one.
const PACES: usize = 3;

/// What a measurement under a codec says of the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Finding {
    /// The thread waits for what it was expected to wait for.
    Expected,
    /// The thread never waits: the link may be faster than was known.
    ThreadBound,
    /// Bytes take longer than the link took for them before: it became slower, or the target can't
    /// unpack as fast.
    Slower,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            cost: None,
            paces: [0.0; PACES],
            encoded: [None; PACES],
        }
    }

    /// What the last encoded pages took, where enough of them were measured.
    pub(super) fn encoded(&self) -> Option<Window> {
        together(&self.encoded)
    }

    /// Other pages follow than those that were measured.
    pub(super) fn begin_choice(&mut self) {
        self.encoded = [None; PACES];
    }

    /// The next measurement of raw pages counts by itself.
    pub(super) fn begin_probe(&mut self) {
        self.paces.fill(f64::INFINITY);
    }

    /// `None` before the first measurement.
    pub(super) fn cost(&self) -> Option<StreamCost> {
        self.cost
    }

    /// Learns from pages that went raw: the link takes no longer than all of it did.
    pub(super) fn learn_raw(&mut self, window: &Window) {
        self.paces.rotate_right(1);
        self.paces[0] = window.pace();
        let send = (window.kept / window.wire_bytes.max(1.0)).min(SEND_MAX);
        let cost = StreamCost {
            other: self.other(window),
            send: self.cost.map_or(send, |cost| send.min(cost.send)),
            link: self.paces.iter().copied().fold(f64::INFINITY, f64::min),
        };
        self.cost = Some(cost);
    }

    /// Learns from pages that were encoded, and says what that means.
    pub(super) fn learn_encoded(&mut self, window: &Window) -> Finding {
        let other = self.other(window);
        let Some(cost) = &mut self.cost else {
            self.learn_raw(window);
            return Finding::Expected;
        };
        cost.other = other;
        self.encoded.rotate_right(1);
        self.encoded[0] = Some(*window);
        let Some(window) = together(&self.encoded) else {
            return Finding::Expected;
        };
        let pace = window.pace();
        let waited = window.kept - cost.send * window.wire_bytes;
        if waited < WAITS_FROM * window.elapsed() {
            // It takes bytes at least as fast as they came.
            cost.link = cost.link.min(pace);
            self.paces.fill(cost.link);
            return Finding::ThreadBound;
        }
        if pace > cost.link * SLOWER_FROM {
            return Finding::Slower;
        }
        let weight = if pace < cost.link / SLOWER_FROM {
            1.0
        } else {
            WEIGHT
        };
        cost.link += weight * (pace - cost.link);
        self.paces.fill(cost.link);
        Finding::Expected
    }

    fn other(&self, window: &Window) -> f64 {
        let seen = (window.worked - window.encoded).max(0.0) / window.raw_bytes.max(1.0);
        self.cost
            .map_or(seen, |cost| cost.other + WEIGHT * (seen - cost.other))
    }
}

/// The sum of all, where none is missing.
fn together(windows: &[Option<Window>]) -> Option<Window> {
    windows.iter().try_fold(Window::default(), |sum, window| {
        let window = (*window)?;
        Some(Window {
            raw_bytes: sum.raw_bytes + window.raw_bytes,
            wire_bytes: sum.wire_bytes + window.wire_bytes,
            worked: sum.worked + window.worked,
            encoded: sum.encoded + window.encoded,
            kept: sum.kept + window.kept,
        })
    })
}

/// Share of the time that a thread waits which is held up by its link.
const WAITS_FROM: f64 = 0.1;

/// From how many times the known pace on a link counts as another one.
pub(super) const SLOWER_FROM: f64 = 1.25;
