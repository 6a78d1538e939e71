//! Bugs planted on purpose, to show that the checkers find them. No real code has them.

use std::sync::{Mutex, PoisonError};

use limosa_dirty::{DirtySource, HarvestError, Script};
use limosa_pages::{ChunkIndex, ChunkPages, PageCount, PageSet};

/// A planted bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sabotage {
    /// None: everything is as it is.
    #[default]
    None,
    /// The record of writes is cleared after the pages were read instead of before.
    ClearsAfterCopy,
    /// Some of the guest's writes are not recorded, as those of a forgotten device would be.
    WritesUnseen,
    /// The guest goes on writing while it is paused, as a device backend that nobody stopped would.
    WritesWhilePaused,
    /// The target puts some pages nowhere, though it counts them.
    LosesPages,
    /// The target takes the source's totals for its own count, and never asks its ledger.
    BlindLedger,
    /// The source lets its guest run again when the link is lost after the hand-over.
    ResumesInTransit,
    /// The source lets its guest run again as soon as it has handed it over.
    NeverLetsGo,
    /// The target lets the guest run when the state is in place, without waiting for the hand-over.
    StartsEarly,
    /// The source does not let its guest run again after a failure.
    ForgetsToResume,
    /// The source does not look at what an accepting target says of its host.
    TrustsVerdict,
    /// The target does not look at its host again, and takes it for what it was.
    TrustsHost,
}

impl Sabotage {
    /// Every planted bug.
    pub const ALL: [Self; 11] = [
        Self::ClearsAfterCopy,
        Self::WritesUnseen,
        Self::WritesWhilePaused,
        Self::LosesPages,
        Self::BlindLedger,
        Self::ResumesInTransit,
        Self::NeverLetsGo,
        Self::StartsEarly,
        Self::ForgetsToResume,
        Self::TrustsVerdict,
        Self::TrustsHost,
    ];
}

/// A record of writes that is cleared only when the next chunk's turn comes: what was written to a
/// chunk while its pages were read is forgotten.
pub(crate) struct LateClear {
    script: Script,
    late: Mutex<Option<(ChunkIndex, ChunkPages)>>,
}

impl LateClear {
    pub(crate) const fn new(script: Script) -> Self {
        Self {
            script,
            late: Mutex::new(None),
        }
    }

    fn postpone(&self, next: Option<(ChunkIndex, ChunkPages)>) -> Result<(), HarvestError> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((chunk, mut pages)) = std::mem::replace(&mut *late, next) {
            self.script.rearm(chunk, &mut pages)?;
        }
        Ok(())
    }
}

impl DirtySource for LateClear {
    fn start(&mut self) -> Result<(), HarvestError> {
        self.late = Mutex::new(None);
        self.script.start()
    }

    fn harvest(&mut self, dirty: &mut PageSet) -> Result<PageCount, HarvestError> {
        self.postpone(None)?;
        self.script.harvest(dirty)
    }

    fn rearm(&self, chunk: ChunkIndex, pages: &mut ChunkPages) -> Result<(), HarvestError> {
        self.postpone(Some((chunk, *pages)))
    }

    fn stop(&mut self) -> Result<(), HarvestError> {
        self.script.stop()
    }

    fn describe(&self) -> &'static str {
        "late-clear"
    }
}
