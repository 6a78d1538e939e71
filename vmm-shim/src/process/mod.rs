//! A guest without KVM: threads of this process that work on a mapping as vCPUs do on guest memory.
//! For hosts without virtualization, and to tell what KVM costs. It isolates nothing.

mod books;
mod memory;
mod state;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use limosa::Slowdown;
use limosa_compat::{CpuidEntry, CpuidTable, GuestCpu, HostCpu, Shaped, TscScaling, shape};
use limosa_dirty::{Choice, DirtySource, GuestKind, PagemapScan, WriteRecorder};
use limosa_payload::GuestBytes;
use limosa_payload::protocol::{PARAMS, Params};
use limosa_wire::{Offer, SectionKind, StateSection};
use zerocopy::IntoBytes;

use crate::brake::Regulator;
use crate::cpu::CpuError;
use crate::error::{ShimError, Stage};
use crate::host_view::HostView;
use crate::memory::GuestRam;
use crate::pages::{GuestPages, mappings, presence};
use crate::spec::GuestSpec;
use crate::state::StateError;
use crate::threads::{RunState, Threads};
use crate::workload::Workload;
use crate::{layout, offer};
use state::ThreadState;
use worker::{CLOCK_KHZ, Task, TaskCell};

/// The kind of guest, as offers name it.
pub const PROCESS_MACHINE: &str = "process";

/// The sections that a process guest has, each exactly once.
#[must_use]
pub fn process_section_kinds() -> Vec<SectionKind> {
    state::section_kinds()
}

/// A guest that is threads of this process.
///
/// It does what the payload does on KVM, with the same books at the same addresses, apart from the
/// serial port and CPUID, which it does not have. Dropping it ends its threads.
pub struct ProcessGuest {
    // Dropped first: nobody works on memory that is gone.
    threads: Threads<TaskCell>,
    pages: Arc<GuestPages>,
    recorder: WriteRecorder,
    tracking: Choice,
    cpu: GuestCpu,
    stage: Stage,
}

impl ProcessGuest {
    /// Makes a guest and starts it.
    ///
    /// # Errors
    /// [`ShimError`]: the first thing that the wish or the host is at fault for.
    pub fn boot(spec: &GuestSpec) -> Result<Self, ShimError> {
        let params = spec.process_params(CLOCK_KHZ as u32)?;
        let map = layout::memory_map(spec.memory_bytes)?;
        let tracking = spec.tracking.settle(GuestKind::Process)?;
        let (backing, huge_pages) = (spec.backing, spec.huge_pages);
        let ram = GuestRam::with_room(map, backing, huge_pages, spec.room())?;
        let mut guest = Self::make(ram, guest_cpu(spec)?, tracking, Stage::Paused)?;
        guest.view().write(PARAMS, params.as_bytes());
        guest.give_tasks(&params, |index| ThreadState::new(index, params.seed))?;
        guest.resume()?;
        Ok(guest)
    }

    /// Makes an empty guest for a state that is to come.
    ///
    /// # Errors
    /// [`ShimError`], when the host has no room.
    pub(crate) fn arriving(
        ram: GuestRam,
        cpu: GuestCpu,
        tracking: Choice,
    ) -> Result<Self, ShimError> {
        Self::make(ram, cpu, tracking, Stage::Arriving)
    }

    fn make(
        ram: GuestRam,
        cpu: GuestCpu,
        tracking: Choice,
        stage: Stage,
    ) -> Result<Self, ShimError> {
        let recorder = WriteRecorder::new(ram.map());
        let ram = Arc::new(ram);
        let cell = |_| Arc::new(TaskCell::new(Arc::clone(&ram), None));
        let cells = (0..cpu.vcpu_count).map(cell);
        Ok(Self {
            threads: Threads::spawn("guest", cells.collect())?,
            pages: Arc::new(GuestPages::new(ram)),
            recorder,
            tracking,
            cpu,
            stage,
        })
    }

    fn give_tasks(
        &mut self,
        params: &Params,
        mut state: impl FnMut(u16) -> ThreadState,
    ) -> Result<(), ShimError> {
        let plan = limosa_payload::plan::Plan::new(params)
            .map_err(limosa_payload::ProbeError::NoPayload)?;
        for (index, cell) in (0..).zip(self.threads.workers()) {
            *cell.lock() = Some(Task {
                params: *params,
                plan: plan.clone(),
                state: state(index),
            });
        }
        Ok(())
    }

    /// What a target must judge before the guest may come; streams and encodings are left open.
    #[must_use]
    pub fn offer(&self) -> Offer {
        let map = self.pages.ram().map();
        offer::offer(PROCESS_MACHINE, &self.cpu, map, process_section_kinds())
    }

    /// What its threads are doing.
    #[must_use]
    pub fn run_state(&self) -> RunState {
        self.threads.state()
    }

    /// The processor that it was promised: one in name only.
    #[must_use]
    pub const fn cpu(&self) -> &GuestCpu {
        &self.cpu
    }

    /// Holds it back, or lets it go again, until the next pause: all threads at once.
    ///
    /// # Errors
    /// As [`KvmGuest::slow`](crate::KvmGuest::slow); it can never be held to a limit.
    pub fn slow(&mut self, slowdown: Slowdown) -> Result<(), ShimError> {
        let regulator = match slowdown {
            Slowdown::None => None,
            Slowdown::DutyCycle { run_permille } => Some(Regulator::duty(run_permille)),
            Slowdown::DirtyLimit { .. } => {
                let tracking = self.tracking.source;
                return Err(ShimError::NoLimit { tracking });
            }
        };
        if self.stage != Stage::Running && regulator.is_some() {
            return Err(stage_error(self.stage, "held back"));
        }
        Ok(self.threads.regulate(regulator)?)
    }

    /// Stops every thread between two steps, and returns when all stand still.
    ///
    /// # Errors
    /// As [`KvmGuest::pause`](crate::KvmGuest::pause).
    pub fn pause(&mut self) -> Result<(), ShimError> {
        match self.stage {
            Stage::Running | Stage::Paused => {}
            stage => return Err(stage_error(stage, "paused")),
        }
        self.stage = Stage::Paused;
        self.threads.pause()?;
        self.fault()
    }

    /// Lets it run: on here, or for the first time after it has arrived.
    ///
    /// # Errors
    /// As [`KvmGuest::resume`](crate::KvmGuest::resume).
    pub fn resume(&mut self) -> Result<(), ShimError> {
        match self.stage {
            Stage::Arrived => {
                // The benchmark's bookkeeping: a guest that lost its parameters fails by itself.
                if let Ok(probe) = self.probe() {
                    probe.count_switchover();
                }
            }
            Stage::Paused => {}
            Stage::Running => return Ok(()),
            stage => return Err(stage_error(stage, "resumed")),
        }
        self.threads.resume();
        self.stage = Stage::Running;
        Ok(())
    }

    /// Takes what the threads are to do and how far they are. The guest must be paused.
    ///
    /// # Errors
    /// As [`KvmGuest::export_state`](crate::KvmGuest::export_state).
    pub fn export_state(&mut self) -> Result<Vec<StateSection>, ShimError> {
        if self.stage != Stage::Paused || self.run_state() != RunState::Paused {
            return Err(stage_error(self.stage, "exported"));
        }
        self.fault()?;
        let mut params = None;
        let mut states = Vec::new();
        for cell in self.threads.workers() {
            if let Some(task) = cell.lock().as_ref() {
                params = Some(task.params);
                states.push(task.state.clone());
            }
        }
        let params = params.ok_or(stage_error(self.stage, "exported without tasks"))?;
        Ok(state::encode(&params, &states)?)
    }

    /// Puts a state in place. Memory may still be arriving: nothing here reads it.
    ///
    /// # Errors
    /// As [`KvmGuest::restore_state`](crate::KvmGuest::restore_state).
    pub fn restore_state(&mut self, sections: Vec<StateSection>) -> Result<(), ShimError> {
        if self.stage != Stage::Arriving {
            return Err(stage_error(self.stage, "given another state"));
        }
        let (params, threads) = state::decode(sections, self.cpu.vcpu_count)?;
        let mut threads = threads.into_iter();
        let expected = self.threads.workers().len();
        if threads.len() != expected {
            let found = threads.len();
            return Err(StateError::VcpuCount { found, expected }.into());
        }
        self.give_tasks(&params, |index| {
            threads
                .next()
                .unwrap_or_else(|| ThreadState::new(index, params.seed))
        })?;
        self.stage = Stage::Arrived;
        Ok(())
    }

    /// It lives on another host: it never runs here again.
    ///
    /// # Errors
    /// [`ShimError::Stage`] while it runs.
    pub fn release(&mut self) -> Result<(), ShimError> {
        match self.stage {
            Stage::Running => Err(stage_error(self.stage, "released")),
            _ => {
                self.stage = Stage::Released;
                Ok(())
            }
        }
    }

    /// A source of all writes to its memory: the kernel sees threads and VMM alike.
    ///
    /// # Errors
    /// When the kernel can't record them.
    pub fn dirty_source(&mut self) -> Result<Box<dyn DirtySource>, ShimError> {
        let scan = PagemapScan::new(mappings(self.pages.ram()))?;
        Ok(Box::new(scan.with_presence(presence(self.pages.ram()))))
    }
}

impl Workload for ProcessGuest {
    fn view(&self) -> HostView {
        HostView::new(Arc::clone(self.pages.ram()), self.recorder.clone())
    }

    fn pages(&self) -> &Arc<GuestPages> {
        &self.pages
    }

    fn stage(&self) -> Stage {
        self.stage
    }

    fn tracking(&self) -> Choice {
        self.tracking
    }

    fn fault(&self) -> Result<(), ShimError> {
        self.threads.faults(|faults| match faults.first() {
            Some((vcpu, fault)) => Err(ShimError::Fault {
                vcpu: *vcpu,
                fault: fault.clone(),
            }),
            None => Ok(()),
        })
    }

    fn vcpu_cpu_times(&self) -> Vec<Duration> {
        self.threads.cpu_times()
    }

    fn all_in_since(&self) -> Option<Instant> {
        self.threads.all_in_since()
    }

    fn serial_output(&self) -> Vec<u8> {
        Vec::new()
    }
}

const fn stage_error(stage: Stage, wanted: &'static str) -> ShimError {
    ShimError::Stage { stage, wanted }
}

/// A process guest sees whatever processor it is on and keeps nothing of it in its state. So offer
/// and host name the same one, which every host is: without any feature.
fn nominal_table() -> Result<CpuidTable, CpuError> {
    let word = |letters: &[u8; 4]| u32::from_le_bytes(*letters);
    Ok(CpuidTable::new(vec![CpuidEntry {
        ebx: word(b"Genu"),
        edx: word(b"ineI"),
        ecx: word(b"ntel"),
        ..CpuidEntry::default()
    }])?)
}

fn guest_cpu(spec: &GuestSpec) -> Result<GuestCpu, CpuError> {
    let here = host(spec.cpu.pretend.as_ref())?;
    let Shaped { processor, name } = shape(spec.cpu.mode, &here.offer, &spec.cpu.pool)?;

    Ok(GuestCpu {
        processor,
        tsc_khz: CLOCK_KHZ as u32,
        vcpu_count: spec.vcpu_count,
        baseline: name.into(),
    })
}

/// What any host can give a process guest: what it pretends to have, because such a guest uses
/// nothing of it.
pub(crate) fn host(pretend: Option<&HostCpu>) -> Result<HostCpu, CpuError> {
    if let Some(pretended) = pretend {
        return Ok(HostCpu {
            tsc_khz: CLOCK_KHZ as u32,
            ..pretended.clone()
        });
    }
    let offer = nominal_table()?.into();
    Ok(HostCpu::plain(offer, CLOCK_KHZ as u32, TscScaling::No))
}
