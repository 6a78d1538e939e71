//! What an operator asks of a guest, checked before anything is made. It reserves no memory.

use std::time::Duration;

use limosa_compat::{HostCpu, Mode, Processor};
use limosa_pages::PAGE_BYTES;
use limosa_payload::protocol::{
    Fill, HOLE, MAPPED_END, PLANNED_END, Params, Pattern, Probe, VCPUS_MAX,
};
use limosa_payload::{ParamsError, Serial, pc_memory};

use crate::tracking::Tracking;

/// The smallest guest: the payload keeps 16 MiB for itself.
pub const GUEST_BYTES_MIN: u64 = 32 << 20;

/// The largest guest on KVM: what the payload's page tables map, without the hole below 4 GiB.
pub const GUEST_BYTES_MAX: u64 = MAPPED_END - (HOLE.end - HOLE.start);

/// The largest process guest.
pub const PROCESS_BYTES_MAX: u64 = PLANNED_END - (HOLE.end - HOLE.start);

/// What the payload takes besides the memory that it fills: itself, and its write counters of a
/// working set of 16 GiB.
const PAYLOAD_BYTES_MAX: u64 = 32 << 20;

/// Most vCPUs of a guest.
pub const VCPU_COUNT_MAX: u16 = VCPUS_MAX as u16;

/// Where a guest's memory comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Backing {
    /// Private anonymous memory.
    #[default]
    Anonymous,
    /// A memory file, which other processes could map too.
    Memfd,
}

/// How the host is to size the pages behind a guest's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HugePages {
    /// In 2 MiB where it can (`MADV_HUGEPAGE`).
    #[default]
    Advised,
    /// Always in 4 KiB (`MADV_NOHUGEPAGE`).
    Avoided,
}

/// When a host populates the memory of guests that it takes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Populate {
    /// As pages arrive; what is never sent takes no memory.
    #[default]
    OnArrival,
    /// All of it (`MADV_POPULATE_WRITE`), before the host takes anybody in: pages then land without
    /// faults. For one guest; others wait until theirs is populated too.
    Ahead {
        /// Memory of the guest to come, in bytes, as its [`GuestSpec`] has it.
        memory_bytes: u64,
    },
}

/// How much memory the host must have to spare before a guest's is mapped.
///
/// With heuristic overcommit the kernel grants mappings that it can't fill; the guest would be
/// killed later, in the middle of a migration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Room {
    /// As much as the guest has.
    #[default]
    All,
    /// So many bytes, or as much as the guest has where that is less: it will not touch more.
    Bytes(u64),
}

/// What the guest does all day.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkloadSpec {
    /// What touched pages hold. Default random.
    pub fill: Fill,
    /// Share of the memory that is filled, in percent, 0..=100. Default 100.
    pub touched_percent: u32,
    /// The same in bytes, instead of the percentage; more than all counts as all. Default none.
    pub touched_bytes: Option<u64>,
    /// Bytes that are written again and again, over all vCPUs; rounded down to pages, at most what
    /// is touched. Default 0.
    pub working_set_bytes: u64,
    /// Page writes per second over all vCPUs; 0, the default, writes nothing.
    pub dirty_pages_per_second: u64,
    /// Order of the writes. Default sequential.
    pub pattern: Pattern,
    /// How vCPUs notice that they stood still. Default spin.
    pub probe: Probe,
    /// Timer period of the sleeping probe, 50 us to 10 s. Default 1 ms.
    pub tick: Duration,
    /// Chooses content and random writes. Default 1.
    pub seed: u64,
    /// Whether the guest prints on its serial port. Default off: every byte is an exit.
    pub serial: Serial,
}

impl Default for WorkloadSpec {
    fn default() -> Self {
        Self {
            fill: Fill::Random,
            touched_percent: 100,
            touched_bytes: None,
            working_set_bytes: 0,
            dirty_pages_per_second: 0,
            pattern: Pattern::Sequential,
            probe: Probe::Spin,
            tick: Duration::from_millis(1),
            seed: 1,
            serial: Serial::Off,
        }
    }
}

/// Whether a guest may start on a host that shows it more than its mode allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Enforcement {
    /// It may not: the baseline would be a false promise.
    #[default]
    Strict,
    /// It may, and is judged from then on by what it really sees.
    Unenforced,
}

/// The processor that a guest is to see: chosen before it starts, and fixed for its life.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CpuSpec {
    /// How much of the host it sees. Default [`Mode::Off`]: all that can travel.
    pub mode: Mode,
    /// The offers of other hosts that it is to move to; [`Mode::Common`] and fixed baselines heed
    /// them.
    pub pool: Vec<Processor>,
    /// The host that this one pretends to be, and never more than it truly is.
    pub pretend: Option<HostCpu>,
    /// What to do where KVM shows it more than its mode allows.
    pub enforcement: Enforcement,
}

/// A guest to boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestSpec {
    /// Its memory in bytes, whole pages, [`GUEST_BYTES_MIN`] to [`GUEST_BYTES_MAX`], or of a
    /// process guest to [`PROCESS_BYTES_MAX`].
    pub memory_bytes: u64,
    /// Its vCPUs, 1..=[`VCPU_COUNT_MAX`].
    pub vcpu_count: u16,
    /// Where its memory comes from.
    pub backing: Backing,
    /// How the host sizes the pages behind it.
    pub huge_pages: HugePages,
    /// What it does.
    pub workload: WorkloadSpec,
    /// What it sees of the processor.
    pub cpu: CpuSpec,
    /// How the writes to its memory are recorded while it is here.
    pub tracking: Tracking,
}

/// Why no guest can be made of a [`GuestSpec`].
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
pub enum SpecError {
    /// Too little or too much memory, or a broken page.
    #[error(
        "{found} bytes of guest memory: give a multiple of 4096 from {GUEST_BYTES_MIN} (32 MiB) \
         to {max} ({} GiB)", max >> 30
    )]
    MemoryBytes {
        /// What was asked for.
        found: u64,
        /// The most that this kind of guest can have.
        max: u64,
    },
    /// No vCPU, or too many.
    #[error("{found} vCPUs: give 1 to {VCPU_COUNT_MAX}")]
    VcpuCount {
        /// What was asked for.
        found: u16,
    },
    /// More than all of the memory is to be touched.
    #[error("{found} percent of touched memory: give 0 to 100")]
    TouchedPercent {
        /// What was asked for.
        found: u32,
    },
    /// A tick out of bounds.
    #[error("a tick of {found:?}: give 50 us to 10 s")]
    Tick {
        /// What was asked for.
        found: Duration,
    },
    /// The workload does not fit the guest.
    #[error("the workload does not fit: {0}; {remedy}", remedy = remedy(.0))]
    Workload(ParamsError),
}

/// What to do where a workload does not fit.
const fn remedy(error: &ParamsError) -> &'static str {
    match error {
        ParamsError::WorkingSetTooSmall => "give a larger working set, or a rate of 0",
        _ => "lower the working set or the rate, or give more memory",
    }
}

impl GuestSpec {
    /// One idle vCPU in `memory_bytes` of random content.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            vcpu_count: 1,
            backing: Backing::default(),
            huge_pages: HugePages::default(),
            workload: WorkloadSpec::default(),
            cpu: CpuSpec::default(),
            tracking: Tracking::default(),
        }
    }

    /// Checks everything that can be known of a guest on KVM without asking the host, and says it
    /// in the guest's own words. A `tsc_khz` of 0 lets the guest measure the frequency by itself.
    ///
    /// # Errors
    /// The first field that is out of range, with the range.
    pub fn params(&self, tsc_khz: u32) -> Result<Params, SpecError> {
        self.params_below(MAPPED_END, tsc_khz)
    }

    /// The same of a process guest.
    ///
    /// # Errors
    /// As [`params`](Self::params).
    pub fn process_params(&self, tsc_khz: u32) -> Result<Params, SpecError> {
        self.params_below(PLANNED_END, tsc_khz)
    }

    /// How much memory it takes on any host: what it touches, and what the payload keeps besides.
    #[must_use]
    pub fn room(&self) -> Room {
        let percent = u64::from(self.workload.touched_percent.min(100));
        let by_percent = (percent < 100).then(|| self.memory_bytes / 100 * percent);
        let touched = self.workload.touched_bytes.or(by_percent);
        touched.map_or(Room::All, |bytes| {
            Room::Bytes(bytes.saturating_add(PAYLOAD_BYTES_MAX))
        })
    }

    fn params_below(&self, end_max: u64, tsc_khz: u32) -> Result<Params, SpecError> {
        let (found, max) = (self.memory_bytes, end_max - (HOLE.end - HOLE.start));
        let whole = found.is_multiple_of(PAGE_BYTES as u64);
        if !whole || !(GUEST_BYTES_MIN..=max).contains(&found) {
            return Err(SpecError::MemoryBytes { found, max });
        }
        let found = self.vcpu_count;
        if !(1..=VCPU_COUNT_MAX).contains(&found) {
            return Err(SpecError::VcpuCount { found });
        }
        let workload = &self.workload;
        if workload.touched_percent > 100 {
            let found = workload.touched_percent;
            return Err(SpecError::TouchedPercent { found });
        }
        let (tick_min, tick_max) = (Duration::from_micros(50), Duration::from_secs(10));
        if !(tick_min..=tick_max).contains(&workload.tick) {
            let found = workload.tick;
            return Err(SpecError::Tick { found });
        }
        let payload = limosa_payload::GuestSpec {
            memory: pc_memory(self.memory_bytes),
            vcpu_count: self.vcpu_count.into(),
            fill: workload.fill,
            touched_percent: workload.touched_percent,
            touched_bytes: workload.touched_bytes,
            end_max,
            seed: workload.seed,
            working_set_bytes: workload.working_set_bytes,
            dirty_pages_per_second: workload.dirty_pages_per_second,
            pattern: workload.pattern,
            probe: workload.probe,
            tick: workload.tick,
            tsc_khz,
            serial: workload.serial,
            ..limosa_payload::GuestSpec::new(self.memory_bytes)
        };
        payload.params().map_err(SpecError::Workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_guest_is_accepted() {
        let spec = GuestSpec::new(64 << 20);
        let params = spec.params(0).expect("params");
        assert_eq!(params.vcpu_count, 1);
    }

    #[test]
    fn what_is_out_of_range_is_named_with_its_range() {
        let with = |change: fn(&mut GuestSpec)| {
            let mut spec = GuestSpec::new(64 << 20);
            change(&mut spec);
            spec.params(0).expect_err("must be refused").to_string()
        };
        assert!(with(|spec| spec.memory_bytes = 0).contains("32 MiB"));
        assert!(with(|spec| spec.memory_bytes = u64::MAX).contains("63 GiB"));
        assert!(with(|spec| spec.memory_bytes += 1).contains("4096"));
        assert!(with(|spec| spec.vcpu_count = 0).contains("1 to 8"));
        assert!(with(|spec| spec.vcpu_count = 9).contains("1 to 8"));
        assert!(with(|spec| spec.workload.touched_percent = 101).contains("0 to 100"));
        assert!(with(|spec| spec.workload.tick = Duration::ZERO).contains("50 us"));
        assert!(with(|spec| spec.workload.working_set_bytes = 1 << 40).contains("working set"));
        assert!(with(|spec| spec.workload.dirty_pages_per_second = 1).contains("larger"));
    }
}
