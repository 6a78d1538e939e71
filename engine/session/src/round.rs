//! A round as an order and as a receipt, and what is found between rounds: all that passes between
//! deciding and page work.

use alloc::vec::Vec;
use core::time::Duration;

use limosa_pages::PageCount;
use limosa_wire::{EncodingCounts, Round, RoundEnd, RoundKind};

/// The order: send these pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundPlan {
    /// Its number.
    pub round: Round,
    /// `Full` sends every page, the others those of the last harvest; in the `Final` one the guest
    /// stands still.
    pub kind: RoundKind,
    /// Which pages of a live round may wait for a later one.
    pub hold: HoldBack,
}

/// Pages that the guest will soon have written again are not worth sending now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HoldBack {
    /// Most pages that may be held back; zero sends everything.
    pub pages_max: PageCount,
    /// A page is worth holding back when the guest is likely to write it within that time.
    pub horizon: Duration,
}

impl HoldBack {
    /// Everything is sent.
    pub const NONE: Self = Self {
        pages_max: PageCount::ZERO,
        horizon: Duration::ZERO,
    };
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
    /// From its start until the streams had taken the last byte, without [`idle`](Self::idle).
    pub elapsed: Duration,
    /// How long an operator let the migration rest meanwhile.
    pub idle: Duration,
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

/// What waits for the next round.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Harvest {
    /// All pages: those that were written since the last harvest, and those held back.
    pub left: PageCount,
    /// Pages that were held back from the last round.
    pub held: PageCount,
    /// Pages a second that the guest writes among those held back, as far as was seen before.
    pub held_pages_per_second: u64,
}

impl From<PageCount> for Harvest {
    /// Nothing was held back.
    fn from(left: PageCount) -> Self {
        Self {
            left,
            ..Self::default()
        }
    }
}

/// What a pause took that was tried out: the guest went on at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rehearsal {
    /// Until every vCPU stood still.
    pub pause: Duration,
    /// Taking the guest's state, which was thrown away.
    pub export: Duration,
}
