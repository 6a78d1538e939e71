//! Why a guest did not do what was asked of it, whatever its kind.

use limosa_pages::MapError;
use limosa_payload::{ImageError, ProbeError};

use crate::cpu::CpuError;
use crate::memory::RamError;
use crate::spec::SpecError;
use crate::state::StateError;
use crate::threads::ThreadError;
use crate::vcpu::VcpuFault;
use crate::vm::VmError;

/// Why a guest can't be made, moved or asked.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The wish itself is out of range.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The memory map is none.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The host has no memory for it.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The host has no machine for it.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The processor can't be described.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// Its state can't be taken or put in place.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its threads don't obey.
    #[error(transparent)]
    Threads(#[from] ThreadError),
    /// The payload is damaged.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The workload in the guest can't be believed, or stopped.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// A vCPU stopped for good.
    #[error("vCPU {vcpu} stopped: {fault}")]
    Fault {
        /// Which vCPU.
        vcpu: usize,
        /// Why.
        fault: VcpuFault,
    },
    /// The guest is not where the call needs it to be.
    #[error("the guest is {stage:?}: it can't be {wanted}")]
    Stage {
        /// Where it is.
        stage: Stage,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The workload did not answer in time.
    #[error("the guest's workload is not {awaited} after {waited:?}")]
    Late {
        /// What was waited for.
        awaited: &'static str,
        /// How long.
        waited: std::time::Duration,
    },
    /// An offer that this kind of guest can't take.
    #[error("the offer is of a guest that can't live here: {0}")]
    Offer(String),
    /// This host can't record the writes to its memory as asked.
    #[error(transparent)]
    Tracking(#[from] limosa_dirty::NoSource),
    /// It can't be held back in that way.
    #[error(
        "{tracking} can't tell what each vCPU dirties, so no vCPU can be held to a limit: start \
         the guest on KVM with its writes tracked by the dirty rings (--tracking ring), or hold \
         it back by a duty cycle"
    )]
    NoLimit {
        /// How its writes are recorded.
        tracking: limosa_dirty::SourceKind,
    },
    /// Writes to its memory can't be recorded.
    #[error(transparent)]
    Harvest(#[from] limosa_dirty::HarvestError),
}

/// Where a guest is in its life on this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It was made for an offer; its memory and state are on their way.
    Arriving,
    /// Its state is in place; it has not run here yet.
    Arrived,
    /// It runs.
    Running,
    /// It stands still, and may run on here.
    Paused,
    /// It lives on another host, and never runs here again.
    Released,
}
