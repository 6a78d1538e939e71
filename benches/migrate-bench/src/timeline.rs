//! How a move went over time: samples of what was sent and what remains, and the events between
//! them. Taken on the source.

pub(crate) mod csv;
mod stalls;

use std::time::Duration;

use limosa::{GuestStep, Moment, Progress};
use serde::{Deserialize, Serialize};

use self::stalls::Stalls;
use crate::convergence::{dirty_limit, run_share};
use crate::run::gib_s;
use crate::units::ms;

/// Most samples that are kept, but for those that begin and end rounds.
const SAMPLES_MAX: usize = 500;
/// Least time between two samples of a round, until there are too many.
const EVERY: Duration = Duration::from_millis(20);
const PAGE_BYTES: u64 = 4096;

/// One move.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Timeline {
    pub(crate) samples: Vec<Sample>,
    pub(crate) events: Vec<TimedEvent>,
}

/// How far the move was at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Since the move began.
    pub(crate) ms: f64,
    pub(crate) round: u32,
    /// Everything given to the page streams so far.
    pub(crate) sent_bytes: u64,
    /// Since the sample before; none of the first, and of two at once.
    pub(crate) send_gib_s: Option<f64>,
    /// As the last harvest before the pause has it; none before there was one.
    pub(crate) dirty_pages_s: Option<f64>,
    /// Still to be read in this round.
    pub(crate) remaining_pages: u64,
    /// Share of the time that each vCPU may run; none where that is not limited.
    #[serde(default)]
    pub(crate) run_share: Option<f64>,
    /// What each vCPU may dirty a second; none where that is not limited.
    #[serde(default)]
    pub(crate) dirty_limit_bytes_s: Option<u64>,
    /// The longest gap that a vCPU saw since the sample before; none where nobody looked.
    #[serde(default)]
    pub(crate) stall_ms: Option<f64>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TimedEvent {
    /// Since the move began.
    pub(crate) ms: f64,
    pub(crate) what: What,
    /// Of a round: its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) round: Option<u32>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum What {
    RoundStarted,
    PauseAsked,
    Paused,
    /// The guest runs on the target, as far as the source knows.
    RunsOnTarget,
    /// The guest runs on at the source.
    RunsOnSource,
}

impl Timeline {
    /// When `what` happened first, since the move began.
    pub(crate) fn ms_of(&self, what: What) -> Option<f64> {
        let mut events = self.events.iter();
        events
            .find(|event| event.what == what)
            .map(|event| event.ms)
    }
}

/// Takes a timeline down as the move is observed. It keeps the first and the last moment of each
/// round whatever happens, and of a long move every second sample, every fourth, and so on.
#[derive(Debug)]
pub(crate) struct Recorder {
    taken: Vec<Progress>,
    events: Vec<TimedEvent>,
    stalls: Stalls,
    every: Duration,
}

impl Recorder {
    /// Nothing has happened yet.
    pub(crate) fn new() -> Self {
        Self {
            taken: Vec::new(),
            events: Vec::new(),
            stalls: Stalls::default(),
            every: EVERY,
        }
    }

    /// Takes a moment down.
    pub(crate) fn on_moment(&mut self, moment: &Moment) {
        match moment {
            Moment::Progress(progress) => self.take(*progress),
            Moment::Guest { step, elapsed } => self.events.push(TimedEvent {
                ms: ms(*elapsed),
                what: match step {
                    GuestStep::PauseAsked => What::PauseAsked,
                    GuestStep::Paused => What::Paused,
                    GuestStep::RunsThere => What::RunsOnTarget,
                    GuestStep::RunsHere => What::RunsOnSource,
                },
                round: None,
            }),
            Moment::Session(_) | Moment::Rest { .. } => {}
        }
    }

    /// Takes down what the guest saw since the last look: the longest gap of a vCPU.
    pub(crate) fn on_stall(&mut self, at: Duration, longest: Duration) {
        self.stalls.push(at, longest);
    }

    fn take(&mut self, progress: Progress) {
        let last = self.taken.last();
        if last.is_none_or(|last| last.round != progress.round) {
            self.events.push(TimedEvent {
                ms: ms(progress.elapsed),
                what: What::RoundStarted,
                round: Some(progress.round.get()),
            });
        }
        // What was taken too soon after its neighbour gives way to what follows.
        if let [.., before, last] = self.taken[..]
            && before.round == progress.round
            && last.round == progress.round
            && last.elapsed - before.elapsed < self.every
        {
            self.taken.pop();
        }
        self.taken.push(progress);
        let ends = 2 * self.rounds();
        if self.taken.len() > SAMPLES_MAX + ends {
            self.every *= 2;
            self.thin();
        }
    }

    fn rounds(&self) -> usize {
        let starts = self.events.iter();
        starts
            .filter(|event| event.what == What::RoundStarted)
            .count()
    }

    /// Leaves out what stands too close, but no round's first or last sample.
    fn thin(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        for (index, progress) in taken.iter().enumerate() {
            let is_of =
                |other: Option<&Progress>| other.is_some_and(|other| other.round == progress.round);
            let before = index.checked_sub(1).and_then(|before| taken.get(before));
            let is_end = !is_of(before) || !is_of(taken.get(index + 1));
            let is_due = |last: &Progress| progress.elapsed - last.elapsed >= self.every;
            if is_end || self.taken.last().is_none_or(is_due) {
                self.taken.push(*progress);
            }
        }
    }

    /// Leaves out what was taken just before the end of its round: the rate between two moments
    /// that close says little.
    fn settle_ends(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        for (index, progress) in taken.iter().enumerate() {
            let round_of = |index: Option<usize>| Some(taken.get(index?)?.round);
            let [before, own, end, next] = [
                index.checked_sub(1),
                Some(index),
                Some(index + 1),
                Some(index + 2),
            ]
            .map(round_of);
            let is_within = before == own && own == end && end != next;
            let is_close = |end: &Progress| end.elapsed - progress.elapsed < self.every / 2;
            if !(is_within && taken.get(index + 1).is_some_and(is_close)) {
                self.taken.push(*progress);
            }
        }
    }

    /// All that was taken down.
    pub(crate) fn timeline(mut self) -> Timeline {
        self.settle_ends();
        let before = std::iter::once(None).chain(self.taken.iter().map(Some));
        let samples = self.taken.iter().zip(before);
        let samples = samples.map(|(own, before)| Sample {
            ms: ms(own.elapsed),
            round: own.round.get(),
            sent_bytes: own.wire_bytes,
            send_gib_s: before.and_then(|before| rate_between(before, own)),
            dirty_pages_s: own
                .dirty_bytes_per_second
                .map(|rate| rate / PAGE_BYTES as f64),
            remaining_pages: own.remaining_bytes / PAGE_BYTES,
            run_share: run_share(own.slowdown),
            dirty_limit_bytes_s: dirty_limit(own.slowdown),
            stall_ms: {
                let start = before.map_or(Duration::ZERO, |before| before.elapsed);
                let longest = self.stalls.longest_within(start, own.elapsed);
                longest.map(ms)
            },
        });
        Timeline {
            samples: samples.collect(),
            events: self.events,
        }
    }
}

fn rate_between(before: &Progress, own: &Progress) -> Option<f64> {
    let time = own.elapsed.saturating_sub(before.elapsed);
    let bytes = own.wire_bytes.saturating_sub(before.wire_bytes);
    (!time.is_zero()).then(|| gib_s(bytes, ms(time)))
}

#[cfg(test)]
mod tests {
    use limosa::Round;
    use proptest::prelude::*;

    use super::*;

    fn progress(round: u32, at_us: u64, wire_bytes: u64, remaining: u64) -> Moment {
        Moment::Progress(Progress {
            round: Round::new(round),
            remaining_bytes: remaining * PAGE_BYTES,
            wire_bytes,
            bytes_per_second: 0.0,
            dirty_bytes_per_second: (round > 0).then_some(8192.0),
            slowdown: limosa::Slowdown::None,
            elapsed: Duration::from_micros(at_us),
        })
    }

    fn recorded(moments: &[Moment]) -> Timeline {
        let mut recorder = Recorder::new();
        moments.iter().for_each(|moment| recorder.on_moment(moment));
        recorder.timeline()
    }

    #[test]
    fn a_sample_has_the_longest_stall_since_the_one_before() {
        let mut recorder = Recorder::new();
        for (at_us, stall_us) in [(1_000, None), (30_000, Some(9_000)), (60_000, Some(700))] {
            if let Some(stall_us) = stall_us {
                let us = Duration::from_micros;
                recorder.on_stall(us(at_us - 10), us(stall_us));
            }
            recorder.on_moment(&progress(0, at_us, 0, 5));
        }
        let samples = recorder.timeline().samples;
        let stalls: Vec<_> = samples.iter().map(|sample| sample.stall_ms).collect();
        assert_eq!(stalls, [None, Some(9.0), Some(0.7)]);
    }

    #[test]
    fn rates_follow_from_neighbours() {
        let gib = 1 << 30;
        let timeline = recorded(&[
            progress(0, 1_000, 0, 300),
            progress(0, 501_000, gib, 200),
            progress(0, 751_000, 2 * gib, 0),
            progress(1, 751_000, 2 * gib, 7),
            progress(1, 752_000, 2 * gib, 0),
        ]);
        let rates = timeline.samples.iter().map(|sample| sample.send_gib_s);
        let expected = [None, Some(2.0), Some(4.0), None, Some(0.0)];
        assert_eq!(rates.collect::<Vec<_>>(), expected);
        let dirty = timeline.samples.iter().map(|sample| sample.dirty_pages_s);
        let expected = [None, None, None, Some(2.0), Some(2.0)];
        assert_eq!(dirty.collect::<Vec<_>>(), expected);
        let starts: Vec<_> = timeline.events.iter().map(|e| (e.ms, e.round)).collect();
        assert_eq!(starts, [(1.0, Some(0)), (751.0, Some(1))]);
    }

    #[test]
    fn a_sample_just_before_the_end_gives_way_to_it() {
        let timeline = recorded(&[
            progress(0, 0, 0, 300),
            progress(0, 20_000, 1 << 20, 200),
            progress(0, 40_000, 2 << 20, 100),
            progress(0, 41_000, 3 << 20, 0),
        ]);
        let times = timeline.samples.iter().map(|sample| sample.ms);
        assert_eq!(times.collect::<Vec<_>>(), [0.0, 20.0, 41.0]);
    }

    #[test]
    fn steps_of_the_guest_are_events() {
        let step = |step, us| Moment::Guest {
            step,
            elapsed: Duration::from_micros(us),
        };
        let timeline = recorded(&[
            step(GuestStep::PauseAsked, 1_000),
            step(GuestStep::Paused, 1_500),
            step(GuestStep::RunsThere, 4_000),
        ]);
        assert_eq!(timeline.ms_of(What::PauseAsked), Some(1.0));
        assert_eq!(timeline.ms_of(What::RunsOnTarget), Some(4.0));
        assert_eq!(timeline.ms_of(What::RunsOnSource), None);
        let json = serde_json::to_string(&timeline.events[1]).unwrap();
        assert_eq!(json, r#"{"ms":1.5,"what":"paused"}"#);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However long a move is: few samples, the ends of rounds among them, nothing invented.
        #[test]
        fn long_moves_keep_few_samples(
            rounds in prop::collection::vec((1..4000_u64, 1..40_000_u64), 1..20),
        ) {
            let (mut moments, mut at_us, mut sent) = (Vec::new(), 0, 0);
            let mut ends = Vec::new();
            for (round, (steps, step_us)) in (0..).zip(&rounds) {
                let first = (at_us, sent);
                for step in 0..=*steps {
                    moments.push(progress(round, at_us, sent, steps - step));
                    if step < *steps {
                        at_us += step_us;
                        sent += 4096;
                    }
                }
                ends.extend([first, (at_us, sent)]);
                at_us += 700;
            }
            let timeline = recorded(&moments);
            prop_assert!(timeline.samples.len() <= SAMPLES_MAX + 2 * rounds.len());
            for sample in &timeline.samples {
                let found = moments.iter().any(|moment| matches!(moment, Moment::Progress(own)
                    if ms(own.elapsed) == sample.ms && own.wire_bytes == sample.sent_bytes));
                prop_assert!(found, "{sample:?}");
            }
            for (at_us, sent) in ends {
                let at_ms = ms(Duration::from_micros(at_us));
                let kept = timeline.samples.iter();
                let kept = kept.filter(|own| own.ms == at_ms && own.sent_bytes == sent);
                prop_assert!(kept.count() >= 1, "{at_ms} ms is lost");
            }
        }
    }
}
