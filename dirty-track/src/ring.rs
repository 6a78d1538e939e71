//! KVM's dirty rings: which pages each vCPU wrote, in the order of its writes. It does not see the
//! VMM's own writes; see `vmm_writes.rs`.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use limosa_pages::{ChunkIndex, ChunkPages, PageCount, PageIndex, PageRange, PageSet};

use crate::asleep::Asleep;
use crate::probe::NO_RING;
use crate::shared_set::SharedPageSet;
use crate::sys::kvm::{Logging, Slot, Vm, ring_offer};
use crate::sys::ring::{RingMemory, Written, collect, filled};
use crate::{DirtySource, HarvestError, Presence};

/// The promise that a VM gives its vCPUs rings, to be turned into [`VcpuRings`] once.
#[derive(Debug)]
pub struct RingSetup {
    bytes: u64,
}

impl RingSetup {
    /// The default size of a vCPU's ring in bytes: 65536 entries, KVM's largest.
    pub const BYTES_DEFAULT: u64 = 1 << 20;

    /// The smallest ring in bytes: 256 entries.
    pub const BYTES_MIN: u64 = 4096;

    /// Lets `vm` give each vCPU a ring of `bytes`, for the rest of its life. It must have no vCPU
    /// yet. It has no dirty log from then on.
    ///
    /// Range [`BYTES_MIN`](Self::BYTES_MIN) to what KVM offers, a power of two; others are brought
    /// into it. A small ring makes a vCPU leave the guest more often, to have it emptied.
    ///
    /// # Errors
    /// [`HarvestError::Unavailable`] where KVM has no rings, and when the kernel refuses: for a VM
    /// that has vCPUs or rings already (`EINVAL`).
    pub fn enable(vm: BorrowedFd<'_>, bytes: u64) -> Result<Self, HarvestError> {
        let failed = |call| move |error| HarvestError::kernel(call, PageRange::empty(), error);
        let offer = ring_offer(vm).map_err(failed("KVM_CHECK_EXTENSION"))?;
        let offer = offer.ok_or(NO_RING)?;
        let bytes = bytes
            .clamp(Self::BYTES_MIN, RING_BYTES_MAX)
            .next_power_of_two()
            .min(offer.bytes_max);
        let vm = Vm::new(vm).map_err(failed("dup"))?;
        vm.enable_ring(offer, bytes)
            .map_err(failed("KVM_ENABLE_CAP"))?;
        Ok(Self { bytes })
    }

    /// How many bytes a vCPU's ring has; an entry takes 16.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// More than any kernel offers, so that the size of a ring is a power of two.
const RING_BYTES_MAX: u64 = 1 << 30;

/// What a vCPU has written since its ring was mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuWrites {
    /// First writes to a page that was protected, as its ring tells them now, whether they were
    /// harvested or not. The difference of two looks, by the time between them, is the vCPU's dirty
    /// rate. A ring that was full counts one page twice.
    pub pages: PageCount,
    /// How often its ring was full, so that the vCPU had to wait until it was emptied.
    pub full_exits: u64,
}

#[derive(Debug)]
struct Ring {
    memory: RingMemory,
    /// The number of the next entry that KVM fills. Nobody can ask KVM for it.
    next: u32,
    writes: VcpuWrites,
}

/// The rings of all vCPUs of a VM, for as long as it lives. The VMM's vCPU threads share it with
/// the [`KvmRing`] of one migration after another.
///
/// # What KVM does, and what is made of it
///
/// KVM puts each page into a vCPU's ring when that vCPU first writes it, and lets it write on. A
/// page is recorded again only after its entry was collected and all rings were *reset*, which
/// protects the pages of collected entries. So entries are collected, reset, and only then put
/// into a set of *pending* pages, from which a rearm takes them: whatever is pending is protected,
/// and a page that is written between harvest and rearm is sent twice. The other order would lose
/// writes, between a rearm and the reset of an entry that was collected meanwhile.
pub struct VcpuRings {
    vm: Vm,
    /// By their numbers.
    slots: Vec<Slot>,
    /// Reported, and not rearmed since.
    pending: SharedPageSet,
    /// Held from the first entry that is collected until all of them are pending: a harvest may
    /// not come between.
    rings: Mutex<Rings>,
    taken: AtomicBool,
}

struct Rings {
    all: Vec<Ring>,
    /// Collected, and not yet pending.
    found: Vec<PageRange>,
}

impl fmt::Debug for VcpuRings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VcpuRings").finish_non_exhaustive()
    }
}

impl VcpuRings {
    /// The rings of `vcpus`, which are all that the VM has, and `slots`, which share no page.
    ///
    /// Chooses the VM's way of protecting: what is written is to be protected when the log is
    /// turned on, as a log that begins with every page protects none, and rings stay empty.
    ///
    /// # Errors
    /// When slots are empty or share pages, and when the kernel refuses: a vCPU that was made
    /// before [`RingSetup::enable`] has no ring to map.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a VM's promise is kept once: its vCPUs' rings are mapped in that size"
    )]
    pub fn new(
        vm: BorrowedFd<'_>,
        setup: RingSetup,
        vcpus: &[BorrowedFd<'_>],
        mut slots: Vec<Slot>,
    ) -> Result<Arc<Self>, HarvestError> {
        slots.sort_by_key(|slot| slot.pages().start());
        crate::check_ranges(slots.iter().map(Slot::pages))?;
        let end = slots
            .last()
            .map_or(PageIndex::ZERO, |slot| slot.pages().end());
        slots.sort_by_key(Slot::id);
        let everything = PageRange::new(PageIndex::ZERO, end).unwrap_or(PageRange::empty());
        let failed = |call| move |error| HarvestError::kernel(call, everything, error);

        let vm = Vm::new(vm).map_err(failed("dup"))?;
        let options = vm
            .manual_protect_options()
            .map_err(failed("KVM_CHECK_EXTENSION"))?;
        if options != 0 {
            vm.set_manual_protect(0).map_err(failed("KVM_ENABLE_CAP"))?;
        }
        let map = |vcpu: &BorrowedFd<'_>| {
            let memory = RingMemory::map(*vcpu, setup.bytes as usize).map_err(failed("mmap"))?;
            Ok(Ring {
                memory,
                next: 0,
                writes: VcpuWrites::default(),
            })
        };
        let all = vcpus.iter().map(map).collect::<Result<_, HarvestError>>()?;
        Ok(Arc::new(Self {
            vm,
            slots,
            pending: SharedPageSet::new(end),
            rings: Mutex::new(Rings {
                all,
                found: Vec::new(),
            }),
            taken: AtomicBool::new(false),
        }))
    }

    /// Empties the rings, on the thread of a vCPU that left the guest with
    /// `KVM_EXIT_DIRTY_RING_FULL` (31). Run the vCPU again after it.
    ///
    /// `vcpu` is its place among those that the rings were made with; the exit is counted for it.
    ///
    /// # Errors
    /// When the kernel refuses to reset the rings: the vCPU would leave the guest at once.
    pub fn make_room(&self, vcpu: usize) -> Result<(), HarvestError> {
        let mut rings = self.lock();
        if let Some(ring) = rings.all.get_mut(vcpu) {
            ring.writes.full_exits += 1;
        }
        self.collect(&mut rings)
    }

    /// What each vCPU has written, in the order of the vCPUs that the rings were made with.
    ///
    /// Takes microseconds, or as long as a harvest that empties the rings meanwhile.
    pub fn writes(&self) -> Vec<VcpuWrites> {
        let rings = self.lock();
        let writes = rings.all.iter().map(|ring| {
            let waiting = PageCount::new(filled(ring.memory.entries(), ring.next) as u64);
            VcpuWrites {
                pages: ring.writes.pages.saturating_add(waiting),
                ..ring.writes
            }
        });
        writes.collect()
    }

    fn lock(&self) -> MutexGuard<'_, Rings> {
        self.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes every page pending that the rings tell of, each protected before.
    fn collect(&self, rings: &mut Rings) -> Result<(), HarvestError> {
        let Rings { all, found } = rings;
        found.clear();
        let mut is_reset_due = false;
        for ring in all {
            let mut entry_count = 0;
            ring.next = collect(ring.memory.entries(), ring.next, |written| {
                entry_count += 1;
                if let Some(page) = self.page(written) {
                    push(found, page);
                }
            });
            ring.writes.pages = ring
                .writes
                .pages
                .saturating_add(PageCount::new(entry_count));
            is_reset_due |= entry_count != 0;
        }
        if !is_reset_due {
            return Ok(());
        }
        let reset = self.vm.reset_rings();
        for pages in found.drain(..) {
            self.pending.insert_range(pages);
        }
        reset.map_err(|error| {
            HarvestError::kernel("KVM_RESET_DIRTY_RINGS", PageRange::empty(), error)
        })
    }

    /// The page of an entry; `None` for slots that are not watched.
    fn page(&self, written: Written) -> Option<PageIndex> {
        let at = self
            .slots
            .binary_search_by_key(&written.slot, Slot::id)
            .ok()?;
        let pages = self.slots.get(at)?.pages();
        let is_inside = written.offset < pages.count().get();
        is_inside.then(|| PageIndex::new(pages.start().get() + written.offset))
    }

    fn set_logging(&self, logging: Logging) -> Result<(), HarvestError> {
        let set = |slot: &Slot| {
            self.vm.set_logging(slot, logging).map_err(|error| {
                HarvestError::kernel("KVM_SET_USER_MEMORY_REGION", slot.pages(), error)
            })
        };
        match logging {
            Logging::On => self.slots.iter().try_for_each(set),
            // As many as can be.
            Logging::Off => self.slots.iter().map(set).fold(Ok(()), Result::and),
        }
    }
}

/// Adds a page to runs; a vCPU often writes one after the other.
fn push(runs: &mut Vec<PageRange>, page: PageIndex) {
    let Some(one) = PageRange::from_start_count(page, PageCount::new(1)) else {
        return;
    };
    match runs.last_mut() {
        Some(last) if last.end() == page => {
            *last = PageRange::new(last.start(), one.end()).unwrap_or(*last);
        }
        _ => runs.push(one),
    }
}

/// The writes of a KVM guest's vCPUs, from KVM's ring of written pages per vCPU.
///
/// A harvest costs 40-56 ns per written page, its protection included, up to 0.3 µs where pages are
/// far apart, and nothing per page that was not written; KVM protects all memory at the start, 3-12
/// ms/GiB with 4 KiB pages, for which [`KvmLog`](crate::KvmLog) has no need. Processors that log
/// pages by themselves (Intel's PML)
/// hand a vCPU's last 512 writes over when it leaves the guest: until then no harvest reports them.
/// Dropping it while it records turns recording off.
pub struct KvmRing {
    rings: Arc<VcpuRings>,
    asleep: Option<Asleep>,
    recording: bool,
}

impl KvmRing {
    /// The source over a VM's rings, which serve one at a time.
    ///
    /// # Errors
    /// [`HarvestError::DirtyRingsTaken`] while there is another.
    pub fn new(rings: Arc<VcpuRings>) -> Result<Self, HarvestError> {
        if rings.taken.swap(true, Ordering::AcqRel) {
            return Err(HarvestError::DirtyRingsTaken);
        }
        Ok(Self {
            rings,
            asleep: None,
            recording: false,
        })
    }

    /// Leaves chunks out that hold nothing, by what `presence` says of the slots' memory, until a
    /// page of theirs is populated. Then the whole chunk counts as written.
    #[must_use]
    pub fn with_presence(mut self, presence: Presence) -> Self {
        self.asleep = Some(Asleep::new(presence));
        self
    }

    /// Takes the pages of slots that no sleeping chunk has as written.
    fn pend_what_is_awake(&mut self) {
        for slot in self.rings.slots.iter().map(Slot::pages) {
            match &mut self.asleep {
                Some(asleep) => {
                    asleep.lay_down(slot);
                    let awake = asleep.awake(slot);
                    awake.for_each(|pages| self.rings.pending.insert_range(pages));
                }
                None => self.rings.pending.insert_range(slot),
            }
        }
    }

    fn turn_off(&mut self) -> Result<(), HarvestError> {
        self.recording = false;
        let off = self.rings.set_logging(Logging::Off);
        // What is left in the rings is of no use, but a full one would keep its vCPU out.
        let emptied = self.rings.collect(&mut self.rings.lock());
        self.rings.pending.remove_all();
        if let Some(asleep) = &mut self.asleep {
            asleep.clear();
        }
        off.and(emptied)
    }
}

impl DirtySource for KvmRing {
    fn start(&mut self) -> Result<(), HarvestError> {
        // Only a log that is turned on protects everything.
        self.turn_off()?;
        if let Err(error) = self.rings.set_logging(Logging::On) {
            // The failure to start is the one to report.
            let _ = self.turn_off();
            return Err(error);
        }
        self.pend_what_is_awake();
        self.recording = true;
        Ok(())
    }

    fn harvest(&mut self, dirty: &mut PageSet) -> Result<PageCount, HarvestError> {
        if !self.recording {
            return Err(HarvestError::NotRecording);
        }
        self.rings.collect(&mut self.rings.lock())?;
        // After the rings were emptied: what was written before is populated now.
        if let Some(asleep) = &mut self.asleep {
            asleep.wake(&mut |woken| self.rings.pending.insert_range(woken));
        }
        let before = dirty.count();
        self.rings.pending.add_to(dirty);
        Ok(dirty.count().saturating_sub(before))
    }

    fn rearm(&self, chunk: ChunkIndex, pages: &mut ChunkPages) -> Result<(), HarvestError> {
        if !self.recording {
            return Err(HarvestError::NotRecording);
        }
        self.rings.pending.remove_chunk(chunk, pages);
        Ok(())
    }

    fn stop(&mut self) -> Result<(), HarvestError> {
        if !self.recording {
            return Ok(());
        }
        self.turn_off()
    }

    fn describe(&self) -> &'static str {
        "kvm-ring"
    }

    fn vcpu_pages(&self) -> Vec<PageCount> {
        let writes = self.rings.writes();
        writes.iter().map(|vcpu| vcpu.pages).collect()
    }

    fn overhead_bytes(&self) -> usize {
        let rings = self.rings.lock();
        let entries = rings.all.iter().map(|ring| ring.memory.entries());
        entries.map(size_of_val).sum::<usize>()
            + rings.found.capacity() * size_of::<PageRange>()
            + self.rings.pending.overhead_bytes()
            + self.asleep.as_ref().map_or(0, Asleep::overhead_bytes)
    }
}

impl Drop for KvmRing {
    fn drop(&mut self) {
        // Nobody is left to be told: a VM that refuses this is past being slowed down.
        let _ = self.stop();
        self.rings.taken.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_in_sequence_become_one_run() {
        let mut runs = Vec::new();
        [5, 6, 7, 9, 8, 9, 9]
            .into_iter()
            .for_each(|page| push(&mut runs, PageIndex::new(page)));
        let runs: Vec<_> = runs
            .iter()
            .map(|run| (run.start().get(), run.end().get()))
            .collect();
        assert_eq!(runs, [(5, 8), (9, 10), (8, 10), (9, 10)]);
    }
}
