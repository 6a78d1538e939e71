//! Who may run the guest: the only file that changes it, and the only one that lets a guest run.
//!
//! Custody moves `Source → InTransit → Target` and never back. The source gives the guest away with
//! the hand-over message, and the target takes it with that message in hand; between the two it is
//! in transit. As long as the source has it, every failure leaves it running there. In transit
//! neither side decides alone: the source can't know whether the message arrived, so it leaves the
//! guest paused and says so.
//!
//! What makes two running copies possible is made nowhere else: the hand-over message, and each
//! side's order to let the guest run. Each comes out of the transition that permits it, and a
//! transition that is not permitted yields nothing and changes nothing.

use core::fmt;

use limosa_wire::{HandOver, Message, Offer};

use crate::io::{SourceAction, TargetAction};

/// Who may run the guest, as one side knows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Custody {
    /// The source: the guest runs there, or will again.
    Source,
    /// Given away and not known to run: an operator must find out which side has it.
    InTransit,
    /// The target.
    Target,
}

impl fmt::Display for Custody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "source",
            Self::InTransit => "in-transit",
            Self::Target => "target",
        })
    }
}

/// The source's hold on the guest. It moves down this list, and back only from the second line to
/// the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum SourceHold {
    /// The guest runs here.
    Running,
    /// The guest stands still, and is still this side's.
    Paused,
    /// The hand-over message has left.
    GivenAway,
    /// The target said that it runs the guest.
    Arrived,
}

impl SourceHold {
    pub(crate) const fn custody(self) -> Custody {
        match self {
            Self::Running | Self::Paused => Custody::Source,
            Self::GivenAway => Custody::InTransit,
            Self::Arrived => Custody::Target,
        }
    }

    /// `Running → Paused`.
    pub(crate) const fn pause(&mut self) -> Option<SourceAction> {
        if !matches!(self, Self::Running) {
            return None;
        }
        *self = Self::Paused;
        Some(SourceAction::PauseGuest)
    }

    /// `Paused → Running`: the way back from every failure before the hand-over.
    pub(crate) const fn take_back(&mut self) -> Option<SourceAction> {
        if !matches!(self, Self::Paused) {
            return None;
        }
        *self = Self::Running;
        Some(SourceAction::ResumeGuest)
    }

    /// `Paused → GivenAway`. From here on there is no way back.
    pub(crate) const fn give_away(&mut self) -> Option<Message> {
        if !matches!(self, Self::Paused) {
            return None;
        }
        *self = Self::GivenAway;
        Some(Message::HandOver(HandOver {}))
    }

    /// `GivenAway → Arrived`.
    pub(crate) const fn arrived(&mut self) -> Option<SourceAction> {
        if !matches!(self, Self::GivenAway) {
            return None;
        }
        *self = Self::Arrived;
        Some(SourceAction::ReleaseGuest)
    }
}

/// The target's hold on the guest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum TargetHold {
    /// There is nothing here that could run.
    Nothing,
    /// A guest is being made and filled, which must not run.
    Prepared,
    /// The hand-over message has arrived: the guest is this side's.
    Taken,
    /// The guest was taken and could not be made to run.
    Lost,
}

impl TargetHold {
    pub(crate) const fn custody(self) -> Custody {
        match self {
            Self::Nothing | Self::Prepared => Custody::Source,
            Self::Taken => Custody::Target,
            Self::Lost => Custody::InTransit,
        }
    }

    /// Is the guest this side's, whatever the source says or does now?
    pub(crate) const fn has_guest(self) -> bool {
        matches!(self, Self::Taken)
    }

    /// `Nothing → Prepared`.
    pub(crate) fn prepare(&mut self, offer: Offer) -> Option<TargetAction> {
        if *self != Self::Nothing {
            return None;
        }
        *self = Self::Prepared;
        Some(TargetAction::PrepareGuest(offer))
    }

    /// `Prepared → Taken`, with the message in hand.
    pub(crate) const fn take(&mut self, _: HandOver) -> Option<TargetAction> {
        if !matches!(self, Self::Prepared) {
            return None;
        }
        *self = Self::Taken;
        Some(TargetAction::ResumeGuest)
    }

    /// `Prepared → Nothing`, or `Taken → Lost` where the guest can't be made to run.
    pub(crate) const fn let_go(&mut self) -> Option<TargetAction> {
        *self = match self {
            Self::Prepared => Self::Nothing,
            Self::Taken => Self::Lost,
            Self::Nothing | Self::Lost => return None,
        };
        Some(TargetAction::DropGuest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Move = fn(&mut SourceHold) -> bool;

    const MOVES: [Move; 4] = [
        |hold| hold.pause().is_some(),
        |hold| hold.take_back().is_some(),
        |hold| hold.give_away().is_some(),
        |hold| hold.arrived().is_some(),
    ];
    const TAKE_BACK: usize = 1;
    const GIVE_AWAY: usize = 2;

    /// Every order of seven moves.
    #[test]
    fn what_was_given_away_is_never_taken_back() {
        for order in 0..4_u32.pow(7) {
            let (mut hold, mut paused, mut given) = (SourceHold::Running, false, false);
            for step in 0..7 {
                let chosen = (order >> (2 * step)) as usize % 4;
                let before = hold;
                let moved = MOVES[chosen](&mut hold);
                assert!(moved || hold == before, "a refused move changes nothing");
                assert!(!(moved && chosen == TAKE_BACK && given), "{order:#x}");
                assert!(!(moved && chosen == GIVE_AWAY && !paused), "{order:#x}");
                given |= moved && chosen == GIVE_AWAY;
                paused = hold == SourceHold::Paused;
                assert_eq!(given, hold.custody() != Custody::Source, "{order:#x}");
            }
        }
    }

    #[test]
    fn a_target_takes_once_and_only_what_it_prepared() {
        let mut hold = TargetHold::Nothing;
        assert!(hold.take(HandOver {}).is_none() && hold.let_go().is_none());
        hold = TargetHold::Prepared;
        assert_eq!(hold.take(HandOver {}), Some(TargetAction::ResumeGuest));
        assert!(hold.take(HandOver {}).is_none() && hold.has_guest());
        assert_eq!(hold.let_go(), Some(TargetAction::DropGuest));
        assert_eq!(hold.custody(), Custody::InTransit);
        assert!(hold.take(HandOver {}).is_none() && hold.let_go().is_none());
        hold = TargetHold::Prepared;
        assert_eq!(hold.let_go(), Some(TargetAction::DropGuest));
        assert!(
            hold.take(HandOver {}).is_none(),
            "what was dropped never runs"
        );
    }
}
