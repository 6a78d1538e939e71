//! Access to memory that others see: the vCPU's own stats, the mailbox, pages, APIC registers. The
//! rules at the top of `main.rs` are kept here.

use core::ptr;

use crate::protocol::{MAILBOX, Mailbox, VcpuState};
use crate::stats::{CheckResult, Fault, GAPS_KEPT, Gap, VcpuStats, stats_address};

/// Reads what lies at an address.
#[inline(always)]
pub fn load<T: Copy>(address: u64) -> T {
    // SAFETY: callers pass addresses of `protocol.rs`, of the plan or of the APIC, which are mapped
    // and aligned, and types that are plain numbers.
    unsafe { ptr::with_exposed_provenance::<T>(address as usize).read_volatile() }
}

/// Writes to an address.
#[inline(always)]
pub fn store<T: Copy>(address: u64, value: T) {
    // SAFETY: as `load`; nothing in this program holds a reference to such memory.
    unsafe { ptr::with_exposed_provenance_mut::<T>(address as usize).write_volatile(value) };
}

/// Adds to a number that only this vCPU writes.
#[inline(always)]
pub fn add(address: u64, more: u64) {
    store(address, load::<u64>(address).wrapping_add(more));
}

/// Address of a field of [`VcpuStats`].
macro_rules! field {
    ($own:expr, $($field:tt)+) => {
        $own.base + core::mem::offset_of!($crate::stats::VcpuStats, $($field)+) as u64
    };
}
pub(crate) use field;

/// One vCPU's own stats.
#[derive(Clone, Copy)]
pub struct Own {
    /// The vCPU.
    pub index: u64,
    /// Where its stats lie.
    pub base: u64,
}

impl Own {
    /// The stats of a vCPU.
    pub fn of(index: u64) -> Self {
        Self {
            index,
            base: stats_address(index as usize),
        }
    }

    /// The stats of the vCPU that runs this.
    pub fn start(index: u64) -> Self {
        let own = Self::of(index);
        store(field!(own, index), index as u32);
        own.set_state(VcpuState::Booting);
        own
    }

    /// Says where the vCPU is.
    pub fn set_state(self, state: VcpuState) {
        store(field!(self, state), state.number());
    }

    /// Stops because the parameters break a rule.
    pub fn reject(self, rule: u64) -> ! {
        store(field!(self, fault.vector), rule);
        self.set_state(VcpuState::Rejected);
        crate::cpu::stop()
    }

    /// Why it stopped.
    pub fn fault(self) -> Fault {
        load(field!(self, fault))
    }

    /// Books a stall.
    #[inline(always)]
    pub fn add_stall(self, phase: u32, bucket: usize, ns: u64) {
        let phases = field!(self, phases);
        let one = size_of::<crate::stats::PhaseStalls>() as u64;
        let known = u64::from(phase).min(crate::stats::PHASES as u64 - 1);
        let stalls = phases + known * one;
        add(stalls + 8 + bucket as u64 * 8, 1);
        if ns > load::<u64>(stalls) {
            store(stalls, ns);
        }
    }

    /// Books a downtime: the entry first, then the count.
    pub fn add_gap(self, gap: Gap) {
        let count: u64 = load(field!(self, gap_count));
        let slot = count % GAPS_KEPT as u64 * size_of::<Gap>() as u64;
        store(field!(self, gaps) + slot, gap);
        store(field!(self, gap_count), count.wrapping_add(1));
    }

    /// Answers a check: everything first, then the sequence number.
    pub fn set_check(self, result: CheckResult) {
        let sequence = load::<u64>(field!(self, check.sequence));
        store(field!(self, check), CheckResult { sequence, ..result });
        store(field!(self, check.sequence), result.sequence);
    }

    /// The sequence number of its last check.
    pub fn checked(self) -> u64 {
        load(field!(self, check.sequence))
    }
}

/// Address of a field of the mailbox.
macro_rules! mailbox {
    ($field:ident) => {
        $crate::memory::MAILBOX_BASE
            + core::mem::offset_of!($crate::protocol::Mailbox, $field) as u64
    };
}
pub(crate) use mailbox;

/// For [`mailbox!`].
pub const MAILBOX_BASE: u64 = MAILBOX;

const _: () = {
    // What `add_stall` reckons with.
    assert!(core::mem::offset_of!(crate::stats::PhaseStalls, longest_ns) == 0);
    assert!(core::mem::offset_of!(crate::stats::PhaseStalls, buckets) == 8);
    assert!(size_of::<Mailbox>() == 24 && align_of::<VcpuStats>() == 8);
};

/// The C library's routines that compiled code calls of itself.
mod routines {
    use core::arch::asm;

    // SAFETY: as in C: both areas are valid for `count` bytes and do not overlap.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _,
                inout("rsi") from => _, options(nostack, preserves_flags));
        }
        to
    }

    // SAFETY: as in C: the area is valid for `count` bytes.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe {
            asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _,
                in("al") byte as u8, options(nostack, preserves_flags));
        }
        to
    }
}
