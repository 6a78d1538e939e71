//! A round as an order and as a receipt: all that passes between deciding and page work.

use alloc::vec::Vec;
use core::time::Duration;

use limosa_wire::{EncodingCounts, Round, RoundEnd, RoundKind};

/// The order: send these pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundPlan {
    /// Its number.
    pub round: Round,
    /// `Full` sends every page, the others those of the last harvest; in the `Final` one the guest
    /// stands still.
    pub kind: RoundKind,
}

/// The receipt: what was sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoundReport {
    /// Its number.
    pub round: Round,
    /// Pages, by encoding.
    pub pages: EncodingCounts,
    /// Bytes given to the page streams.
    pub wire_bytes: u64,
    /// Frames of each stream, without barriers.
    pub frames: Vec<u64>,
    /// From its start until the streams had taken the last byte.
    pub elapsed: Duration,
}

impl RoundReport {
    /// The receipt as the target is told it.
    pub(crate) fn end(&self) -> RoundEnd {
        RoundEnd {
            round: self.round,
            frames: self.frames.clone(),
            pages: self.pages.total(),
        }
    }
}
