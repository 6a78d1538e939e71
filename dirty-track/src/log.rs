//! KVM's dirty log: which pages the guest's vCPUs wrote. It does not see the VMM's own writes; see
//! `vmm_writes.rs`.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use limosa_pages::{ChunkIndex, ChunkPages, PageCount, PageIndex, PageRange, PageSet};

use crate::asleep::{self, Asleep};
use crate::pending::Pending;
use crate::sys::kvm::{Logging, Slot, Vm};
use crate::{DirtySource, HarvestError, LogMode, Presence};

/// The writes of a KVM guest's vCPUs, from KVM's log of one bit per page.
///
/// # What KVM does, and what is made of it
///
/// A harvest reads KVM's log of each slot, which costs 10 µs/GiB however much was written. What it
/// found stays *pending* where it was read, until it is rearmed. A rearm clears KVM's log, whereby
/// KVM protects the page again, so that the next write to it faults and is logged. KVM clears under
/// a lock of the whole VM, interrupts vCPUs for each call that cleared something, and with some
/// processors for each call: hence the first rearm within a [block](Self::with_clear_block) clears
/// the last harvest's pages of the whole block. Early clearing is as right as timely clearing,
/// since the other pages of the block are still pending.
///
/// The modes, best first: [`LogMode::InitiallySet`] leaves every page writable until it is cleared
/// for the first time, so that turning the log on costs nothing. [`LogMode::Manual`] and
/// [`LogMode::ReadClears`] protect all memory at once. In the last, reading clears as well, so a
/// page that is written between harvest and rearm is sent twice.
///
/// With [`with_presence`](Self::with_presence), memory that holds nothing is not cleared: its bits
/// in KVM's log say nothing then, and that it holds nothing tells that it was not written.
///
/// Turning the log off costs 5-17 ms/GiB with 4 KiB pages, and gives the guest its huge mappings
/// back. The VM lives at least as long as this does. Dropping it while it records turns the log
/// off.
pub struct KvmLog {
    vm: Vm,
    mode: LogMode,
    slots: Vec<SlotLog>,
    asleep: Option<Asleep>,
    /// Held while a block is cleared, with its bits. The kernel would make the threads wait for
    /// each other anyway.
    clearing: Mutex<Vec<u64>>,
    recording: Recording,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Recording {
    Off,
    /// No harvest has told everything yet.
    Begun,
    On,
}

/// A slot with what was reported of it and not rearmed since.
struct SlotLog {
    slot: Slot,
    pending: Pending,
}

impl KvmLog {
    /// The default of [`with_clear_block`](Self::with_clear_block), in chunks.
    pub const CLEAR_BLOCK_CHUNKS_DEFAULT: u16 = 8;

    /// The largest [`with_clear_block`](Self::with_clear_block), in chunks: 1 GiB.
    pub const CLEAR_BLOCK_CHUNKS_MAX: u16 = 512;

    /// The log of a VM's `slots`, which share no page.
    ///
    /// Chooses the VM's log mode, for all of its slots and for the rest of its life; that it was
    /// chosen before, for an earlier migration, is no error. No log may be on meanwhile.
    ///
    /// # Errors
    /// When slots are empty or share pages, and when `vm` is not a VM.
    pub fn new(vm: BorrowedFd<'_>, slots: Vec<Slot>) -> Result<Self, HarvestError> {
        Self::with_mode_at_most(LogMode::InitiallySet, vm, slots)
    }

    /// The same, with no better mode than `best`: to compare the modes, and to get along with a
    /// kernel whose better ones are at fault.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn with_mode_at_most(
        best: LogMode,
        vm: BorrowedFd<'_>,
        mut slots: Vec<Slot>,
    ) -> Result<Self, HarvestError> {
        slots.sort_by_key(|slot| slot.pages().start());
        crate::check_ranges(slots.iter().map(Slot::pages))?;
        let end = slots
            .last()
            .map_or(PageIndex::ZERO, |slot| slot.pages().end());
        let everything = PageRange::new(PageIndex::ZERO, end).unwrap_or(PageRange::empty());
        let failed = |call| move |error| HarvestError::kernel(call, everything, error);

        let vm = Vm::new(vm).map_err(failed("dup"))?;
        let options = vm
            .manual_protect_options()
            .map_err(failed("KVM_CHECK_EXTENSION"))?;
        let mode = LogMode::from_options(options & best.options());
        if options != 0 {
            vm.set_manual_protect(mode.options())
                .map_err(failed("KVM_ENABLE_CAP"))?;
        }
        let slots = slots
            .into_iter()
            .map(|slot| {
                let pending = Pending::new(slot.pages()).ok_or_else(|| {
                    let error = io::ErrorKind::OutOfMemory.into();
                    HarvestError::kernel("malloc", slot.pages(), error)
                })?;
                Ok(SlotLog { slot, pending })
            })
            .collect::<Result<_, HarvestError>>()?;
        let log = Self {
            vm,
            mode,
            slots,
            asleep: None,
            clearing: Mutex::new(Vec::new()),
            recording: Recording::Off,
        };
        Ok(log.with_clear_block(Self::CLEAR_BLOCK_CHUNKS_DEFAULT))
    }

    /// How many chunks of a slot are cleared at once, by the first rearm within them.
    ///
    /// Range 1 to [`CLEAR_BLOCK_CHUNKS_MAX`](Self::CLEAR_BLOCK_CHUNKS_MAX) (others are brought into
    /// it), default [`CLEAR_BLOCK_CHUNKS_DEFAULT`](Self::CLEAR_BLOCK_CHUNKS_DEFAULT). More means
    /// fewer interruptions of the vCPUs, each longer, and more pages that are written between their
    /// clearing and their reading, which are then sent once more than needed.
    ///
    /// Measured on the machine of the [crate's page](crate), beside other work, with 256 MiB of
    /// written 4 KiB pages:
    ///
    /// | block | all rearmed in | longest call |
    /// |---|---|---|
    /// | 1 (2 MiB) | 0.5-4.9 ms | 0.01-0.2 ms |
    /// | 8 (16 MiB) | 0.5-1.0 ms | 0.07 ms |
    /// | 32 (64 MiB) | 0.4-0.6 ms | 0.10-0.15 ms |
    /// | 512 (1 GiB) | 0.4-0.5 ms | 0.4-0.5 ms |
    ///
    /// The longest call is how long a vCPU may wait for KVM's lock.
    #[must_use]
    pub fn with_clear_block(mut self, chunks: u16) -> Self {
        let chunks = chunks.clamp(1, Self::CLEAR_BLOCK_CHUNKS_MAX);
        let slots = std::mem::take(&mut self.slots)
            .into_iter()
            .map(|log| SlotLog {
                pending: log.pending.with_block_chunks(chunks),
                ..log
            });
        self.slots = slots.collect();
        self
    }

    /// Leaves chunks out that hold nothing, by what `presence` says of the slots' memory: neither
    /// reported nor cleared, until a page of theirs is populated. Then the whole chunk counts as
    /// written.
    #[must_use]
    pub fn with_presence(mut self, presence: Presence) -> Self {
        self.asleep = Some(Asleep::new(presence));
        self
    }

    /// What KVM's log can do for this VM.
    pub fn mode(&self) -> LogMode {
        self.mode
    }

    fn turn_off(&mut self) -> Result<(), HarvestError> {
        self.recording = Recording::Off;
        self.slots.iter_mut().for_each(|log| log.pending.clear());
        if let Some(asleep) = &mut self.asleep {
            asleep.clear();
        }
        let set_off = |log: &mut SlotLog| set_logging(&self.vm, &log.slot, Logging::Off);
        self.slots.iter_mut().map(set_off).fold(Ok(()), Result::and)
    }

    /// Clears what the last harvest found in the block of `log`, unless that was done.
    fn clear_block(&self, log: &SlotLog, block: usize) -> Result<(), HarvestError> {
        if log.pending.is_cleared(block) {
            return Ok(());
        }
        let mut bits = self.clearing.lock().unwrap_or_else(PoisonError::into_inner);
        if log.pending.is_cleared(block) {
            return Ok(());
        }
        if let Some(first_word) = log.pending.block(block, &mut bits) {
            self.vm
                .clear_log(&log.slot, first_word, &bits)
                .map_err(|error| log_error("KVM_CLEAR_DIRTY_LOG", &log.slot, error))?;
        }
        log.pending.set_cleared(block);
        Ok(())
    }
}

impl DirtySource for KvmLog {
    fn start(&mut self) -> Result<(), HarvestError> {
        // A log that is on already would keep its bits, so one that somebody left on is turned off
        // first: only a log that is turned on begins with every bit set.
        self.turn_off()?;
        for log in &mut self.slots {
            if let Err(error) = set_logging(&self.vm, &log.slot, Logging::On) {
                // The failure to start is the one to report.
                let _ = self.turn_off();
                return Err(error);
            }
            if let Some(asleep) = &mut self.asleep {
                asleep.lay_down(log.slot.pages());
            }
        }
        self.recording = Recording::Begun;
        Ok(())
    }

    fn harvest(&mut self, dirty: &mut PageSet) -> Result<PageCount, HarvestError> {
        if self.recording == Recording::Off {
            return Err(HarvestError::NotRecording);
        }
        for log in &mut self.slots {
            let read = |bits: &mut [_]| self.vm.read_log(&log.slot, bits);
            log.pending
                .read(read)
                .map_err(|error| log_error("KVM_GET_DIRTY_LOG", &log.slot, error))?;
        }
        // After the log was read: what was written before is populated now.
        if let Some(asleep) = &mut self.asleep {
            asleep.wake(&mut |woken| {
                let slots = self.slots.iter_mut();
                slots.for_each(|log| log.pending.insert_range(woken));
            });
        }
        let before = dirty.count();
        let runs = self.asleep.as_ref().map_or(&[][..], Asleep::runs);
        for log in &mut self.slots {
            let slot = log.slot.pages();
            if self.recording == Recording::Begun {
                let awake = asleep::awake(runs, slot);
                awake.for_each(|pages| log.pending.insert_range(pages));
            }
            let first = runs.partition_point(|run| run.end() <= slot.start());
            let asleep = runs[first..].iter().map(|run| run.intersect(slot));
            let asleep = asleep.take_while(|run| !run.is_empty());
            asleep.for_each(|run| log.pending.let_sleep(run));
            let awake = |pages| asleep::awake(runs, pages);
            log.pending.add_to(dirty, awake);
        }
        self.recording = Recording::On;
        Ok(dirty.count().saturating_sub(before))
    }

    fn rearm(&self, chunk: ChunkIndex, pages: &mut ChunkPages) -> Result<(), HarvestError> {
        if self.recording == Recording::Off {
            return Err(HarvestError::NotRecording);
        }
        for log in &self.slots {
            if self.mode != LogMode::ReadClears {
                let mut blocks = log.pending.blocks_of(chunk);
                blocks.try_for_each(|block| self.clear_block(log, block))?;
            }
            if !log.slot.pages().intersect(chunk.pages()).is_empty() {
                log.pending.remove_chunk(chunk, pages);
            }
        }
        Ok(())
    }

    fn stop(&mut self) -> Result<(), HarvestError> {
        if self.recording == Recording::Off {
            return Ok(());
        }
        self.turn_off()
    }

    fn describe(&self) -> &'static str {
        "kvm-log"
    }

    fn overhead_bytes(&self) -> usize {
        let slots = self.slots.iter().map(|log| log.pending.overhead_bytes());
        let asleep = self.asleep.as_ref().map_or(0, Asleep::overhead_bytes);
        slots.sum::<usize>() + asleep
    }
}

impl Drop for KvmLog {
    fn drop(&mut self) {
        // Nobody is left to be told: a VM that refuses this is past being slowed down.
        let _ = self.stop();
    }
}

fn set_logging(vm: &Vm, slot: &Slot, logging: Logging) -> Result<(), HarvestError> {
    vm.set_logging(slot, logging)
        .map_err(|error| HarvestError::kernel("KVM_SET_USER_MEMORY_REGION", slot.pages(), error))
}

/// What the kernel means by refusing to read or clear a log.
fn log_error(call: &'static str, slot: &Slot, error: io::Error) -> HarvestError {
    match error.raw_os_error() {
        Some(libc::ENXIO) => HarvestError::DirtyRingInUse,
        Some(libc::ENOENT) => HarvestError::SlotChanged { slot: slot.id() },
        _ => HarvestError::kernel(call, slot.pages(), error),
    }
}
