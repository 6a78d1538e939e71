//! The guest's two clocks, kvmclock and TSC: taken with the instant at which they were read, and
//! set forward by what has passed since. So the guest sees its own downtime, on both clocks alike.
//!
//! The way is that of Linux Documentation/virt/kvm/devices/vcpu.rst, `KVM_VCPU_TSC_OFFSET`: KVM
//! says in one call what kvmclock, host TSC and real time are at one instant; the target sets
//! kvmclock forward, asks again, and moves every vCPU's TSC by the same time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kvm_bindings::{KVM_CLOCK_HOST_TSC, KVM_CLOCK_REALTIME, kvm_clock_data};
use kvm_ioctls::VmFd;
use limosa_wire::codec::{Codec, Reader, Writer};
use limosa_wire::{DecodeError, EncodeError};

use super::codec::{put_maybe, take_maybe};
use super::error::StateError;

/// The longest time that clocks are set forward. State travels in less than a second; where more
/// seems to have passed, the two hosts' clocks disagree, and the guest's go on from where they
/// were.
pub(crate) const FORWARD_MAX: Duration = Duration::from_secs(60);

/// kvmclock and the instant at which it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClockState {
    /// kvmclock in nanoseconds.
    pub(crate) clock_ns: u64,
    /// Real time since 1970 in nanoseconds, at the same instant.
    pub(crate) realtime_ns: u64,
    /// The host's TSC at the same instant, where KVM knows it.
    pub(crate) host_tsc: Option<u64>,
}

impl Codec for ClockState {
    fn encode(&self, writer: &mut Writer) -> Result<(), EncodeError> {
        writer.u64(self.clock_ns);
        writer.u64(self.realtime_ns);
        put_maybe(writer, self.host_tsc);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            clock_ns: reader.u64()?,
            realtime_ns: reader.u64()?,
            host_tsc: take_maybe(reader, "host TSC")?,
        })
    }
}

impl ClockState {
    /// Reads the machine's clock.
    pub(crate) fn take(vm: &VmFd) -> Result<Self, StateError> {
        let now = realtime_ns();
        let clock = vm
            .get_clock()
            .map_err(StateError::machine("KVM_GET_CLOCK"))?;
        let says = |flag| clock.flags & flag != 0;
        Ok(Self {
            clock_ns: clock.clock,
            // Kernels before 5.16, and hosts without a stable TSC, give no instant: the one just
            // before the call is the best there is.
            realtime_ns: if says(KVM_CLOCK_REALTIME) {
                clock.realtime
            } else {
                now
            },
            host_tsc: says(KVM_CLOCK_HOST_TSC).then_some(clock.host_tsc),
        })
    }

    /// Sets the machine's clock to this one, forward by what has passed. Says how much that was,
    /// and the host's TSC then.
    pub(crate) fn put(&self, vm: &VmFd) -> Result<Forward, StateError> {
        let passed = passed(self.realtime_ns, realtime_ns());
        let clock = kvm_clock_data {
            clock: self.clock_ns.saturating_add(nanoseconds(passed)),
            ..kvm_clock_data::default()
        };
        vm.set_clock(&clock)
            .map_err(StateError::machine("KVM_SET_CLOCK"))?;
        let now = Self::take(vm)?;
        Ok(Forward {
            passed: Duration::from_nanos(now.clock_ns.saturating_sub(self.clock_ns)),
            host_tsc: now.host_tsc,
        })
    }
}

/// How far the clocks were set forward.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Forward {
    /// By kvmclock.
    pub(crate) passed: Duration,
    /// This host's TSC at that instant, where KVM knows it.
    pub(crate) host_tsc: Option<u64>,
}

/// A vCPU's TSC at the instant of the machine's [`ClockState`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TscState {
    /// What the guest would have read.
    pub(crate) value: u64,
    /// Its frequency in kHz; 0 where KVM does not say.
    pub(crate) khz: u32,
}

impl TscState {
    /// The value after so much time.
    pub(crate) fn after(&self, passed: Duration) -> u64 {
        let counts = passed.as_nanos().saturating_mul(u128::from(self.khz)) / 1_000_000;
        self.value
            .wrapping_add(u64::try_from(counts).unwrap_or(u64::MAX))
    }
}

fn passed(then_ns: u64, now_ns: u64) -> Duration {
    let passed = Duration::from_nanos(now_ns.saturating_sub(then_ns));
    if passed > FORWARD_MAX {
        Duration::ZERO
    } else {
        passed
    }
}

fn realtime_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    nanoseconds(now.unwrap_or_default())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_go_forward_only_and_within_reason() {
        assert_eq!(passed(1_000, 4_000), Duration::from_nanos(3_000));
        assert_eq!(passed(4_000, 1_000), Duration::ZERO);
        assert_eq!(passed(0, 60_000_000_000), FORWARD_MAX);
        assert_eq!(passed(0, 60_000_000_001), Duration::ZERO);
    }

    #[test]
    fn the_tsc_advances_with_its_own_frequency() {
        let tsc = TscState {
            value: u64::MAX - 9,
            khz: 2_500_000,
        };
        assert_eq!(tsc.after(Duration::from_nanos(8)), 10);
        assert_eq!(tsc.after(Duration::ZERO), u64::MAX - 9);
        let slow = TscState { value: 5, khz: 0 };
        assert_eq!(slow.after(FORWARD_MAX), 5);
    }
}
