//! What is known of a round that is under way at the target: what landed here, and what the source
//! says of it. The round is over once both are known and agree.

use alloc::vec::Vec;

use limosa_wire::{Message, Round, RoundEnd, RoundLanded};

use crate::error::Misdeed;
use crate::io::TargetAction as Action;
use crate::target::Context;

/// Frames of each stream and pages of all.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Totals {
    pub(super) frames: Vec<u64>,
    pub(super) pages: u64,
}

/// What is known of a round; the two halves come in any order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Tally {
    Nothing,
    Landed(Totals),
    Said(Totals),
}

/// What a round has come to.
pub(super) enum Settled {
    /// Half of it is missing.
    Open(Tally),
    /// It landed as it was sent.
    Agreed(Totals),
    /// That half was known already.
    Twice(Tally),
}

impl Tally {
    /// The streams have passed the round's barriers.
    pub(super) fn landed(self, round: Round, here: Totals) -> Result<Settled, Misdeed> {
        match self {
            Self::Nothing => Ok(Settled::Open(Self::Landed(here))),
            Self::Said(there) => agree(round, here, &there),
            twice @ Self::Landed(_) => Ok(Settled::Twice(twice)),
        }
    }

    /// The source has said what it sent.
    pub(super) fn said(self, round: Round, end: RoundEnd) -> Result<Settled, Misdeed> {
        if end.round != round {
            let (expected, found) = (round, end.round);
            return Err(Misdeed::WrongRound { expected, found });
        }
        let there = Totals {
            frames: end.frames,
            pages: end.pages,
        };
        match self {
            Self::Nothing => Ok(Settled::Open(Self::Said(there))),
            Self::Landed(here) => agree(round, here, &there),
            twice @ Self::Said(_) => Ok(Settled::Twice(twice)),
        }
    }
}

fn agree(round: Round, here: Totals, there: &Totals) -> Result<Settled, Misdeed> {
    let what = match (here.pages == there.pages, here.frames == there.frames) {
        (true, true) => return Ok(Settled::Agreed(here)),
        (true, false) => "frames",
        (false, _) => "pages",
    };
    Err(Misdeed::TotalsDiffer { round, what })
}

/// Tells ledger and source that a round is over.
pub(super) fn confirm(round: Round, totals: Totals, cx: &mut Context) {
    let Totals { frames, pages } = totals;
    cx.outbox.act([Action::ConfirmRound {
        round,
        frames,
        pages,
    }]);
    cx.outbox
        .send(Message::RoundLanded(RoundLanded { round, pages }));
}
