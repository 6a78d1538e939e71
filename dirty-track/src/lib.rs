//! Which pages of a guest were written: one trait, and the kernel mechanisms behind it. It knows no
//! wire, no session and no bytes of a page.
//!
//! # The contract
//!
//! A migration copies memory that is being written. That is only right under one rule: **clear
//! before copy**. Of each page in turn, the record of its writes is cleared first, and its bytes
//! are read after that. A write that comes between the two is then recorded anew, and the page is
//! sent again; the other way round it would be lost.
//!
//! ```text
//! start ──► harvest ──► for each chunk: rearm, then read its pages ──► harvest ──► … ──► stop
//! ```
//!
//! * [`start`](DirtySource::start) begins recording. The first harvest after it reports every page
//!   that the source watches and that may hold anything, so that round 0 needs no special case. It
//!   does so after every start: a retry, and a second and third migration of one guest, begin from
//!   nothing. What it leaves out reads as zeros, and is watched all the same.
//! * [`harvest`](DirtySource::harvest) *adds* the recorded pages to a set. It forgets nothing: a
//!   page is reported by every harvest until it is rearmed. A migration that fails between two
//!   calls has therefore lost nothing.
//! * [`rearm`](DirtySource::rearm) forgets, chunk by chunk and from many threads at once. Every
//!   page that was harvested is to be rearmed, also one whose bytes need not be read, or it is
//!   reported for ever. What is known of a page without reading it (that it is not
//!   [present](Presence)) counts as read: ask after `rearm`, not before.
//! * A source may report more than was written, never less. A page written after `rearm` of its
//!   chunk has returned, or not rearmed since it was written, is in the next harvest.
//! * After an error a source's record is not to be trusted: `stop` it, and `start` it again.
//! * Once all writers stand still, one last harvest, rearmed and read, is the truth.
//!
//! *Writing* is what the watched writers do. No kernel mechanism sees every writer of guest memory
//! (see below), so a source for a real guest is a [`Union`].
//!
//! # The sources
//!
//! * [`KvmLog`] sees the guest's vCPUs. It misses the VMM's own threads and other processes.
//! * [`KvmRing`] sees the same, and which vCPU it was. Its VM was made for it, and has no log.
//! * [`PagemapScan`] sees all that writes through one mapping, in user mode or in the kernel. It
//!   misses a second mapping of the same memory, and `write(2)` to its file.
//! * [`VmmWrites`] sees what the VMM records, and misses what it forgets to record.
//! * [`Script`] plays the writes of a test, and [`PlayedLog`] the log of a kernel.
//!
//! | per GiB | start | harvest | rearm | stop | a page's first write after its rearm |
//! |---|---|---|---|---|---|
//! | [`KvmLog`] | 0.1-0.4 ms | 0.01 ms | 2-8 ms | 5-17 ms | 3.0-3.5 µs |
//! | [`KvmRing`] | 3-4 ms | 10-14 ms | 0.06 ms | 5-10 ms | 3.2-4.0 µs |
//! | [`PagemapScan`] | 0.1 ms | 0.2-1 ms | 8-29 ms | 50-120 ms | 1.2-2.3 µs; vCPU 4.3-5.4 µs |
//! | [`VmmWrites`] | 0.01 ms | 0.004 ms | 0.04 ms | 0 | 7 ns |
//!
//! None of them sees a *discard*: memory given back with `MADV_DONTNEED` or by punching a hole
//! reads as zeros from then on. Whoever discards records it with [`WriteRecorder::record`].
//!
//! The figures are of Linux 6.18 on a virtual machine with two AMD EPYC (family 25) processors at
//! 2.4 GHz, with KVM's shadow MMU, 4 KiB mappings and every page written; take them as proportions.
//! The ring's are the least of several runs beside other work: its harvest takes 40-56 ns an entry,
//! protecting the page included.
//! The example `cost` of this crate measures another host.
//!
//! # Example
//!
//! ```
//! use limosa_dirty::{DirtySource, VmmWrites, WriteRecorder};
//! use limosa_pages::{MemoryMap, PageIndex, PageRange, PageSet};
//!
//! let all = PageRange::new(PageIndex::new(0), PageIndex::new(1000)).unwrap();
//! let map = MemoryMap::new(vec![all])?;
//! let recorder = WriteRecorder::new(&map);
//! let mut source = VmmWrites::new(recorder.clone());
//!
//! source.start()?;
//! let mut dirty = PageSet::new(map.end());
//! assert_eq!(source.harvest(&mut dirty)?, map.page_count());
//! for (chunk, mut pages) in dirty.chunks() {
//!     source.rearm(chunk, &mut pages)?;
//!     // Only now are the pages read.
//! }
//!
//! recorder.record(PageRange::new(PageIndex::new(7), PageIndex::new(9)).unwrap());
//! dirty.clear();
//! assert_eq!(source.harvest(&mut dirty)?.get(), 2);
//! source.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod asleep;
mod error;
mod log;
mod pagemap;
mod parts;
mod pending;
mod played;
mod presence;
mod probe;
mod ring;
mod script;
mod shared_set;
mod sys;
mod union;
mod vmm_writes;

pub use error::{HarvestError, Unavailable};
pub use log::KvmLog;
pub use pagemap::{Mapping, PagemapScan};
pub use played::PlayedLog;
pub use presence::{HugeUse, Presence, huge_use, present_pages};
pub use probe::{Choice, GuestKind, KernelReport, LogMode, NoSource, SourceKind, probe};
pub use ring::{KvmRing, RingSetup, VcpuRings, VcpuWrites};
pub use script::{Script, ScriptedWrites};
pub use sys::kvm::Slot;
pub use union::Union;
pub use vmm_writes::{VmmWrites, WriteRecorder};

use limosa_pages::{ChunkIndex, ChunkPages, PageCount, PageIndex, PageRange, PageSet};

/// A record of which pages were written; the crate's page says how it is driven.
pub trait DirtySource: Send + Sync {
    /// Begins recording, and makes the next harvest report every watched page; but for pages that
    /// hold nothing, which it may leave out until they are written.
    ///
    /// A source that records already begins anew.
    ///
    /// # Errors
    /// When the kernel refuses. Nothing is recorded then, and the guest runs as before.
    fn start(&mut self) -> Result<(), HarvestError>;

    /// Adds every page that is recorded as written to `dirty`, and returns how many pages `dirty`
    /// gained by that.
    ///
    /// Pages that are in `dirty` already stay, and pages beyond its bound are left out. The record
    /// is kept: what is not rearmed is reported again.
    ///
    /// # Errors
    /// [`HarvestError::NotRecording`] before `start` and after `stop`, and when the kernel refuses.
    /// `dirty` may have gained pages all the same.
    fn harvest(&mut self, dirty: &mut PageSet) -> Result<PageCount, HarvestError>;

    /// Forgets the writes to `pages` of one chunk, so that a write from now on is recorded anew.
    ///
    /// To be called *before* the bytes of those pages are read, and before anything else is found
    /// out about them. `pages` gains each page of the chunk whose record this call had to consume
    /// beyond those asked for: they are to be read as well.
    ///
    /// Takes `&self`: the threads that read pages call it at the same time, each for its own
    /// chunks.
    ///
    /// # Errors
    /// [`HarvestError::NotRecording`] before `start` and after `stop`, and when the kernel refuses.
    fn rearm(&self, chunk: ChunkIndex, pages: &mut ChunkPages) -> Result<(), HarvestError>;

    /// Ends recording, so that the guest writes at full speed again. Doing so twice is harmless.
    ///
    /// # Errors
    /// When the kernel refuses. The source counts as stopped all the same.
    fn stop(&mut self) -> Result<(), HarvestError>;

    /// The source's name for reports, for instance `kvm-log`.
    fn describe(&self) -> &'static str;

    /// How many pages each vCPU has written since its VM was made, for a rate of its own: the first
    /// write to a page after its rearm counts, harvested or not. Empty where the source can't tell
    /// vCPUs apart, as is the default.
    fn vcpu_pages(&self) -> Vec<PageCount> {
        Vec::new()
    }

    /// How many bytes of memory the source takes now, in this process.
    fn overhead_bytes(&self) -> usize {
        0
    }
}

/// Whether no range is empty and no two share a page; they are in the order of their starts.
fn check_ranges(ranges: impl Iterator<Item = PageRange>) -> Result<(), HarvestError> {
    let mut watched = PageIndex::ZERO;
    for pages in ranges {
        if pages.is_empty() || pages.start() < watched {
            return Err(HarvestError::BadRange { pages });
        }
        watched = pages.end();
    }
    Ok(())
}
