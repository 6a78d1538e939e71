//! Hosts that take guests in: what they may be asked for, and the empty guests that they make.

use kvm_ioctls::Kvm;
use limosa_compat::{HostCpu, restrict};
use limosa_dirty::{Choice, GuestKind};
use limosa_wire::{Offer, STREAMS_MAX};

use crate::cpu::{self, Answers, CpuError};
use crate::error::ShimError;
use crate::guest::{KVM_MACHINE, KvmGuest};
use crate::offer;
use crate::process::{self, PROCESS_MACHINE, ProcessGuest};
use crate::spec::{Backing, HugePages, PROCESS_BYTES_MAX, Populate, Room, VCPU_COUNT_MAX};
use crate::state::section_kinds;
use crate::stock::MemoryStock;
use crate::tracking::Tracking;
use crate::vm;

/// What a host gives the guests that it takes in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostSpec {
    /// Largest guest memory in bytes. Default [`PROCESS_BYTES_MAX`]; what is really there is looked
    /// up when a guest comes.
    pub memory_bytes_max: u64,
    /// Most vCPUs of a guest. Default [`VCPU_COUNT_MAX`].
    pub vcpu_count_max: u16,
    /// Most page streams, 1 to 64. Default 64.
    pub stream_count_max: u16,
    /// Where guests' memory comes from.
    pub backing: Backing,
    /// How the host sizes the pages behind it.
    pub huge_pages: HugePages,
    /// When guests' memory is populated. Default as pages arrive.
    pub populate: Populate,
    /// How much memory must be there when a guest comes. Default all of the guest's.
    pub room: Room,
    /// The host that this one pretends to be, and never more than it truly is. Default none.
    pub pretend: Option<HostCpu>,
    /// How the writes to guests' memory are recorded here, when they move on.
    pub tracking: Tracking,
}

impl Default for HostSpec {
    fn default() -> Self {
        Self {
            memory_bytes_max: PROCESS_BYTES_MAX,
            vcpu_count_max: VCPU_COUNT_MAX,
            stream_count_max: STREAMS_MAX,
            backing: Backing::default(),
            huge_pages: HugePages::default(),
            populate: Populate::default(),
            room: Room::default(),
            pretend: None,
            tracking: Tracking::default(),
        }
    }
}

/// A host with KVM.
#[derive(Debug)]
pub struct KvmHost {
    spec: HostSpec,
    memory: MemoryStock,
    tracking: Choice,
    cpu: HostCpu,
    answers: Answers,
    // Open as long as the host takes guests in: so is the module.
    kvm: Kvm,
}

impl KvmHost {
    /// Asks this host's KVM what it can give guests, which takes some milliseconds, and populates
    /// memory for them where that is to be done ahead, which takes longer.
    ///
    /// # Errors
    /// [`ShimError::Vm`] where there is no KVM, with what to do; [`ShimError::Cpu`];
    /// [`ShimError::Tracking`]; [`ShimError::Ram`] where there is no memory.
    pub fn new(spec: HostSpec) -> Result<Self, ShimError> {
        let kvm = vm::open_kvm()?;
        let answers = Answers::ask(&kvm)?;
        Ok(Self {
            cpu: pretend(cpu::host_of(&kvm, &answers)?, &spec)?,
            tracking: spec.tracking.settle(GuestKind::Kvm)?,
            memory: MemoryStock::new(&spec)?,
            spec,
            answers,
            kvm,
        })
    }

    /// What guests may have now. As long as KVM's answers are those that it gave at first, so is
    /// this; a module that was loaded anew, or new microcode, may have changed them.
    ///
    /// # Errors
    /// [`ShimError::Cpu`], when KVM can't be asked.
    pub fn survey(&self) -> Result<HostCpu, ShimError> {
        let answers = Answers::ask(&self.kvm)?;
        if answers == self.answers {
            return Ok(self.cpu.clone());
        }
        Ok(pretend(cpu::host_of(&self.kvm, &answers)?, &self.spec)?)
    }

    /// What guests may be asked for.
    #[must_use]
    pub const fn spec(&self) -> &HostSpec {
        &self.spec
    }

    /// The processor that guests may have.
    #[must_use]
    pub const fn cpu(&self) -> &HostCpu {
        &self.cpu
    }

    /// Makes an empty guest for an offer: machine, vCPUs, and memory that is unpopulated unless it
    /// is to be populated ahead.
    ///
    /// # Errors
    /// [`ShimError::Offer`] for an offer that no guest here can be made of, and what the host
    /// refuses.
    pub fn prepare(&mut self, offer: &Offer) -> Result<KvmGuest, ShimError> {
        let cpu = offer::accept(offer, KVM_MACHINE, &section_kinds())?;
        let ram = self.memory.take(&offer.map, &self.spec)?;
        KvmGuest::arriving(ram, cpu, self.tracking)
    }
}

fn pretend(truth: HostCpu, spec: &HostSpec) -> Result<HostCpu, CpuError> {
    match &spec.pretend {
        Some(pretended) => restrict(&truth, pretended).map_err(CpuError::Pretend),
        None => Ok(truth),
    }
}

/// A host for process guests: any.
#[derive(Debug)]
pub struct ProcessHost {
    spec: HostSpec,
    memory: MemoryStock,
    tracking: Choice,
    cpu: HostCpu,
}

impl ProcessHost {
    /// Needs nothing of this host but memory.
    ///
    /// # Errors
    /// [`ShimError::Ram`] where memory is to be populated ahead and there is none;
    /// [`ShimError::Tracking`].
    pub fn new(spec: HostSpec) -> Result<Self, ShimError> {
        let cpu = process::host(spec.pretend.as_ref())?;
        Ok(Self {
            tracking: spec.tracking.settle(GuestKind::Process)?,
            memory: MemoryStock::new(&spec)?,
            spec,
            cpu,
        })
    }

    /// What guests may be asked for.
    #[must_use]
    pub const fn spec(&self) -> &HostSpec {
        &self.spec
    }

    /// What guests may have now: what they might have at first.
    ///
    /// # Errors
    /// None: nothing is asked.
    pub fn survey(&self) -> Result<HostCpu, ShimError> {
        Ok(self.cpu.clone())
    }

    /// The processor that guests may have: one in name only.
    #[must_use]
    pub const fn cpu(&self) -> &HostCpu {
        &self.cpu
    }

    /// Makes an empty guest for an offer: threads without a task, and memory of zeros.
    ///
    /// # Errors
    /// As [`KvmHost::prepare`].
    pub fn prepare(&mut self, offer: &Offer) -> Result<ProcessGuest, ShimError> {
        let kinds = process::process_section_kinds();
        let cpu = offer::accept(offer, PROCESS_MACHINE, &kinds)?;
        let ram = self.memory.take(&offer.map, &self.spec)?;
        ProcessGuest::arriving(ram, cpu, self.tracking)
    }
}
