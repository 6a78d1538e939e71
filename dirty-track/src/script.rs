//! A source whose writes a test or a simulation plays. It watches no memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use limosa_pages::{ChunkIndex, ChunkPages, MemoryMap, PageCount, PageRange, PageSet};

use crate::{DirtySource, HarvestError, VmmWrites, WriteRecorder};

/// Replays writes: round by round from a list, live from [`ScriptedWrites`], or both.
///
/// Without a clock and without the kernel, so a run is repeated exactly.
pub struct Script {
    writes: VmmWrites,
    rounds: VecDeque<PageSet>,
    everything_reported: bool,
    failing: Arc<AtomicBool>,
}

impl Script {
    /// A script without writes for a guest with this memory; see [`writes`](Self::writes).
    pub fn new(map: &MemoryMap) -> Self {
        Self::with_rounds(map, Vec::new())
    }

    /// A script whose *n*-th harvest after the one that reports everything finds the pages of
    /// `rounds[n]` written. After the last of them nothing is written, and a second start goes on
    /// in the list where the first one stopped.
    pub fn with_rounds(map: &MemoryMap, rounds: Vec<PageSet>) -> Self {
        Self {
            writes: VmmWrites::new(WriteRecorder::new(map)),
            rounds: rounds.into(),
            everything_reported: false,
            failing: Arc::new(AtomicBool::new(false)),
        }
    }

    /// The end at which a simulated guest writes.
    pub fn writes(&self) -> ScriptedWrites {
        ScriptedWrites {
            recorder: self.writes.recorder(),
            failing: self.failing.clone(),
        }
    }
}

/// Writes of a simulated guest into a [`Script`]; clones write into the same one.
#[derive(Clone)]
pub struct ScriptedWrites {
    recorder: WriteRecorder,
    failing: Arc<AtomicBool>,
}

impl ScriptedWrites {
    /// The guest wrote `pages`: to be called after their bytes have changed.
    pub fn write(&self, pages: PageRange) {
        self.recorder.record(pages);
    }

    /// The next harvest fails, once, as if the kernel had refused it.
    pub fn fail_next_harvest(&self) {
        self.failing.store(true, Ordering::Release);
    }
}

impl DirtySource for Script {
    fn start(&mut self) -> Result<(), HarvestError> {
        self.everything_reported = false;
        self.writes.start()
    }

    fn harvest(&mut self, dirty: &mut PageSet) -> Result<PageCount, HarvestError> {
        if self.failing.swap(false, Ordering::AcqRel) {
            return Err(HarvestError::Scripted);
        }
        if self.everything_reported
            && let Some(round) = self.rounds.pop_front()
        {
            round
                .runs()
                .for_each(|run| self.writes.recorder().record(run));
        }
        let gained = self.writes.harvest(dirty)?;
        self.everything_reported = true;
        Ok(gained)
    }

    fn rearm(&self, chunk: ChunkIndex, pages: &mut ChunkPages) -> Result<(), HarvestError> {
        self.writes.rearm(chunk, pages)
    }

    fn stop(&mut self) -> Result<(), HarvestError> {
        self.writes.stop()
    }

    fn describe(&self) -> &'static str {
        "script"
    }
}
