//! The pause step by step: both sides' moments on one clock, and what the guest itself saw of it.
//! It is of two processes of one host; others have no clock in common.

use std::collections::BTreeMap;

use limosa::{SourceMark, TargetMark};
use serde::{Deserialize, Serialize};

use crate::protocol::MarksNs;
use crate::report::Quantiles;
use crate::worker::ENTERED;

/// One switchover, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Switchover {
    pub(crate) steps_us: Steps,
    /// Of all steps: from the request to pause until the last vCPU went in on the target.
    pub(crate) sum_us: f64,
    /// What the guest saw; none where it has not said.
    pub(crate) guest_us: Option<f64>,
    /// What it saw more than the sum.
    pub(crate) rest_us: Option<f64>,
    /// Every moment since the request to pause, by name.
    pub(crate) source_us: BTreeMap<String, f64>,
    pub(crate) target_us: BTreeMap<String, f64>,
}

/// What follows one upon the other, each from where the one before ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Steps {
    /// Until every vCPU stands still.
    pub(crate) pause: f64,
    /// Until the last written pages are known.
    pub(crate) harvest: f64,
    /// Until the last of them is in place on the target; the state is taken and put beside that.
    pub(crate) last_pages: f64,
    /// Until the target is sure that it could run the guest.
    pub(crate) prepare: f64,
    /// Until the source has heard of it, has given the guest away, and the target has heard that.
    pub(crate) hand_over: f64,
    /// Until the last vCPU goes in.
    pub(crate) resume: f64,
}

impl Switchover {
    /// None where a moment is missing: the move did not come so far.
    pub(crate) fn of(source: &MarksNs, target: &MarksNs, gap_ms: Option<f64>) -> Option<Self> {
        let asked = *source.get(SourceMark::PauseAsked.name())?;
        let since = |marks: &MarksNs| -> BTreeMap<String, f64> {
            let marks = marks.iter();
            marks
                .map(|(name, at)| (name.clone(), (*at as f64 - asked as f64) / 1e3))
                .collect()
        };
        let (source_us, target_us) = (since(source), since(target));
        let here = |mark: SourceMark| source_us.get(mark.name()).copied();
        let there = |mark: TargetMark| target_us.get(mark.name()).copied();
        let ends = [
            here(SourceMark::Paused)?,
            here(SourceMark::Harvested)?,
            there(TargetMark::LastPageLanded)?,
            there(TargetMark::PreparedSent)?,
            there(TargetMark::HandOverReceived)?,
            target_us.get(ENTERED).copied()?,
        ];
        let sum_us = ends[5];
        let guest_us = gap_ms.map(|gap| gap * 1e3);
        Some(Self {
            steps_us: Steps {
                pause: ends[0],
                harvest: ends[1] - ends[0],
                last_pages: ends[2] - ends[1],
                prepare: ends[3] - ends[2],
                hand_over: ends[4] - ends[3],
                resume: ends[5] - ends[4],
            },
            sum_us,
            guest_us,
            rest_us: guest_us.map(|guest| guest - sum_us),
            source_us,
            target_us,
        })
    }
}

/// What the guest saw over a chain of moves; none where it saw nothing.
pub(crate) fn quantiles_of(gaps_ms: impl Iterator<Item = f64>) -> Option<Quantiles> {
    let mut gaps: Vec<f64> = gaps_ms.collect();
    gaps.sort_by(f64::total_cmp);
    let rank = |share: f64| {
        let rank = (share * gaps.len() as f64).ceil() as usize;
        gaps.get(rank.saturating_sub(1)).copied()
    };
    Some(Quantiles {
        p50: rank(0.5)?,
        p99: rank(0.99)?,
        max: gaps.last().copied()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(all: &[(&str, u64)]) -> MarksNs {
        let all = all.iter();
        all.map(|(name, at)| ((*name).into(), *at)).collect()
    }

    #[test]
    fn steps_follow_one_upon_the_other() {
        let source = marks(&[
            ("pause_asked", 1_000_000),
            ("paused", 1_050_000),
            ("harvested", 1_080_000),
        ]);
        let mut target = marks(&[
            ("announced", 999_000),
            ("last_page_landed", 1_300_000),
            ("prepared_sent", 1_400_000),
            ("hand_over_received", 1_600_000),
        ]);
        assert_eq!(Switchover::of(&source, &target, Some(1.0)), None);
        target.insert(ENTERED.into(), 1_700_000);
        let found = Switchover::of(&source, &target, Some(1.0)).unwrap();
        let Steps {
            pause,
            harvest,
            last_pages,
            prepare,
            hand_over,
            resume,
        } = found.steps_us;
        let steps = [pause, harvest, last_pages, prepare, hand_over, resume];
        assert_eq!(steps, [50.0, 30.0, 220.0, 100.0, 200.0, 100.0]);
        assert_eq!(steps.iter().sum::<f64>(), found.sum_us);
        assert_eq!((found.guest_us, found.rest_us), (Some(1000.0), Some(300.0)));
        assert_eq!(found.target_us["announced"], -1.0);
        let silent = Switchover::of(&source, &target, None).unwrap();
        assert_eq!((silent.guest_us, silent.rest_us), (None, None));
    }

    #[test]
    fn quantiles_are_values_that_came() {
        let found = quantiles_of((1..=200).rev().map(f64::from)).unwrap();
        assert_eq!((found.p50, found.p99, found.max), (100.0, 198.0, 200.0));
        let one = quantiles_of([7.0].into_iter()).unwrap();
        assert_eq!((one.p50, one.p99, one.max), (7.0, 7.0, 7.0));
        assert_eq!(quantiles_of([].into_iter()), None);
    }
}
