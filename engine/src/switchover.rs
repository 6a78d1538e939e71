//! The pause, step by step: which moment ends which step.

use std::time::{Duration, Instant};

use crate::report::SwitchoverFigures;

/// A moment of the switchover on the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    PauseAsked,
    Paused,
    Harvested,
    Exported,
    LastRoundSent,
    HandedOver,
    Running,
}

/// Takes the moments down as they come.
#[derive(Debug, Default)]
pub(crate) struct SwitchoverClock {
    moments: Vec<(Mark, Instant)>,
}

impl SwitchoverClock {
    /// The moment is now. The first one of its kind counts.
    pub(crate) fn mark(&mut self, mark: Mark) {
        if self.at(mark).is_none() {
            self.moments.push((mark, Instant::now()));
        }
    }

    /// The moment is now, if `earlier` has come already.
    pub(crate) fn mark_after(&mut self, earlier: Mark, mark: Mark) {
        if self.at(earlier).is_some() {
            self.mark(mark);
        }
    }

    /// When that was.
    pub(crate) fn at(&self, mark: Mark) -> Option<Instant> {
        self.moments
            .iter()
            .find(|(own, _)| *own == mark)
            .map(|(_, at)| *at)
    }

    fn between(&self, from: Mark, to: Mark) -> Duration {
        match (self.at(from), self.at(to)) {
            (Some(from), Some(to)) => to.saturating_duration_since(from),
            _ => Duration::ZERO,
        }
    }

    /// The steps; zero where a step was not reached.
    pub(crate) fn figures(&self) -> SwitchoverFigures {
        SwitchoverFigures {
            pause: self.between(Mark::PauseAsked, Mark::Paused),
            harvest: self.between(Mark::Paused, Mark::Harvested),
            export: self.between(Mark::Harvested, Mark::Exported),
            last_round: self.between(Mark::Harvested, Mark::LastRoundSent),
            prepare: self.between(Mark::LastRoundSent, Mark::HandedOver),
            hand_over: self.between(Mark::HandedOver, Mark::Running),
            total: self.between(Mark::PauseAsked, Mark::Running),
        }
    }
}
