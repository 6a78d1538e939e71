//! A guest on KVM: booted here, or arriving from another host. What the engine asks of it is in
//! `embed.rs`, what a benchmark asks is in `workload.rs`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use limosa::Slowdown;
use limosa_compat::GuestCpu;
use limosa_dirty::{
    Choice, DirtySource, GuestKind, KvmRing, PagemapScan, SourceKind, Union, VcpuRings, VmmWrites,
    WriteRecorder,
};
use limosa_payload::{GuestProbe, Image};
use limosa_wire::{Offer, StateSection};

use crate::brake::{Meter, Regulator};
use crate::devices::Devices;
use crate::error::{ShimError, Stage};
use crate::host_view::HostView;
use crate::memory::GuestRam;
use crate::pages::{GuestPages, mappings, presence};
use crate::spec::{Enforcement, GuestSpec};
use crate::state::{MachineState, msrs, section_kinds};
use crate::threads::{RunState, Threads};
use crate::vcpu::{Vcpu, VcpuCell};
use crate::vm::{self, Vm, VmError};
use crate::{boot, cpu, layout, offer};

/// The kind of guest, as offers name it.
pub const KVM_MACHINE: &str = "kvm-x86";

/// A guest on KVM.
///
/// Dropping it ends its vCPUs and gives its memory back.
pub struct KvmGuest {
    // Dropped first: no vCPU runs once its threads have ended.
    threads: Threads<VcpuCell>,
    vm: Vm,
    devices: Arc<Devices>,
    pages: Arc<GuestPages>,
    recorder: WriteRecorder,
    tracking: Choice,
    /// Of all vCPUs, where they record what they write.
    rings: Option<Arc<VcpuRings>>,
    /// The registers that travel.
    msrs: Vec<u32>,
    cpu: GuestCpu,
    stage: Stage,
}

/// A machine whose vCPUs have no CPUID yet.
struct Blank {
    kvm: Kvm,
    vm: Vm,
    vcpus: Vec<Vcpu>,
    devices: Arc<Devices>,
    tracking: Choice,
    rings: Option<Arc<VcpuRings>>,
}

impl Blank {
    fn new(ram: GuestRam, vcpu_count: u16, tracking: Choice) -> Result<Self, ShimError> {
        let kvm = vm::open_kvm()?;
        let vm = Vm::new(&kvm, Arc::new(ram))?;
        let devices = Arc::new(Devices::default());
        let setup = match tracking.source {
            SourceKind::KvmRing => Some(vm.enable_rings()?),
            SourceKind::KvmLog | SourceKind::PagemapScan => None,
        };
        let vcpus = vm.create_vcpus(&kvm, vcpu_count)?;
        let rings = setup.map(|setup| vm.rings(setup, &vcpus)).transpose()?;
        let vcpus = (0..).zip(vcpus).map(|(index, fd)| {
            let (devices, ram) = (Arc::clone(&devices), Arc::clone(vm.ram()));
            Vcpu::new(fd, index, vm.xsave_bytes(), devices, ram).with_rings(rings.clone())
        });
        Ok(Self {
            vcpus: vcpus.collect(),
            kvm,
            vm,
            devices,
            tracking,
            rings,
        })
    }

    fn into_guest(self, cpu: GuestCpu, stage: Stage) -> Result<KvmGuest, ShimError> {
        let msrs = match self.vcpus.first() {
            Some(vcpu) => msrs::travelling(&self.kvm, vcpu.fd())
                .map_err(|error| VmError::refused("KVM_GET_MSRS", error))?,
            None => Vec::new(),
        };
        let recorder = WriteRecorder::new(self.vm.ram().map());
        let pages = Arc::new(GuestPages::new(Arc::clone(self.vm.ram())));
        let cells = self.vcpus.into_iter().map(VcpuCell::new).map(Arc::new);
        Ok(KvmGuest {
            threads: Threads::spawn("vcpu", cells.collect())?,
            vm: self.vm,
            devices: self.devices,
            pages,
            recorder,
            tracking: self.tracking,
            rings: self.rings,
            msrs,
            cpu,
            stage,
        })
    }
}

impl KvmGuest {
    /// Makes a guest and starts it.
    ///
    /// # Errors
    /// [`ShimError`]: the first thing that the wish or the host is at fault for.
    pub fn boot(spec: &GuestSpec) -> Result<Self, ShimError> {
        // Refused before anything is made.
        spec.params(0)?;
        let map = layout::memory_map(spec.memory_bytes)?;
        vm::open_kvm()?;
        let tracking = spec.tracking.settle(GuestKind::Kvm)?;
        let chosen = cpu::choose(&vm::open_kvm()?, &spec.cpu)?;
        if spec.cpu.enforcement == Enforcement::Strict {
            cpu::check_memory(&chosen.processor, &map)?;
        }
        let (backing, huge_pages) = (spec.backing, spec.huge_pages);
        let ram = GuestRam::with_room(map.clone(), backing, huge_pages, spec.room())?;
        let mut blank = Blank::new(ram, spec.vcpu_count, tracking)?;
        blank.vm.settle()?;
        let image = Image::embedded()?;
        let cpu = cpu::give(&blank.kvm, &mut blank.vcpus, &chosen, &spec.cpu)?;
        // Whatever was chosen, these are the addresses that the guest sees.
        cpu::check_memory(&cpu.processor, &map)?;
        for vcpu in &mut blank.vcpus {
            boot::enter(vcpu, &image)?;
        }
        let params = spec.params(cpu.tsc_khz)?;
        let mut guest = blank.into_guest(cpu, Stage::Paused)?;
        image.load(&guest.view(), &params);
        guest.resume()?;
        Ok(guest)
    }

    /// Makes an empty guest for a state that is to come.
    ///
    /// # Errors
    /// [`ShimError`], when the host has no room or refuses.
    pub(crate) fn arriving(
        ram: GuestRam,
        cpu: GuestCpu,
        tracking: Choice,
    ) -> Result<Self, ShimError> {
        let mut blank = Blank::new(ram, cpu.vcpu_count, tracking)?;
        cpu::give_ahead(&mut blank.vcpus, &cpu);
        blank.vcpus.iter_mut().for_each(Vcpu::run_ahead);
        blank.into_guest(cpu, Stage::Arriving)
    }

    /// What a target must judge before the guest may come; streams and encodings are left open.
    #[must_use]
    pub fn offer(&self) -> Offer {
        let map = self.pages.ram().map();
        offer::offer(KVM_MACHINE, &self.cpu, map, section_kinds())
    }

    /// Where the guest is in its life.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// What its threads are doing.
    #[must_use]
    pub fn run_state(&self) -> RunState {
        self.threads.state()
    }

    /// The processor that it was promised.
    #[must_use]
    pub const fn cpu(&self) -> &GuestCpu {
        &self.cpu
    }

    /// Its memory as a migration sees it.
    #[must_use]
    pub const fn pages(&self) -> &Arc<GuestPages> {
        &self.pages
    }

    /// Its memory as the VMM reads and writes it.
    #[must_use]
    pub fn view(&self) -> HostView {
        HostView::new(Arc::clone(self.pages.ram()), self.recorder.clone())
    }

    /// How the writes to its memory are recorded here, and why so.
    #[must_use]
    pub const fn tracking(&self) -> Choice {
        self.tracking
    }

    /// Holds it back, or lets it go again, until the next pause.
    ///
    /// A duty cycle holds all vCPUs at once. A limit looks every 0.5 ms at what each vCPU has
    /// dirtied, while its writes are recorded, and holds one that is ahead of its quota for at most
    /// a second at a time.
    ///
    /// # Errors
    /// [`ShimError::NoLimit`] for a limit where its writes are not tracked by the dirty rings;
    /// [`ShimError::Stage`] while it does not run; [`ShimError::Threads`].
    pub fn slow(&mut self, slowdown: Slowdown) -> Result<(), ShimError> {
        let regulator = match (slowdown, &self.rings) {
            (Slowdown::None, _) => None,
            (Slowdown::DutyCycle { run_permille }, _) => Some(Regulator::duty(run_permille)),
            (Slowdown::DirtyLimit { bytes_per_second }, Some(rings)) => {
                let meter = Arc::clone(rings) as Arc<dyn Meter>;
                Some(Regulator::limit(bytes_per_second, meter))
            }
            (Slowdown::DirtyLimit { .. }, None) => {
                let tracking = self.tracking.source;
                return Err(ShimError::NoLimit { tracking });
            }
        };
        if self.stage != Stage::Running && regulator.is_some() {
            return Err(stage_error(self.stage, "held back"));
        }
        Ok(self.threads.regulate(regulator)?)
    }

    /// Stops every vCPU, completes what their last exits began, and returns when all stand still.
    ///
    /// # Errors
    /// [`ShimError::Threads`] when a vCPU does not come out; [`ShimError::Fault`] when one stopped
    /// for good: such a guest is not worth moving. [`ShimError::Stage`] when it does not run here.
    pub fn pause(&mut self) -> Result<(), ShimError> {
        match self.stage {
            Stage::Running | Stage::Paused => {}
            stage => return Err(stage_error(stage, "paused")),
        }
        self.stage = Stage::Paused;
        self.threads.pause()?;
        self.fault()
    }

    /// Lets it run: on here, or for the first time after it has arrived, which counts a switchover
    /// in the guest's own books.
    ///
    /// # Errors
    /// [`ShimError::Stage`] when its state is not in place, or when it lives elsewhere.
    pub fn resume(&mut self) -> Result<(), ShimError> {
        match self.stage {
            Stage::Arrived => {
                // The benchmark's bookkeeping: a guest without the payload runs all the same.
                if let Ok(probe) = GuestProbe::new(self.view()) {
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

    /// Takes everything that must travel besides memory. The guest must be paused.
    ///
    /// # Errors
    /// [`ShimError::Stage`], and [`ShimError::State`] when the kernel does not hand something over.
    pub fn export_state(&mut self) -> Result<Vec<StateSection>, ShimError> {
        if self.stage != Stage::Paused || self.run_state() != RunState::Paused {
            return Err(stage_error(self.stage, "exported"));
        }
        self.fault()?;
        let vcpus = self.threads.workers();
        let serial = self.devices.serial().state();
        let state = MachineState::take(self.vm.fd(), vcpus, &self.msrs, serial)?;
        Ok(state.encode()?)
    }

    /// Puts a state in place. Memory may still be arriving: nothing here reads it.
    ///
    /// # Errors
    /// [`ShimError::Stage`] when it is not arriving; [`ShimError::State`] when a section is missing
    /// or unreadable, is of another processor than was offered, or is refused by the kernel.
    pub fn restore_state(&mut self, sections: Vec<StateSection>) -> Result<(), ShimError> {
        if self.stage != Stage::Arriving {
            return Err(stage_error(self.stage, "given another state"));
        }
        let state = MachineState::decode(sections)?;
        self.vm.settle()?;
        let vcpus = self.threads.workers();
        let serial = state.put(self.vm.fd(), vcpus, &self.cpu.processor)?;
        self.devices.serial().restore(serial);
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

    /// A source of all writes to its memory: the vCPUs' and the VMM's.
    ///
    /// # Errors
    /// When KVM can't record writes.
    pub fn dirty_source(&mut self) -> Result<Box<dyn DirtySource>, ShimError> {
        self.vm.settle()?;
        let ram = self.pages.ram();
        let vcpus: Box<dyn DirtySource> = match (self.tracking.source, &self.rings) {
            (SourceKind::PagemapScan, _) => {
                Box::new(PagemapScan::new(mappings(ram))?.with_presence(presence(ram)))
            }
            (_, Some(rings)) => {
                Box::new(KvmRing::new(Arc::clone(rings))?.with_presence(presence(ram)))
            }
            (_, None) => Box::new(self.vm.dirty_log()?.with_presence(presence(ram))),
        };
        let own = VmmWrites::beside(self.recorder.clone());
        Ok(Box::new(Union::new(vec![vcpus, Box::new(own)])))
    }

    /// The first vCPU that stopped for good, as an error.
    ///
    /// # Errors
    /// [`ShimError::Fault`].
    pub fn fault(&self) -> Result<(), ShimError> {
        self.threads.faults(|faults| match faults.first() {
            Some((vcpu, fault)) => Err(ShimError::Fault {
                vcpu: *vcpu,
                fault: fault.clone(),
            }),
            None => Ok(()),
        })
    }

    /// The CPU time that each vCPU's thread has used, on this host.
    #[must_use]
    pub fn vcpu_cpu_times(&self) -> Vec<Duration> {
        self.threads.cpu_times()
    }

    /// When the last vCPU went into the guest after it was let run; `None` until all have, and
    /// while they are to stand still.
    #[must_use]
    pub fn all_in_since(&self) -> Option<Instant> {
        self.threads.all_in_since()
    }

    /// What it printed on this host: the last 64 KiB.
    #[must_use]
    pub fn serial_output(&self) -> Vec<u8> {
        self.devices.serial().output()
    }

    /// Types on its serial port.
    pub fn type_in(&self, bytes: &[u8]) {
        self.devices.serial().type_in(bytes);
    }
}

const fn stage_error(stage: Stage, wanted: &'static str) -> ShimError {
    ShimError::Stage { stage, wanted }
}

#[cfg(test)]
mod tests {
    use limosa_payload::protocol::Pattern;

    use super::*;
    use crate::spec::{Backing, HugePages};
    use crate::workload::Workload;

    fn taken(guest: &KvmGuest) -> MachineState {
        let (vm, vcpus) = (guest.vm.fd(), guest.threads.workers());
        let serial = guest.devices.serial().state();
        MachineState::take(vm, vcpus, &guest.msrs, serial).expect("take")
    }

    /// A state that was taken, sent and put in place is taken again: it is the same, but for
    /// clocks, which go on.
    #[test]
    fn a_state_that_was_put_is_the_state_that_was_taken() {
        if let Err(error) = vm::open_kvm() {
            println!("SKIPPED: {error}");
            return;
        }
        for vcpu_count in [1, 2, 8] {
            let mut spec = GuestSpec::new(96 << 20);
            spec.vcpu_count = vcpu_count;
            spec.workload.working_set_bytes = 8 << 20;
            spec.workload.dirty_pages_per_second = 20_000;
            spec.workload.pattern = Pattern::Random;
            let mut guest = KvmGuest::boot(&spec).expect("boot");
            guest.wait_ready(Duration::from_secs(60)).expect("ready");
            guest.pause().expect("pause");
            let before = taken(&guest);
            let map = guest.pages.ram().map().clone();
            let ram = GuestRam::new(map, Backing::Anonymous, HugePages::Avoided).expect("memory");
            let mut next =
                KvmGuest::arriving(ram, guest.cpu.clone(), guest.tracking()).expect("arriving");
            // What was booted here is made here again, so nothing is left for the state to set.
            let ahead: Vec<_> = next.threads.workers().iter().collect();
            let ahead = ahead.iter().map(|cell| cell.lock().cpuid().to_vec());
            assert_eq!(before.cpuids(), ahead.collect::<Vec<_>>());
            next.restore_state(before.encode().expect("encode"))
                .expect("restore");
            let after = taken(&next);
            before.assert_same_but_for_time(&after);
            assert_eq!(before.vcpu_count(), usize::from(vcpu_count));
        }
    }
}
