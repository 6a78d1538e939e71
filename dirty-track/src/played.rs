//! A kernel's log of one bit per page, played by a test or a bench. It watches no memory.

use std::convert::Infallible;
use std::sync::atomic::AtomicU64;

use limosa_pages::{ChunkIndex, ChunkPages, PageCount, PageIndex, PageRange, PageSet};

use crate::pending::Pending;
use crate::{DirtySource, HarvestError, KvmLog};

/// What [`KvmLog`](crate::KvmLog) does with the bits that it reads, for logs of any size and
/// without a VM: what a kernel would write is copied from a set.
pub struct PlayedLog {
    pending: Pending,
    recording: Recording,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Recording {
    Off,
    /// No harvest has told everything yet.
    Begun,
    On,
}

impl PlayedLog {
    /// A log of the pages below `bound`; `None` where there is no memory for it.
    pub fn new(bound: PageIndex) -> Option<Self> {
        let pending = Pending::new(PageRange::new(PageIndex::ZERO, bound)?)?;
        Some(Self {
            pending: pending.with_block_chunks(KvmLog::CLEAR_BLOCK_CHUNKS_DEFAULT),
            recording: Recording::Off,
        })
    }

    /// The next harvest finds the pages of `written` in the log, besides what was not rearmed.
    ///
    /// Costs a copy of every bit, written or not, as the kernel's reading does.
    pub fn play(&mut self, written: &PageSet) {
        let copy = |bits: &mut [AtomicU64]| {
            let end = bits.len().min(written.words().len());
            let (bits, beyond) = bits.split_at_mut(end);
            let words = bits.iter_mut().zip(&written.words()[..end]);
            words.for_each(|(bits, written)| *bits.get_mut() = *written);
            beyond.iter_mut().for_each(|bits| *bits.get_mut() = 0);
            Ok::<(), Infallible>(())
        };
        let Ok(()) = self.pending.read(copy);
    }
}

impl DirtySource for PlayedLog {
    fn start(&mut self) -> Result<(), HarvestError> {
        self.pending.clear();
        self.recording = Recording::Begun;
        Ok(())
    }

    fn harvest(&mut self, dirty: &mut PageSet) -> Result<PageCount, HarvestError> {
        if self.recording == Recording::Off {
            return Err(HarvestError::NotRecording);
        }
        if self.recording == Recording::Begun {
            self.pending.insert_range(self.pending.pages());
            self.recording = Recording::On;
        }
        let before = dirty.count();
        self.pending.add_to(dirty, std::iter::once);
        Ok(dirty.count().saturating_sub(before))
    }

    fn rearm(&self, chunk: ChunkIndex, pages: &mut ChunkPages) -> Result<(), HarvestError> {
        if self.recording == Recording::Off {
            return Err(HarvestError::NotRecording);
        }
        self.pending.remove_chunk(chunk, pages);
        Ok(())
    }

    fn stop(&mut self) -> Result<(), HarvestError> {
        self.recording = Recording::Off;
        self.pending.clear();
        Ok(())
    }

    fn describe(&self) -> &'static str {
        "played-log"
    }

    fn overhead_bytes(&self) -> usize {
        self.pending.overhead_bytes()
    }
}
