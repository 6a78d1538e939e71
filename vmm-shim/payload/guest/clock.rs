//! Time stamps to nanoseconds, and the APIC timer; it decides nothing about either.

use crate::cpu;
use crate::memory::{load, store};
use crate::protocol::Params;
use crate::tables::TIMER_VECTOR;

const APIC: u64 = 0xfee0_0000;
const SPURIOUS: u64 = APIC + 0xf0;
const TIMER: u64 = APIC + 0x320;
const LINT0: u64 = APIC + 0x350;
const INITIAL: u64 = APIC + 0x380;
const CURRENT: u64 = APIC + 0x390;
const DIVIDE: u64 = APIC + 0x3e0;

const MASKED: u32 = 1 << 16;
const PERIODIC: u32 = 1 << 17;
const BY_ONE: u32 = 0xb;
/// How long the counter is measured; a register read takes some microseconds.
const MEASURE_NS: u32 = 20_000_000;

/// The frequency of the time stamp counter.
#[derive(Clone, Copy)]
pub struct Clock {
    /// In kHz.
    pub khz: u64,
    /// Nanoseconds per count, 32 bits after the point.
    scale: u64,
}

impl Clock {
    /// The given frequency, or the measured one.
    pub fn new(params: &Params) -> Self {
        let khz = if params.tsc_khz == 0 {
            measure()
        } else {
            params.tsc_khz
        };
        let khz = khz.max(1);
        Self {
            khz,
            scale: (1_000_000u64 << 32) / khz,
        }
    }

    /// Counts to nanoseconds.
    #[inline(always)]
    pub fn ns(self, counts: u64) -> u64 {
        ((u128::from(counts) * u128::from(self.scale)) >> 32) as u64
    }

    /// Nanoseconds to counts; for up to some hours.
    pub fn counts(self, ns: u64) -> u64 {
        ns.saturating_mul(self.khz) / 1_000_000
    }
}

fn enable() {
    store(LINT0, MASKED);
    store(SPURIOUS, 0x1ff_u32);
    store(DIVIDE, BY_ONE);
}

/// Starts a timer interrupt every so many counts. A period does not have to be set anew after each
/// tick, so a tick that is lost in a migration costs one tick, not the guest.
pub fn start_ticks(counts: u64) {
    enable();
    store(TIMER, TIMER_VECTOR | PERIODIC);
    store(INITIAL, counts as u32);
}

/// Counts of the time stamp counter per millisecond of the APIC timer.
fn measure() -> u64 {
    enable();
    store(TIMER, TIMER_VECTOR | MASKED);
    store(INITIAL, u32::MAX);
    let (first, start) = (load::<u32>(CURRENT), cpu::time());
    loop {
        let (passed, now) = (first.wrapping_sub(load::<u32>(CURRENT)), cpu::time());
        if passed >= MEASURE_NS {
            store(INITIAL, 0u32);
            return now.wrapping_sub(start).saturating_mul(1_000_000) / u64::from(passed);
        }
    }
}
