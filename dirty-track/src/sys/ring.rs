//! A vCPU's dirty ring: memory that KVM fills and this process empties. What becomes of the pages
//! is `ring.rs`'s.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use limosa_pages::PAGE_BYTES;

/// `KVM_DIRTY_LOG_PAGE_OFFSET`: where a vCPU's file has its ring, in pages.
const RING_OFFSET_PAGES: usize = 64;
/// `KVM_DIRTY_GFN_F_DIRTY`: KVM has filled the entry.
const DIRTY: u32 = 1;
/// `KVM_DIRTY_GFN_F_RESET`: the entry was collected, and its page may be protected again.
const COLLECTED: u32 = 2;

/// `struct kvm_dirty_gfn`
// Source: Linux include/uapi/linux/kvm.h; the protocol: Documentation/virt/kvm/api.rst, 8.29.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Entry {
    flags: AtomicU32,
    slot: AtomicU32,
    offset: AtomicU64,
}

/// How many bytes an entry has.
pub(crate) const ENTRY_BYTES: usize = size_of::<Entry>();

/// A page as KVM names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// As in [`Slot::id`](crate::Slot::id).
    pub(crate) slot: u32,
    /// Which page of the slot.
    pub(crate) offset: u64,
}

/// Hands the filled entries from number `next` on to `written`, marks them as collected, and
/// returns the number of the next. It takes at most as many as there are, or a vCPU that writes on
/// could keep it forever.
pub(crate) fn collect(entries: &[Entry], next: u32, mut written: impl FnMut(Written)) -> u32 {
    let mut at = next;
    for _ in entries {
        // The count of entries is a power of two, so a number that wraps around stays right.
        let Some(entry) = entries.get(at as usize % entries.len()) else {
            break;
        };
        // Pairs with KVM's release: what it says of the page was stored before.
        if entry.flags.load(Ordering::Acquire) & (DIRTY | COLLECTED) != DIRTY {
            break;
        }
        written(Written {
            slot: entry.slot.load(Ordering::Relaxed),
            offset: entry.offset.load(Ordering::Relaxed),
        });
        // Pairs with KVM's acquire: the entry may be filled anew once it was read.
        entry.flags.store(COLLECTED, Ordering::Release);
        at = at.wrapping_add(1);
    }
    at
}

/// How many entries from number `next` on are filled and were not collected. `next` is where
/// [`collect`] ended, and everything before it was given back.
pub(crate) fn filled(entries: &[Entry], next: u32) -> usize {
    let is_filled = |nth: usize| {
        let at = (next as usize).wrapping_add(nth) % entries.len().max(1);
        let flags = entries
            .get(at)
            .map(|entry| entry.flags.load(Ordering::Acquire));
        flags.is_some_and(|flags| flags & (DIRTY | COLLECTED) == DIRTY)
    };
    // KVM fills one after the other: so those that are filled come first.
    let (mut least, mut most) = (0, entries.len());
    while least < most {
        let middle = usize::midpoint(least, most);
        if is_filled(middle) {
            least = middle + 1;
        } else {
            most = middle;
        }
    }
    least
}

/// A vCPU's ring, mapped. It keeps the vCPU alive.
#[derive(Debug)]
pub(crate) struct RingMemory {
    start: NonNull<Entry>,
    entry_count: usize,
}

// SAFETY: the memory holds atomics only, and is unmapped when its only owner goes.
unsafe impl Send for RingMemory {}
// SAFETY: as above.
unsafe impl Sync for RingMemory {}

impl RingMemory {
    /// Maps the ring of `vcpu`, whose VM gives rings of `bytes`.
    pub(crate) fn map(vcpu: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let offset = (RING_OFFSET_PAGES * PAGE_BYTES) as libc::off_t;
        let (place, fd) = (std::ptr::null_mut(), vcpu.as_raw_fd());
        // SAFETY: a new mapping at a place of the kernel's choice.
        let start = unsafe { libc::mmap(place, bytes, access, libc::MAP_SHARED, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self {
            start,
            entry_count: bytes / ENTRY_BYTES,
        })
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        // SAFETY: the mapping is aligned to pages, holds as many entries, lives as long as `self`,
        // and is only accessed as atomics, by KVM as well. KVM gives a vCPU's ring all of the bytes
        // that its VM was set up for, and any bytes are an entry.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.entry_count) }
    }
}

impl Drop for RingMemory {
    fn drop(&mut self) {
        let bytes = self.entry_count * ENTRY_BYTES;
        // SAFETY: this is the mapping that was made, and nobody has a reference to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KVM's side: fills entries, and takes those back that were collected.
    struct FakeKvm {
        entries: Vec<Entry>,
        filled: usize,
        reset: usize,
    }

    impl FakeKvm {
        fn new(count: usize) -> Self {
            Self {
                entries: (0..count).map(|_| Entry::default()).collect(),
                filled: 0,
                reset: 0,
            }
        }

        fn fill(&mut self, slot: u32, offset: u64) {
            let entry = &self.entries[self.filled % self.entries.len()];
            assert_eq!(entry.flags.load(Ordering::Acquire), 0, "not given back");
            entry.slot.store(slot, Ordering::Relaxed);
            entry.offset.store(offset, Ordering::Relaxed);
            entry.flags.store(DIRTY, Ordering::Release);
            self.filled += 1;
        }

        fn reset(&mut self) -> usize {
            let before = self.reset;
            while self.reset < self.filled {
                let entry = &self.entries[self.reset % self.entries.len()];
                if entry.flags.load(Ordering::Acquire) & COLLECTED == 0 {
                    break;
                }
                entry.flags.store(0, Ordering::Release);
                self.reset += 1;
            }
            self.reset - before
        }
    }

    fn collected(kvm: &FakeKvm, next: &mut u32) -> Vec<(u32, u64)> {
        let mut pages = Vec::new();
        *next = collect(&kvm.entries, *next, |written| {
            pages.push((written.slot, written.offset));
        });
        pages
    }

    #[test]
    fn entries_come_out_once_and_in_order() {
        let (mut kvm, mut next) = (FakeKvm::new(4), 0);
        assert_eq!(collected(&kvm, &mut next), []);
        kvm.fill(1 << 16 | 3, u64::MAX);
        kvm.fill(0, 7);
        assert_eq!(
            collected(&kvm, &mut next),
            [(1 << 16 | 3, u64::MAX), (0, 7)]
        );
        assert_eq!(collected(&kvm, &mut next), [], "collected, not reset");
        kvm.fill(2, 9);
        assert_eq!(filled(&kvm.entries, next), 1);
        assert_eq!(kvm.reset(), 2, "what is not collected is not reset");
        assert_eq!(collected(&kvm, &mut next), [(2, 9)]);
    }

    #[test]
    fn a_full_ring_wraps_and_is_taken_once() {
        let (mut kvm, mut next) = (FakeKvm::new(4), u32::MAX - 1);
        // Numbers wrap within the ring's own count too: begin where the last lap ended.
        (kvm.filled, kvm.reset) = (next as usize, next as usize);
        for round in 0..9_u64 {
            for nth in 0..4 {
                assert_eq!(filled(&kvm.entries, next), nth as usize);
                kvm.fill(0, 4 * round + nth);
            }
            assert_eq!(filled(&kvm.entries, next), 4);
            let expected: Vec<_> = (0..4).map(|nth| (0, 4 * round + nth)).collect();
            assert_eq!(collected(&kvm, &mut next), expected);
            assert_eq!(collected(&kvm, &mut next), []);
            assert_eq!(kvm.reset(), 4);
        }
    }
}
