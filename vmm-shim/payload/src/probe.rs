//! The host's view of a running guest: reads its reports and writes its mailbox, through guest
//! memory only. It does not stop, start or wait for anybody.

use zerocopy::{FromZeros, IntoBytes};

use crate::plan::{Plan, PlanFault};
use crate::protocol::{
    CPUID_ENTRIES_MAX, CPUID_MAGIC, CPUID_TABLE, Command, CpuidRecord, CpuidTable, MAILBOX,
    Mailbox, PARAMS, Params, Phase, VCPUS_MAX, VcpuState,
};
use crate::report::{CheckReport, VcpuReport};
use crate::stats::{CheckResult, Fault, VcpuStats, stats_address};

/// Guest memory as a VMM lends it. All addresses asked for lie below
/// [`RESERVED_END`](crate::protocol::RESERVED_END), which every guest maps, so that neither call
/// can fail there.
pub trait GuestBytes {
    /// Copies guest memory out; what no memory backs reads as zero.
    fn read(&self, address: u64, into: &mut [u8]);

    /// Copies into guest memory. While the guest's memory is being migrated the implementation must
    /// record the pages as dirty, because the kernel's log does not see the VMM's own writes. Eight
    /// aligned bytes or fewer are to be written in one piece: the guest reads them meanwhile.
    fn write(&self, address: u64, from: &[u8]);
}

/// Why a guest's report cannot be believed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no payload in this memory, or it rejects its parameters.
    #[error("the memory holds no payload with sensible parameters: {0:?}")]
    NoPayload(PlanFault),
    /// The CPUID table is not written yet, or is being written anew.
    #[error("the guest has not written its CPUID table yet")]
    CpuidPending,
    /// A vCPU stopped with an exception.
    #[error(
        "vCPU {vcpu} stopped: exception {} at {:#x}, error code {:#x}, cr2 {:#x}",
        fault.vector, fault.rip, fault.error_code, fault.cr2
    )]
    Faulted {
        /// Which.
        vcpu: usize,
        /// Why.
        fault: Fault,
    },
    /// A vCPU found its parameters senseless.
    #[error("vCPU {vcpu} rejected its parameters, rule {rule}")]
    Rejected {
        /// Which.
        vcpu: usize,
        /// Number of the [`PlanFault`].
        rule: u64,
    },
    /// A number in guest memory is none of those agreed upon.
    #[error("vCPU {vcpu} reports the unknown state {number}")]
    UnknownState {
        /// Which.
        vcpu: usize,
        /// What it says.
        number: u32,
    },
}

/// Reads and steers one guest.
#[derive(Debug)]
pub struct GuestProbe<M> {
    memory: M,
    vcpu_count: usize,
    params: Params,
    plan: Plan,
}

const SWITCHOVER: u64 = MAILBOX + core::mem::offset_of!(Mailbox, switchover) as u64;
const SEQUENCE: u64 = MAILBOX + core::mem::offset_of!(Mailbox, sequence) as u64;
const COMMAND: u64 = MAILBOX + core::mem::offset_of!(Mailbox, command) as u64;
const PHASE: u64 = MAILBOX + core::mem::offset_of!(Mailbox, phase) as u64;
const CHECK: u64 = core::mem::offset_of!(VcpuStats, check) as u64;

impl<M: GuestBytes> GuestProbe<M> {
    /// Takes up the guest whose memory this is; its parameters must be in place.
    ///
    /// # Errors
    /// [`ProbeError::NoPayload`].
    pub fn new(memory: M) -> Result<Self, ProbeError> {
        let mut params = Params::DEFAULT;
        memory.read(PARAMS, params.as_mut_bytes());
        let plan = Plan::new(&params).map_err(ProbeError::NoPayload)?;
        let vcpu_count = (params.vcpu_count as usize).min(VCPUS_MAX);
        Ok(Self {
            memory,
            vcpu_count,
            params,
            plan,
        })
    }

    /// The guest's parameters.
    #[must_use]
    pub const fn params(&self) -> &Params {
        &self.params
    }

    /// The guest's pages.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The memory that it reads.
    #[must_use]
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// What a vCPU reports.
    ///
    /// # Errors
    /// [`ProbeError::UnknownState`]; a vCPU that stopped is no error here, see
    /// [`VcpuReport::fault`].
    pub fn vcpu(&self, index: usize) -> Result<VcpuReport, ProbeError> {
        let mut stats = VcpuStats::new_zeroed();
        let base = stats_address(index.min(VCPUS_MAX - 1));
        // The guest writes a sequence number after what it covers: so it is read before, and the
        // count of gaps before the gaps.
        let mut check = CheckResult::default();
        self.memory
            .read(base + CHECK, &mut check.as_mut_bytes()[..8]);
        let gaps = base + core::mem::offset_of!(VcpuStats, gap_count) as u64;
        let mut gap_count = [0; 8];
        self.memory.read(gaps, &mut gap_count);
        self.memory.read(base, stats.as_mut_bytes());
        stats.check.sequence = check.sequence;
        stats.gap_count = u64::from_le_bytes(gap_count);
        VcpuReport::decode(index, &stats)
    }

    /// What every vCPU reports.
    ///
    /// # Errors
    /// As [`GuestProbe::vcpu`].
    pub fn vcpus(&self) -> Result<Vec<VcpuReport>, ProbeError> {
        (0..self.vcpu_count).map(|index| self.vcpu(index)).collect()
    }

    /// Whether every vCPU is at work: memory is filled.
    ///
    /// # Errors
    /// [`ProbeError::Faulted`], [`ProbeError::Rejected`], [`ProbeError::UnknownState`].
    pub fn ready(&self) -> Result<bool, ProbeError> {
        let mut all = true;
        for report in self.vcpus()? {
            report.alive()?;
            all &= matches!(report.state, VcpuState::Ready | VcpuState::Checking);
        }
        Ok(all)
    }

    /// Asks every vCPU to verify its memory and returns the number under which it will answer.
    pub fn post_check(&self) -> u64 {
        let sequence = self.number(SEQUENCE).wrapping_add(1);
        self.memory
            .write(COMMAND, &Command::Check.number().to_le_bytes());
        self.memory.write(SEQUENCE, &sequence.to_le_bytes());
        sequence
    }

    /// The verdict of a check; `None` while a vCPU has not answered yet. A later check's verdict
    /// stands for an earlier one's, which a vCPU may have skipped.
    ///
    /// # Errors
    /// As [`GuestProbe::ready`].
    pub fn check(&self, sequence: u64) -> Result<Option<CheckReport>, ProbeError> {
        let mut answers = Vec::with_capacity(self.vcpu_count);
        for report in self.vcpus()? {
            report.alive()?;
            if report.check.sequence < sequence {
                return Ok(None);
            }
            answers.push(report.check);
        }
        let pages = self.plan.touched_pages() + self.plan.untouched_pages();
        Ok(Some(CheckReport::of(pages, &answers)))
    }

    /// Tells the guest under which phase to book its stalls.
    pub fn set_phase(&self, phase: Phase) {
        self.memory.write(PHASE, &phase.number().to_le_bytes());
    }

    /// Counts a switchover: to be called on the target, after the last page and before the first
    /// vCPU. Returns the new number, under which the vCPUs will report their gaps.
    pub fn count_switchover(&self) -> u64 {
        let switchover = self.number(SWITCHOVER).wrapping_add(1);
        self.memory.write(SWITCHOVER, &switchover.to_le_bytes());
        switchover
    }

    /// How many switchovers were counted so far: the number of the last, 0 before the first.
    pub fn switchovers(&self) -> u64 {
        self.number(SWITCHOVER)
    }

    /// CPUID as the boot processor saw it at privilege level 0, at its last
    /// [check](GuestProbe::check) or, before the first, when it started.
    ///
    /// # Errors
    /// [`ProbeError::CpuidPending`] before the guest is [ready](GuestProbe::ready), and while it
    /// reads the table anew: from [`post_check`](GuestProbe::post_check) until the verdict is there
    /// the answer may be of before or after.
    pub fn cpuid(&self) -> Result<Vec<CpuidRecord>, ProbeError> {
        if self.number(CPUID_TABLE) != CPUID_MAGIC {
            return Err(ProbeError::CpuidPending);
        }
        let mut table = CpuidTable::new_zeroed();
        self.memory.read(CPUID_TABLE, table.as_mut_bytes());
        let count = usize::try_from(table.count).unwrap_or(CPUID_ENTRIES_MAX);
        Ok(table.entries.into_iter().take(count).collect())
    }

    fn number(&self, address: u64) -> u64 {
        let mut bytes = [0u8; 8];
        self.memory.read(address, &mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl<T: GuestBytes + ?Sized> GuestBytes for &T {
    fn read(&self, address: u64, into: &mut [u8]) {
        (**self).read(address, into);
    }

    fn write(&self, address: u64, from: &[u8]) {
        (**self).write(address, from);
    }
}

impl<T: GuestBytes + ?Sized> GuestBytes for std::sync::Arc<T> {
    fn read(&self, address: u64, into: &mut [u8]) {
        (**self).read(address, into);
    }

    fn write(&self, address: u64, from: &[u8]) {
        (**self).write(address, from);
    }
}
