//! Choosing by measurement: what is known of each block, what is in force, and when to look again.
//! The rule itself is `rule.rs`.

use std::time::Duration;

use limosa_pages::PAGE_BYTES;
use limosa_wire::limits::BLOCK_PAGES_MAX;
use limosa_wire::{EncodingSet, PageEncoding};

use super::meter::{Finding, Meter, SLOWER_FROM, Sent, Window};
use super::rule::{Block, CodecCost, StreamCost};
use super::{BLOCKS_MAX, Herd, Samples};
use crate::codec::ZstdLevel;

/// The blocks that are weighed, each with the fewest seconds per byte that it is hoped to take.
const CANDIDATES: [(Block, f64); BLOCKS_MAX] = [
    (Block::Lz4, 0.4e-9),
    (Block::Zstd(ZstdLevel::MIN), 0.8e-9),
    (Block::Zstd(ZstdLevel::SLOW), 1.6e-9),
];

/// Fewest seconds per byte for which any encoding is hoped.
const ENCODE_MIN: f64 = CANDIDATES[0].1;

/// The same where raw pages pass through no buffer, which is where both ends share processors and
/// memory: what is encoded is lifted first, and whatever time that and unpacking take is not left
/// for the pages behind. Between two processes of one host, samples and trials took 7 % of a move
/// and more where its memory was slow, and never saved any.
const LIVE_ENCODE_MIN: f64 = 3.0e-9;

/// What finding out what changed of a page takes, in seconds per byte: about a copy of it.
const DELTA: f64 = 0.5e-9;

/// First and longest time between two looks at the link with raw pages, in seconds.
const PROBE_GAP_MIN: f64 = 0.5;
const PROBE_GAP_MAX: f64 = 8.0;

/// From how many times the pace that was known a slower one is looked at at once.
const NEWS_FROM: f64 = 2.0;

/// For how long a target that could not unpack in time is taken to be so, in seconds.
const LANDING_TIME: f64 = 4.0;

/// Between two samples of pages that go raw: pages, and seconds.
const EXPLORE_PAGES: u64 = 16 * BLOCK_PAGES_MAX as u64;
const EXPLORE_TIME: f64 = 0.01;

/// Samples that are taken of every run, until something is known.
const FIRST_SAMPLES: u32 = 8;

/// First number of pages between two trials of a block that is not in force: one run in 512.
const TRIAL_PAGES: u64 = 512 * BLOCK_PAGES_MAX as u64;

/// Runs of a trial. The fastest counts: others may have been interrupted.
const TRIAL_RUNS: u32 = 2;

/// How much the last of many observations counts.
const WEIGHT: f64 = 1.0 / 8.0;

/// How much one run counts in the share of runs that shrink.
const FIT_WEIGHT: f64 = 1.0 / 32.0;

/// What is known of a block.
#[derive(Clone, Copy, Debug)]
struct Known {
    block: Block,
    encode_hoped: f64,
    sample_count: u32,
    /// Share of pages that are in runs which shrink.
    fit: f64,
    /// What samples that shrink come to, on average, and the last one.
    sample_share: f64,
    sample_last: f64,
    /// What a run comes to, where its sample comes to 1.
    gain: f64,
    /// Seconds per byte of a run that shrinks.
    encode: Option<f64>,
    trial_runs: u32,
    trial_at: u64,
    trial_gap: u64,
    landing: Option<Landing>,
}

/// A target that held the stream up.
#[derive(Clone, Copy, Debug)]
struct Landing {
    /// Seconds per byte of pages.
    seconds: f64,
    /// Seconds per byte sent.
    pace: f64,
    until: f64,
}

impl Known {
    fn new((block, encode_hoped): (Block, f64)) -> Self {
        Self {
            block,
            encode_hoped,
            sample_count: 0,
            fit: 0.0,
            sample_share: 0.5,
            sample_last: 0.5,
            gain: 0.9,
            encode: None,
            trial_runs: 0,
            trial_at: 0,
            trial_gap: TRIAL_PAGES,
            landing: None,
        }
    }

    fn cost_with(&self, encode: f64, landing: f64) -> CodecCost {
        let share = (self.sample_share * self.gain).min(1.0);
        CodecCost {
            encode: self.fit * encode,
            share: 1.0 - self.fit * (1.0 - share),
            landing,
        }
    }

    /// `None` where it was never tried.
    fn cost(&self, link: f64, clock: f64) -> Option<CodecCost> {
        let held = self.landing.filter(|landing| {
            // Where the link is as slow as the target seemed to be, it was the link.
            clock < landing.until && landing.pace > link * SLOWER_FROM
        });
        let encode = self.encode?;
        Some(self.cost_with(encode, held.map_or(0.0, |landing| landing.seconds)))
    }

    /// What it is hoped to cost, where a quicker one takes `quicker` seconds per byte.
    fn hoped_cost(&self, quicker: f64) -> CodecCost {
        self.cost_with(self.encode_hoped.max(quicker), 0.0)
    }
}

/// What the runs that come now are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// They are encoded as chosen.
    Steady,
    /// They go raw, to see what the link takes.
    Probe,
}

#[derive(Debug)]
pub(super) struct Auto {
    known: Vec<Known>,
    reads_delta: bool,
    /// Fewest seconds per byte for which any encoding is hoped here.
    hoped_min: f64,
    /// What was chosen.
    current: Option<usize>,
    stage: Stage,
    meter: Meter,
    window: Window,
    /// The running measurement began with what was sent under another choice: it does not count.
    is_settling: bool,
    /// Seconds of the stream's own time.
    clock: f64,
    probe_gap: f64,
    probe_at: f64,
    /// Pages with data that went by.
    pages: u64,
    explored_pages: u64,
    explored_at: f64,
    /// What the run at hand is encoded as, if its sample shrinks.
    intended: Option<usize>,
}

impl Auto {
    pub(super) fn new(encodings: EncodingSet) -> Self {
        let readable = CANDIDATES
            .into_iter()
            .filter(|(block, _)| encodings.contains(block.encoding()));
        Self {
            known: readable.map(Known::new).collect(),
            reads_delta: encodings.contains(PageEncoding::Delta),
            hoped_min: ENCODE_MIN,
            current: None,
            stage: Stage::Steady,
            meter: Meter::new(),
            window: Window::default(),
            is_settling: false,
            clock: 0.0,
            probe_gap: PROBE_GAP_MIN,
            probe_at: 0.0,
            pages: 0,
            explored_pages: 0,
            explored_at: 0.0,
            intended: None,
        }
    }

    pub(super) fn expect_live(&mut self) {
        self.hoped_min = LIVE_ENCODE_MIN;
    }

    pub(super) fn may_encode(&self) -> bool {
        !self.known.is_empty()
    }

    /// What is in force now.
    fn in_force(&self) -> Option<usize> {
        self.current.filter(|_| self.stage == Stage::Steady)
    }

    pub(super) fn may_encode_next(&self) -> bool {
        self.in_force().is_some() || self.explores() || self.trial().is_some()
    }

    /// Whether the next run is at most sampled.
    pub(super) fn only_looks(&self) -> bool {
        self.in_force().is_none() && self.trial().is_none()
    }

    pub(super) fn wants_delta(&self) -> bool {
        let pays = |cost: StreamCost| cost.link > cost.other + DELTA;
        self.reads_delta && self.meter.cost().is_some_and(pays)
    }

    /// Whether any encoding can be hoped to save time.
    fn is_hopeful(&self) -> bool {
        let pays =
            |cost: StreamCost| cost.seconds_per_byte(&CodecCost::RAW) > cost.other + self.hoped_min;
        self.meter.cost().is_some_and(pays)
    }

    /// Whether every kind of sample is due.
    fn explores(&self) -> bool {
        let is_new = self
            .known
            .iter()
            .any(|known| known.sample_count < FIRST_SAMPLES);
        let is_due = self.pages - self.explored_pages >= EXPLORE_PAGES
            && self.clock - self.explored_at >= EXPLORE_TIME;
        (is_new || is_due) && self.is_hopeful()
    }

    /// A block that is not in force, to be tried because it could be better.
    fn trial(&self) -> Option<usize> {
        let cost = self.meter.cost()?;
        if self.stage == Stage::Probe || !self.is_hopeful() {
            return None;
        }
        let best = match self.current {
            None => CodecCost::RAW,
            Some(current) => self.known[current].cost(cost.link, self.clock)?,
        };
        let best = cost.seconds_per_byte(&best);
        let mut quicker = 0.0_f64;
        self.known.iter().enumerate().position(|(at, known)| {
            let hoped = cost.seconds_per_byte(&known.hoped_cost(quicker));
            quicker = known.encode.map_or(quicker, |encode| encode.max(quicker));
            let is_due =
                known.trial_runs < TRIAL_RUNS || self.pages - known.trial_at >= known.trial_gap;
            Some(at) != self.current && is_due && known.sample_count > 0 && hoped < best
        })
    }

    pub(super) fn next_run(&mut self, page_count: usize, herd: &mut Herd) -> Samples {
        let explores = self.explores();
        let trial = self.trial();
        self.pages += page_count as u64;
        let in_force = self.in_force();
        self.intended = trial.or(in_force);
        let looks = in_force.is_some() && herd.looks();
        let mut samples = Samples::default();
        if explores {
            (self.explored_pages, self.explored_at) = (self.pages, self.clock);
        }
        for (at, sample) in samples.iter_mut().enumerate().take(self.known.len()) {
            let wanted = explores || looks && in_force == Some(at) || trial == Some(at);
            *sample = wanted.then(|| self.sample_of(at));
        }
        // Levels share a sample.
        for at in 1..samples.len() {
            if samples[..at].contains(&samples[at]) {
                samples[at] = None;
            }
        }
        samples
    }

    /// Pages go by that are not looked at.
    pub(super) fn pass(&mut self, page_count: usize) {
        self.pages += page_count as u64;
    }

    fn sample_of(&self, at: usize) -> Block {
        match self.known[at].block {
            Block::Lz4 => Block::Lz4,
            Block::Zstd(_) => Block::Zstd(ZstdLevel::MIN),
        }
    }

    /// Whether samples of `block` decide how often is looked.
    pub(super) fn judges(&self, block: Block) -> bool {
        self.in_force()
            .is_some_and(|current| self.sample_of(current) == block)
    }

    /// What a run is to be encoded as, of which the sample as `block` shrinks.
    pub(super) fn block_of_run(&self, block: Block) -> Option<Block> {
        let intended = self.intended?;
        (self.sample_of(intended) == block).then(|| self.known[intended].block)
    }

    /// `share`: of a sample that shrinks.
    pub(super) fn sampled(&mut self, block: Block, share: Option<f64>, herd_runs: u32) {
        let runs = match self.in_force() {
            Some(_) => herd_runs,
            None => (EXPLORE_PAGES / u64::from(BLOCK_PAGES_MAX)) as u32,
        };
        let fit_weight = 1.0 - (1.0 - FIT_WEIGHT).powi(runs as i32);
        for at in 0..self.known.len() {
            if self.sample_of(at) != block {
                continue;
            }
            let known = &mut self.known[at];
            known.sample_count += 1;
            let weight = fit_weight.max(1.0 / f64::from(known.sample_count));
            let fits = f64::from(u8::from(share.is_some()));
            known.fit += weight * (fits - known.fit);
            if let Some(share) = share {
                known.sample_last = share;
                known.sample_share += WEIGHT * (share - known.sample_share);
            }
        }
    }

    pub(super) fn encoded(
        &mut self,
        block: Block,
        raw_bytes: usize,
        encoded_bytes: usize,
        elapsed: Duration,
    ) {
        self.window.encoded += elapsed.as_secs_f64();
        let Some(at) = self.known.iter().position(|known| known.block == block) else {
            return;
        };
        let (is_current, pages) = (self.current == Some(at), self.pages);
        let known = &mut self.known[at];
        let share = encoded_bytes as f64 / raw_bytes.max(1) as f64;
        if raw_bytes >= 4 * PAGE_BYTES {
            let gain = share / known.sample_last.max(0.01);
            known.gain += WEIGHT * (gain.min(2.0) - known.gain);
        }
        let seen = elapsed.as_secs_f64() / raw_bytes.max(1) as f64;
        if is_current {
            let encode = known.encode.unwrap_or(seen);
            known.encode = Some(encode + WEIGHT * (seen - encode));
            known.trial_at = pages;
            return;
        }
        if known.trial_runs >= TRIAL_RUNS {
            // Another trial, and a later one each time that it changes nothing.
            known.trial_runs = 0;
            known.trial_gap *= 2;
            known.encode = None;
        }
        known.encode = Some(known.encode.map_or(seen, |encode| encode.min(seen)));
        known.trial_runs += 1;
        known.trial_at = pages;
        // What the link takes for it is not what it takes for what is in force.
        self.is_settling = true;
    }

    /// Time that went to samples.
    pub(super) fn looked(&mut self, elapsed: Duration) {
        self.window.encoded += elapsed.as_secs_f64();
    }

    pub(super) fn begin_round(&mut self) {
        // The link has room again: it takes some bytes at once.
        self.is_settling |= self.current.is_some();
    }

    pub(super) fn sent(&mut self, sent: &Sent) {
        self.clock += (sent.worked + sent.kept).as_secs_f64();
        self.window.add(sent);
        if !self.window.is_full() {
            return;
        }
        let window = core::mem::take(&mut self.window);
        if core::mem::take(&mut self.is_settling) {
            return;
        }
        match self.in_force() {
            None => {
                self.meter.learn_raw(&window);
                self.end_probe();
            }
            Some(current) => {
                let finding = self.meter.learn_encoded(&window);
                self.weigh(current, &window, finding);
            }
        }
    }

    /// Chooses anew, raw pages having gone by.
    fn end_probe(&mut self) {
        let was_probe = self.stage == Stage::Probe;
        self.stage = Stage::Steady;
        let changed = self.choose();
        if was_probe && !changed {
            self.probe_gap = (self.probe_gap * 2.0).min(PROBE_GAP_MAX);
            self.probe_at = self.clock + self.probe_gap;
            self.is_settling = true;
        }
    }

    /// Chooses anew, pages encoded as the current choice having gone by.
    fn weigh(&mut self, current: usize, window: &Window, finding: Finding) {
        let window = self.meter.encoded().unwrap_or(*window);
        let (pace, until) = (window.pace(), self.clock + LANDING_TIME);
        let link = self.meter.cost().map_or(pace, |cost| cost.link);
        let known = &mut self.known[current];
        let before = known.landing.map_or(link, |landing| landing.pace);
        let is_news = pace > before * NEWS_FROM;
        known.landing = (finding == Finding::Slower).then(|| Landing {
            seconds: window.elapsed() / window.raw_bytes.max(1.0),
            pace,
            until,
        });
        let is_due = match finding {
            Finding::Expected => false,
            Finding::ThreadBound => self.clock >= self.probe_at,
            Finding::Slower => is_news || self.clock >= self.probe_at,
        };
        if is_due {
            self.stage = Stage::Probe;
            self.meter.begin_probe();
            self.meter.begin_choice();
            self.is_settling = true;
        } else if finding != Finding::Slower {
            self.choose();
        }
    }

    /// Takes what is best now; whether that is another choice.
    fn choose(&mut self) -> bool {
        let Some(cost) = self.meter.cost() else {
            return false;
        };
        let unknown = CodecCost {
            encode: f64::INFINITY,
            ..CodecCost::RAW
        };
        let costs: [CodecCost; BLOCKS_MAX] = core::array::from_fn(|at| {
            let known = self.known.get(at);
            let known = known.and_then(|known| known.cost(cost.link, self.clock));
            known.unwrap_or(unknown)
        });
        let best = cost.best(&costs[..self.known.len()], self.current);
        let changed = best != self.current;
        if changed {
            self.current = best;
            self.is_settling = true;
            self.window = Window::default();
            self.meter.begin_choice();
            self.probe_gap = PROBE_GAP_MIN;
            self.probe_at = self.clock + self.probe_gap;
            if let Some(best) = best {
                self.known[best].trial_gap = TRIAL_PAGES;
            }
        }
        changed
    }
}
