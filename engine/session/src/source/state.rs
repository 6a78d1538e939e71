//! The source's states: each has only what is true in it. What leads from one to the next is not
//! here, but in `messages.rs` and `work.rs`.

use alloc::vec::Vec;

use limosa_wire::{Round, StateSection};

use crate::error::Stage;
use crate::round::{RoundPlan, RoundReport};

/// Where a source is.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum State {
    AwaitHello,
    AwaitVerdict,
    /// The streams are being opened here, and bound there.
    Binding(Binding),
    StartingTracking,
    /// Counting what the next round is to send; the first round sends everything.
    Harvesting {
        next: Round,
    },
    Sending {
        plan: RoundPlan,
    },
    /// The round was sent; the target has not said yet that it landed.
    AwaitLanded {
        report: RoundReport,
    },
    Pausing {
        next: Round,
    },
    LastHarvest {
        next: Round,
    },
    /// The last round is being sent, and the state taken beside it.
    LastRound(LastRound),
    AwaitPrepared {
        report: RoundReport,
        landed: bool,
    },
    /// The guest was handed over.
    HandedOver,
    Finished,
}

/// Which side has its ends of the page streams.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Binding {
    pub(crate) stream_count: u16,
    pub(crate) opened: bool,
    pub(crate) bound: bool,
}

/// What is still missing of the last round.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct LastRound {
    pub(crate) plan: RoundPlan,
    pub(crate) sent: Option<RoundReport>,
    pub(crate) landed: bool,
    pub(crate) state: Option<Vec<StateSection>>,
}

impl State {
    pub(crate) const fn stage(&self) -> Stage {
        match self {
            Self::AwaitHello | Self::AwaitVerdict => Stage::Handshake,
            Self::Binding(_) | Self::StartingTracking => Stage::Prepare,
            Self::Harvesting { .. } | Self::Sending { .. } | Self::AwaitLanded { .. } => {
                Stage::Rounds
            }
            Self::Pausing { .. }
            | Self::LastHarvest { .. }
            | Self::LastRound(_)
            | Self::AwaitPrepared { .. } => Stage::Switchover,
            Self::HandedOver => Stage::HandOver,
            Self::Finished => Stage::Finished,
        }
    }

    /// Would the loss of a page stream lose pages?
    pub(crate) const fn needs_streams(&self) -> bool {
        !matches!(
            self,
            Self::AwaitPrepared { landed: true, .. } | Self::HandedOver | Self::Finished
        )
    }
}
