//! The pause, mark by mark, on either side, and which mark ends which step.

use std::time::{Duration, Instant};

use crate::report::SwitchoverFigures;

/// A moment of the switchover on the source, in the order in which they mostly come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceMark {
    /// The guest was asked to stand still: the downtime begins.
    PauseAsked,
    /// Every vCPU stands still.
    Paused,
    /// The last written pages are known.
    Harvested,
    /// The page streams have their part of the last round.
    LastRoundOrdered,
    /// The guest's state was taken, beside the last round.
    Exported,
    /// The kernel has the message with the state.
    StateSent,
    /// The page streams have given the kernel the last page.
    LastRoundSent,
    /// The target's word that the last round has landed.
    LandedHeard,
    /// The target's word that it could run the guest.
    PreparedHeard,
    /// The hand-over is about to leave.
    HandedOver,
    /// The target's word that the guest runs.
    Running,
}

impl SourceMark {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PauseAsked => "pause_asked",
            Self::Paused => "paused",
            Self::Harvested => "harvested",
            Self::LastRoundOrdered => "last_round_ordered",
            Self::Exported => "exported",
            Self::StateSent => "state_sent",
            Self::LastRoundSent => "last_round_sent",
            Self::LandedHeard => "landed_heard",
            Self::PreparedHeard => "prepared_heard",
            Self::HandedOver => "handed_over",
            Self::Running => "running_heard",
        }
    }
}

/// A moment of the switchover on the target, in the order in which they mostly come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetMark {
    /// The source's word that the last round comes, ahead of the pause.
    Announced,
    /// What the host can give now is known.
    Surveyed,
    /// The message with the guest's state is here.
    StateReceived,
    /// The state is in place.
    Restored,
    /// The last page is in place: every stream has passed the barrier of the last round.
    LastPageLanded,
    /// The source's totals of the last round are here.
    TotalsHeard,
    /// Nothing is missing.
    LedgerComplete,
    /// The word that the guest could run here is about to leave.
    PreparedSent,
    /// The hand-over is here.
    HandOverReceived,
    /// The guest was let run: its vCPUs are being woken.
    Resumed,
    /// The word that the guest runs is about to leave.
    RunningSent,
}

impl TargetMark {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Surveyed => "surveyed",
            Self::StateReceived => "state_received",
            Self::Restored => "restored",
            Self::LastPageLanded => "last_page_landed",
            Self::TotalsHeard => "totals_heard",
            Self::LedgerComplete => "ledger_complete",
            Self::PreparedSent => "prepared_sent",
            Self::HandOverReceived => "hand_over_received",
            Self::Resumed => "resumed",
            Self::RunningSent => "running_sent",
        }
    }
}

/// When each moment of a switchover came, on the clock of one side. Two processes of one host have
/// the same clock, so that their marks can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks<M>(Vec<(M, Instant)>);

impl<M> Default for Marks<M> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<M: Copy + PartialEq> Marks<M> {
    /// When that was; none of a moment that has not come.
    #[must_use]
    pub fn at(&self, mark: M) -> Option<Instant> {
        let found = self.0.iter().find(|(own, _)| *own == mark);
        found.map(|(_, at)| *at)
    }

    /// All moments that have come.
    pub fn iter(&self) -> impl Iterator<Item = (M, Instant)> {
        self.0.iter().copied()
    }

    /// The moment is now. The first one of its kind counts.
    pub(crate) fn mark(&mut self, mark: M) {
        if self.at(mark).is_none() {
            self.0.push((mark, Instant::now()));
        }
    }

    /// The moment is now, if `earlier` has come already.
    pub(crate) fn mark_after(&mut self, earlier: M, mark: M) {
        if self.at(earlier).is_some() {
            self.mark(mark);
        }
    }

    /// The moment was then. The last one of its kind counts.
    pub(crate) fn renew(&mut self, mark: M, at: Instant) {
        match self.0.iter_mut().find(|(own, _)| *own == mark) {
            Some((_, last)) => *last = at,
            None => self.0.push((mark, at)),
        }
    }

    fn between(&self, from: M, to: M) -> Duration {
        match (self.at(from), self.at(to)) {
            (Some(from), Some(to)) => to.saturating_duration_since(from),
            _ => Duration::ZERO,
        }
    }
}

impl Marks<SourceMark> {
    /// The steps; zero where a step was not reached.
    pub(crate) fn figures(&self) -> SwitchoverFigures {
        use SourceMark as Mark;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_mark_counts_unless_it_is_renewed() {
        let mut marks = Marks::default();
        marks.mark_after(SourceMark::Paused, SourceMark::Harvested);
        assert_eq!(marks.at(SourceMark::Harvested), None);
        marks.mark(SourceMark::Paused);
        let first = marks.at(SourceMark::Paused).expect("marked");
        marks.mark(SourceMark::Paused);
        assert_eq!(marks.at(SourceMark::Paused), Some(first));
        marks.mark_after(SourceMark::Paused, SourceMark::Harvested);
        let later = first + Duration::from_secs(1);
        marks.renew(SourceMark::Paused, later);
        assert_eq!(marks.at(SourceMark::Paused), Some(later));
        marks.renew(SourceMark::Harvested, later + Duration::from_micros(7));
        assert_eq!(marks.figures().harvest, Duration::from_micros(7));
        assert_eq!(marks.figures().total, Duration::ZERO);
        assert_eq!(marks.iter().count(), 2);
    }
}
