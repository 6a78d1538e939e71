//! The VMM's own writes to guest memory, which no kernel log of the guest's writes contains. It
//! does not find them: whoever writes records it.

use std::sync::Arc;

use limosa_pages::{ChunkIndex, ChunkPages, MemoryMap, PageCount, PageRange, PageSet};

use crate::shared_set::SharedPageSet;
use crate::{DirtySource, HarvestError};

/// The end at which a VMM's threads record what they wrote to guest memory.
///
/// Clones share one record, so every emulated device has its own. The record costs at most an
/// eighth of a byte per page below the memory map's end, for as long as a clone lives: 4 KiB for
/// each 128 MiB in which something was recorded.
#[derive(Clone)]
pub struct WriteRecorder(Arc<Recorded>);

struct Recorded {
    map: MemoryMap,
    pages: SharedPageSet,
}

impl WriteRecorder {
    /// A recorder for a guest with this memory.
    pub fn new(map: &MemoryMap) -> Self {
        Self(Arc::new(Recorded {
            map: map.clone(),
            pages: SharedPageSet::new(map.end()),
        }))
    }

    /// Records that the bytes of `pages` were changed.
    ///
    /// To be called **after** the bytes were written, and before whoever waits for the write is
    /// told of it. The other way round the record could be harvested and cleared and the page be
    /// read while the write is still to come. A device that is paused has recorded all its writes.
    ///
    /// Always allowed, migration or not, and never waits: one atomic operation per 64 pages. Pages
    /// beyond the memory map are ignored.
    pub fn record(&self, pages: PageRange) {
        self.0.pages.insert_range(pages);
    }
}

/// The writes that a VMM [recorded](WriteRecorder::record) itself, as a source.
///
/// One source per recorder at a time: two of them would take each other's writes away. A source may
/// be made anew for each migration; writes recorded before its start do no harm.
pub struct VmmWrites {
    recorder: WriteRecorder,
    first: FirstHarvest,
    recording: bool,
}

/// What the first harvest reports of pages that nobody recorded.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstHarvest {
    All,
    None,
}

impl VmmWrites {
    /// The writes recorded with `recorder` and its clones.
    pub fn new(recorder: WriteRecorder) -> Self {
        Self {
            recorder,
            first: FirstHarvest::All,
            recording: false,
        }
    }

    /// The same beside another source of a [`Union`](crate::Union), which watches the same memory:
    /// that every page is reported after a start is then left to the other.
    pub fn beside(recorder: WriteRecorder) -> Self {
        Self {
            first: FirstHarvest::None,
            ..Self::new(recorder)
        }
    }

    /// Another end to record writes.
    pub fn recorder(&self) -> WriteRecorder {
        self.recorder.clone()
    }

    pub(crate) fn map(&self) -> &MemoryMap {
        &self.recorder.0.map
    }

    fn pages(&self) -> Result<&SharedPageSet, HarvestError> {
        if !self.recording {
            return Err(HarvestError::NotRecording);
        }
        Ok(&self.recorder.0.pages)
    }
}

impl DirtySource for VmmWrites {
    fn start(&mut self) -> Result<(), HarvestError> {
        self.recording = true;
        if self.first == FirstHarvest::All {
            for &region in self.map().regions() {
                self.recorder.record(region);
            }
        }
        Ok(())
    }

    fn harvest(&mut self, dirty: &mut PageSet) -> Result<PageCount, HarvestError> {
        let before = dirty.count();
        self.pages()?.add_to(dirty);
        Ok(dirty.count().saturating_sub(before))
    }

    fn rearm(&self, chunk: ChunkIndex, pages: &mut ChunkPages) -> Result<(), HarvestError> {
        self.pages()?.remove_chunk(chunk, pages);
        Ok(())
    }

    fn stop(&mut self) -> Result<(), HarvestError> {
        self.recording = false;
        Ok(())
    }

    fn describe(&self) -> &'static str {
        "vmm-writes"
    }

    fn overhead_bytes(&self) -> usize {
        self.recorder.0.pages.overhead_bytes()
    }
}
