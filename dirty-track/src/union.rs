//! Several sources as one, for a guest whose memory has several kinds of writers. It records
//! nothing itself.

use limosa_pages::{ChunkIndex, ChunkPages, PageCount, PageSet};

use crate::{DirtySource, HarvestError};

/// Everything that any of its sources reports, for instance a [`KvmLog`](crate::KvmLog) for the
/// vCPUs and [`VmmWrites`](crate::VmmWrites) for the emulated devices.
pub struct Union(Vec<Box<dyn DirtySource>>);

impl Union {
    /// The union of `sources`. One without sources reports nothing.
    pub fn new(sources: Vec<Box<dyn DirtySource>>) -> Self {
        Self(sources)
    }
}

impl DirtySource for Union {
    fn start(&mut self) -> Result<(), HarvestError> {
        let started = self.0.iter_mut().try_for_each(|source| source.start());
        if started.is_err() {
            // The failure to start is the one to report.
            let _ = self.stop();
        }
        started
    }

    fn harvest(&mut self, dirty: &mut PageSet) -> Result<PageCount, HarvestError> {
        self.0.iter_mut().map(|source| source.harvest(dirty)).sum()
    }

    fn rearm(&self, chunk: ChunkIndex, pages: &mut ChunkPages) -> Result<(), HarvestError> {
        self.0
            .iter()
            .try_for_each(|source| source.rearm(chunk, pages))
    }

    /// Stops every source, and reports the first failure.
    fn stop(&mut self) -> Result<(), HarvestError> {
        self.0
            .iter_mut()
            .map(|source| source.stop())
            .fold(Ok(()), Result::and)
    }

    /// Those of the first source that tells vCPUs apart.
    fn vcpu_pages(&self) -> Vec<PageCount> {
        let mut all = self.0.iter().map(|source| source.vcpu_pages());
        all.find(|pages| !pages.is_empty()).unwrap_or_default()
    }

    fn overhead_bytes(&self) -> usize {
        self.0.iter().map(|source| source.overhead_bytes()).sum()
    }

    fn describe(&self) -> &'static str {
        match self.0.as_slice() {
            [only] => only.describe(),
            _ => "union",
        }
    }
}
