//! KVM's dirty log as safe calls on a VM's file descriptor. The order in which they are right is
//! `log.rs`.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use limosa_pages::PageRange;

use super::{Direction, ioctl, request};

/// A memory slot of a VM as it was given to KVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    id: u32,
    pages: PageRange,
    host_address: u64,
}

impl Slot {
    /// Slot `id` (its low 16 bits the slot, the high ones the address space), which maps the
    /// guest's `pages` to the memory at `host_address` of this process.
    ///
    /// Read-only slots and slots with a `guest_memfd` are not to be watched: the guest cannot write
    /// the first kind, and KVM keeps no log of the second.
    ///
    /// # Safety
    /// The VM that a [`KvmLog`](crate::KvmLog) or [`VcpuRings`](crate::VcpuRings) are given this
    /// slot for has a slot with exactly these properties, and keeps it for as long as they record.
    /// KVM offers no call that changes a slot's flags only: for a slot that it does not have, the
    /// same call hands the memory at `host_address` to the guest.
    pub unsafe fn new(id: u32, pages: PageRange, host_address: u64) -> Self {
        Self {
            id,
            pages,
            host_address,
        }
    }

    /// The slot's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The guest's pages in the slot.
    pub fn pages(&self) -> PageRange {
        self.pages
    }

    /// Words of 64 pages in the slot's log.
    pub(crate) fn word_count(&self) -> usize {
        self.pages.count().get().div_ceil(u64::BITS.into()) as usize
    }
}

/// Whether KVM logs the writes to a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logging {
    Off = 0,
    /// `KVM_MEM_LOG_DIRTY_PAGES`
    On = 1,
}

// Source for all below: Linux include/uapi/linux/kvm.h and Documentation/virt/kvm/api.rst.
const KVMIO: u8 = 0xAE;
const KVM_CHECK_EXTENSION: u64 = (KVMIO as u64) << 8 | 0x03;
const KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: u32 = 168;
/// `KVM_CAP_DIRTY_LOG_RING_ACQ_REL` (Linux 6.1), and `KVM_CAP_DIRTY_LOG_RING` (5.11), which only
/// x86 has and whose protocol is the same there.
const RING_CAPS: [u32; 2] = [223, 192];
const KVM_RESET_DIRTY_RINGS: u64 = (KVMIO as u64) << 8 | 0xc7;

/// `struct kvm_userspace_memory_region`
#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_phys_addr: u64,
    memory_size: u64,
    userspace_addr: u64,
}

/// `struct kvm_enable_cap`
#[repr(C)]
struct EnableCap {
    cap: u32,
    flags: u32,
    args: [u64; 4],
    pad: [u8; 64],
}

/// `struct kvm_dirty_log`
#[repr(C)]
struct DirtyLog {
    slot: u32,
    padding: u32,
    dirty_bitmap: *mut u64,
}

/// `struct kvm_clear_dirty_log`
#[repr(C)]
struct ClearDirtyLog {
    slot: u32,
    num_pages: u32,
    first_page: u64,
    dirty_bitmap: *const u64,
}

/// While it lives, signals to this thread wait.
struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    fn new() -> io::Result<Self> {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: the call fills the set, which is a plain local value.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        let (how, all) = (libc::SIG_SETMASK, all.as_ptr());
        // SAFETY: both sets are local values; the first was filled above.
        match unsafe { libc::pthread_sigmask(how, all, before.as_mut_ptr()) } {
            0 => Ok(Self {
                // SAFETY: the call succeeded, and has filled the set.
                before: unsafe { before.assume_init() },
            }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        let nowhere = std::ptr::null_mut();
        // SAFETY: the set is the one that the thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, nowhere) };
    }
}

/// What `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2` can do: bit 0 for clearing apart from reading, bit 1
/// for logs that begin with every bit set; 0 where the kernel has neither. `fd` is a VM's, or
/// `/dev/kvm` itself.
pub(crate) fn manual_protect_options(fd: BorrowedFd<'_>) -> io::Result<u64> {
    check_extension(fd, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
}

/// The largest dirty ring in bytes, and the capability that turns it on; `None` where the kernel
/// has none. `fd` is a VM's, or `/dev/kvm` itself.
pub(crate) fn ring_offer(fd: BorrowedFd<'_>) -> io::Result<Option<RingOffer>> {
    for cap in RING_CAPS {
        let bytes_max = check_extension(fd, cap)?;
        if bytes_max != 0 {
            return Ok(Some(RingOffer { cap, bytes_max }));
        }
    }
    Ok(None)
}

fn check_extension(fd: BorrowedFd<'_>, capability: u32) -> io::Result<u64> {
    let capability = libc::c_ulong::from(capability);
    // SAFETY: this request takes a number, and nothing in this process is written.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), KVM_CHECK_EXTENSION as _, capability) };
    u64::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// A dirty ring that KVM can give each vCPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingOffer {
    cap: u32,
    pub(crate) bytes_max: u64,
}

/// A VM's file descriptor. It keeps the VM alive.
pub(crate) struct Vm(OwnedFd);

impl Vm {
    pub(crate) fn new(vm: BorrowedFd<'_>) -> io::Result<Self> {
        vm.try_clone_to_owned().map(Self)
    }

    pub(crate) fn manual_protect_options(&self) -> io::Result<u64> {
        manual_protect_options(self.0.as_fd())
    }

    /// Chooses what reading a log does to it, by the bits of [`manual_protect_options`]. Doing so
    /// again is allowed, but logs that are on keep the bits that they have.
    pub(crate) fn set_manual_protect(&self, options: u64) -> io::Result<()> {
        self.enable(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, options)
    }

    /// Gives each vCPU that is made from now on a ring of `bytes`, a power of two.
    pub(crate) fn enable_ring(&self, offer: RingOffer, bytes: u64) -> io::Result<()> {
        self.enable(offer.cap, bytes)
    }

    fn enable(&self, cap: u32, option: u64) -> io::Result<()> {
        let mut argument = EnableCap {
            cap,
            flags: 0,
            args: [option, 0, 0, 0],
            pad: [0; 64],
        };
        const KVM_ENABLE_CAP: u64 = request::<EnableCap>(Direction::Write, KVMIO, 0xa3);
        // SAFETY: the argument is of the request's type and holds no pointer.
        unsafe { ioctl(self.0.as_fd(), KVM_ENABLE_CAP, &mut argument) }.map(drop)
    }

    /// Protects the pages of every ring's collected entries again, and gives the entries back.
    ///
    /// A signal that comes meanwhile makes Linux 6.16 and later return early: without an error, and
    /// with up to 64 entries given back whose pages were *not* protected, so that writes to them
    /// are lost. Hence signals wait until it is done; a vCPU's thread, which gets one when it is
    /// called out, comes here too. Source: `kvm_dirty_ring_reset` in Linux virt/kvm/dirty_ring.c.
    pub(crate) fn reset_rings(&self) -> io::Result<()> {
        let _blocked = SignalsBlocked::new()?;
        // SAFETY: this request takes no argument, and touches no memory but the rings, which are
        // read and written as atomics.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), KVM_RESET_DIRTY_RINGS as _, 0) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Turns the log of `slot` on or off; harmless where it is so already.
    pub(crate) fn set_logging(&self, slot: &Slot, logging: Logging) -> io::Result<()> {
        let mut argument = MemoryRegion {
            slot: slot.id,
            flags: logging as u32,
            guest_phys_addr: slot.pages.start().address().get(),
            memory_size: slot.pages.count().bytes(),
            userspace_addr: slot.host_address,
        };
        const KVM_SET_USER_MEMORY_REGION: u64 =
            request::<MemoryRegion>(Direction::Write, KVMIO, 0x46);
        // SAFETY: the argument is of the request's type. Its address is not used by the kernel on
        // our behalf; that the guest may use it was promised when the `Slot` was made.
        unsafe { ioctl(self.0.as_fd(), KVM_SET_USER_MEMORY_REGION, &mut argument) }.map(drop)
    }

    /// Reads the log of `slot` into `bits`: bit *i* for the slot's *i*-th page.
    pub(crate) fn read_log(&self, slot: &Slot, bits: &mut [AtomicU64]) -> io::Result<()> {
        if bits.len() < slot.word_count() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut argument = DirtyLog {
            slot: slot.id,
            padding: 0,
            // An atomic word lies in memory as a plain one.
            dirty_bitmap: bits.as_mut_ptr().cast(),
        };
        const KVM_GET_DIRTY_LOG: u64 = request::<DirtyLog>(Direction::Write, KVMIO, 0x42);
        // SAFETY: the argument is of the request's type. KVM writes one bit per page of the slot,
        // rounded up to words, and `bits` holds as many words: the slot's size was promised when
        // the `Slot` was made.
        unsafe { ioctl(self.0.as_fd(), KVM_GET_DIRTY_LOG, &mut argument) }.map(drop)
    }

    /// Clears the pages of `slot` whose bits are set in `bits`, of which bit 0 is the page `64 *
    /// first_word` of the slot; from then on a write to them is logged again.
    ///
    /// The kernel wants whole words, or the end of the slot: so this call takes words.
    pub(crate) fn clear_log(&self, slot: &Slot, first_word: usize, bits: &[u64]) -> io::Result<()> {
        let first_page = first_word as u64 * u64::from(u64::BITS);
        let page_count = slot.pages.count().get().saturating_sub(first_page);
        let num_pages = page_count.min(bits.len() as u64 * u64::from(u64::BITS));
        let mut argument = ClearDirtyLog {
            slot: slot.id,
            num_pages: u32::try_from(num_pages).map_err(|_| io::ErrorKind::InvalidInput)?,
            first_page,
            dirty_bitmap: bits.as_ptr(),
        };
        const KVM_CLEAR_DIRTY_LOG: u64 = request::<ClearDirtyLog>(Direction::Both, KVMIO, 0xc0);
        // SAFETY: the argument is of the request's type. KVM reads one bit for each of `num_pages`
        // pages, rounded up to words, and `bits` has at least as many.
        unsafe { ioctl(self.0.as_fd(), KVM_CLEAR_DIRTY_LOG, &mut argument) }.map(drop)
    }
}
