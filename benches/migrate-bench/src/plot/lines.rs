//! What the lines and bars of a picture say: computed from the samples alone, in milliseconds,
//! bytes and bytes a second.

use crate::timeline::Sample;

const PAGE_BYTES: f64 = limosa_pages::PAGE_BYTES as f64;

/// A value at a time in milliseconds.
pub(super) type Point = (f64, f64);

/// One round, from its first to its last sample.
#[derive(Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) round: u32,
    pub(super) from_ms: f64,
    pub(super) to_ms: f64,
    pub(super) sent_bytes: u64,
}

/// The rate of sending as steps, each the mean over at least `shortest_ms`.
pub(super) fn sent(samples: &[Sample], shortest_ms: f64) -> Vec<Point> {
    let mut ends: Vec<&Sample> = samples.first().into_iter().collect();
    for sample in samples {
        let is_due = |last: &&Sample| {
            let took = sample.ms - last.ms;
            took > 0.0 && took >= shortest_ms
        };
        if ends.last().is_some_and(is_due) {
            ends.push(sample);
        }
    }
    // What is left over belongs to the last step.
    if ends.len() > 1 {
        ends.pop();
    }
    ends.extend(samples.last());
    let steps = ends.windows(2).filter_map(|pair| {
        let (bytes, ms) = (
            pair[1].sent_bytes.saturating_sub(pair[0].sent_bytes),
            pair[1].ms - pair[0].ms,
        );
        let rate = (ms > 0.0).then(|| bytes as f64 * 1e3 / ms)?;
        Some([(pair[0].ms, rate), (pair[1].ms, rate)])
    });
    steps.flatten().collect()
}

/// The rate at which the guest dirtied memory, which a round knows as it begins: it was measured
/// over the round before, and is drawn there.
pub(super) fn dirtied(samples: &[Sample]) -> Vec<Point> {
    let starts: Vec<&Sample> = rounds(samples).filter_map(<[Sample]>::first).collect();
    let steps = starts.windows(2).filter_map(|pair| {
        let rate = pair[1].dirty_pages_s? * PAGE_BYTES;
        Some([(pair[0].ms, rate), (pair[1].ms, rate)])
    });
    steps.flatten().collect()
}

/// What was still to be read, round by round.
pub(super) fn remaining(samples: &[Sample]) -> Vec<Vec<Point>> {
    let point = |sample: &Sample| (sample.ms, sample.remaining_pages as f64 * PAGE_BYTES);
    let lines = rounds(samples).map(|own| own.iter().map(point).collect());
    lines.collect()
}

/// The longest gap that a vCPU saw between two samples, in milliseconds, as steps.
pub(super) fn stalls(samples: &[Sample]) -> Vec<Point> {
    let steps = samples.windows(2).filter_map(|pair| {
        let stall = pair[1].stall_ms?;
        Some([(pair[0].ms, stall), (pair[1].ms, stall)])
    });
    steps.flatten().collect()
}

/// The share of the time that each vCPU might run, as steps; none of a guest that was not held back
/// so.
pub(super) fn run_shares(samples: &[Sample]) -> Vec<Point> {
    if samples.iter().all(|sample| sample.run_share.is_none()) {
        return Vec::new();
    }
    let steps = samples.windows(2).map(|pair| {
        let share = pair[0].run_share.unwrap_or(1.0);
        [(pair[0].ms, share), (pair[1].ms, share)]
    });
    steps.flatten().collect()
}

/// What each vCPU might dirty a second, from when it was held to that: each step a line of its own.
pub(super) fn limits(samples: &[Sample]) -> Vec<Vec<Point>> {
    let runs = samples.windows(2).filter_map(|pair| {
        let limit = pair[0].dirty_limit_bytes_s? as f64;
        Some(vec![(pair[0].ms, limit), (pair[1].ms, limit)])
    });
    runs.collect()
}

/// When each round was, and what it sent.
pub(super) fn bars(samples: &[Sample]) -> Vec<Bar> {
    let bars = rounds(samples).filter_map(|own| {
        let (first, last) = (own.first()?, own.last()?);
        Some(Bar {
            round: first.round,
            from_ms: first.ms,
            to_ms: last.ms,
            sent_bytes: last.sent_bytes.saturating_sub(first.sent_bytes),
        })
    });
    bars.collect()
}

fn rounds(samples: &[Sample]) -> impl Iterator<Item = &[Sample]> {
    samples.chunk_by(|one, other| one.round == other.round)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(round: u32, ms: f64, sent_bytes: u64) -> Sample {
        Sample {
            ms,
            round,
            sent_bytes,
            send_gib_s: None,
            dirty_pages_s: (round > 0).then_some(f64::from(round)),
            remaining_pages: 3,
            run_share: None,
            dirty_limit_bytes_s: None,
            stall_ms: None,
        }
    }

    #[test]
    fn short_spans_are_taken_together() {
        let samples = [
            sample(0, 0.0, 0),
            sample(0, 10.0, 1000),
            sample(0, 11.0, 9000),
            sample(1, 20.0, 9000),
            sample(1, 21.0, 9100),
        ];
        // 9 kB in 20 ms, and what is left over joins it.
        let rate = 9100.0 * 1e3 / 21.0;
        assert_eq!(sent(&samples, 20.0), [(0.0, rate), (21.0, rate)]);
        let steps = sent(&samples, 10.0);
        assert_eq!(steps[..2], [(0.0, 1e5), (10.0, 1e5)]);
        assert_eq!(steps[2..], [(10.0, 8.1e6 / 11.0), (21.0, 8.1e6 / 11.0)]);
        assert_eq!(sent(&samples[..1], 10.0), []);
        assert_eq!(sent(&[], 10.0), []);
    }

    #[test]
    fn dirtying_is_drawn_over_the_round_that_it_was_measured_in() {
        let samples = [sample(0, 5.0, 0), sample(1, 10.0, 0), sample(2, 12.0, 0)];
        let pages = PAGE_BYTES;
        assert_eq!(
            dirtied(&samples),
            [
                (5.0, pages),
                (10.0, pages),
                (10.0, 2.0 * pages),
                (12.0, 2.0 * pages)
            ]
        );
    }

    #[test]
    fn what_was_done_to_the_guest_is_drawn_from_then_on() {
        let free = sample(0, 0.0, 0);
        let slowed = Sample {
            run_share: Some(0.25),
            dirty_limit_bytes_s: Some(4096),
            stall_ms: Some(7.5),
            ..sample(1, 10.0, 0)
        };
        let last = Sample {
            ms: 20.0,
            ..slowed.clone()
        };
        let samples = [free, slowed, last];
        assert_eq!(
            run_shares(&samples),
            [(0.0, 1.0), (10.0, 1.0), (10.0, 0.25), (20.0, 0.25)]
        );
        assert_eq!(limits(&samples), [[(10.0, 4096.0), (20.0, 4096.0)]]);
        assert_eq!(
            stalls(&samples),
            [(0.0, 7.5), (10.0, 7.5), (10.0, 7.5), (20.0, 7.5)]
        );
        assert_eq!(run_shares(&samples[..1]), []);
    }

    #[test]
    fn rounds_are_apart() {
        let samples = [
            sample(0, 5.0, 0),
            sample(0, 9.0, 70),
            sample(1, 10.0, 70),
            sample(1, 10.0, 75),
        ];
        let bar = |round, from_ms, to_ms, sent_bytes| Bar {
            round,
            from_ms,
            to_ms,
            sent_bytes,
        };
        assert_eq!(
            bars(&samples),
            [bar(0, 5.0, 9.0, 70), bar(1, 10.0, 10.0, 5)]
        );
        let lines = remaining(&samples);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
    }

    proptest! {
        /// Whatever is taken together: what is below the line is what was sent.
        #[test]
        fn nothing_sent_is_lost(
            steps in prop::collection::vec((0..40_u32, 0..1_000_000_u64), 2..60),
            shortest_ms in 0.0..100.0_f64,
        ) {
            let (mut ms, mut bytes) = (0, 0);
            let samples: Vec<Sample> = steps.iter().map(|(took, own)| {
                ms += took;
                // What is sent takes time.
                bytes += if *took > 0 { *own } else { 0 };
                sample(0, f64::from(ms), bytes)
            }).collect();
            let (first, last) = (&samples[0], &samples[samples.len() - 1]);
            let points = sent(&samples, shortest_ms);
            let area: f64 = points.chunks(2).map(|step| {
                (step[1].0 - step[0].0) * step[0].1 / 1e3
            }).sum();
            let total = (last.sent_bytes - first.sent_bytes) as f64;
            prop_assert!((area - total).abs() <= total * 1e-9 + 1e-6, "{area} of {total}");
            if last.ms - first.ms >= shortest_ms {
                for step in points.chunks(2) {
                    prop_assert!(step[1].0 - step[0].0 >= shortest_ms, "{step:?}");
                }
            }
        }
    }
}
