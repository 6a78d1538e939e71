//! What a benchmark or a test asks of a guest, whatever its kind: is it at work, is every byte
//! right, what did it notice. It moves no guest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use limosa_compat::{CpuidEntry, CpuidTable};
use limosa_dirty::{Choice, HugeUse};
use limosa_payload::protocol::Phase;
use limosa_payload::{CheckReport, GuestProbe, VcpuReport};

use crate::cpu::CpuError;
use crate::error::{ShimError, Stage};
use crate::guest::KvmGuest;
use crate::host_view::HostView;
use crate::pages::GuestPages;

/// How often a guest's answer is looked for.
const POLL: Duration = Duration::from_millis(1);

/// A guest with the workload of `limosa-payload` in it.
pub trait Workload {
    /// Its memory as the VMM reads and writes it.
    fn view(&self) -> HostView;

    /// Its memory as a migration sees it.
    fn pages(&self) -> &Arc<GuestPages>;

    /// Where it is in its life.
    fn stage(&self) -> Stage;

    /// How the writes to its memory are recorded here, and why so.
    fn tracking(&self) -> Choice;

    /// The first of its vCPUs that stopped for good, as an error.
    ///
    /// # Errors
    /// [`ShimError::Fault`].
    fn fault(&self) -> Result<(), ShimError>;

    /// The CPU time that each vCPU has used on this host.
    fn vcpu_cpu_times(&self) -> Vec<Duration>;

    /// When the last of its vCPUs went into the guest after it was let run; `None` until all have,
    /// and while it is to stand still.
    fn all_in_since(&self) -> Option<Instant>;

    /// What it printed on this host.
    fn serial_output(&self) -> Vec<u8>;

    /// The workload's books.
    ///
    /// # Errors
    /// [`ShimError::Probe`] where there is no workload in memory, or not yet.
    fn probe(&self) -> Result<GuestProbe<HostView>, ShimError> {
        Ok(GuestProbe::new(self.view())?)
    }

    /// Waits until memory is filled and every vCPU is at work.
    ///
    /// # Errors
    /// [`ShimError::Late`] after `timeout`; [`ShimError::Fault`] and [`ShimError::Probe`] at once.
    fn wait_ready(&self, timeout: Duration) -> Result<(), ShimError> {
        let probe = self.probe()?;
        wait(self, "ready", timeout, || Ok(probe.ready()?.then_some(())))
    }

    /// What each vCPU noticed and did.
    ///
    /// # Errors
    /// [`ShimError::Probe`].
    fn stats(&self) -> Result<Vec<VcpuReport>, ShimError> {
        Ok(self.probe()?.vcpus()?)
    }

    /// Lets the guest verify every byte of its memory, while it runs. The answer is the guest's
    /// own: an unclean one is no error.
    ///
    /// # Errors
    /// As [`wait_ready`](Self::wait_ready).
    fn check(&self, timeout: Duration) -> Result<CheckReport, ShimError> {
        let probe = self.probe()?;
        let sequence = probe.post_check();
        wait(self, "done with its check", timeout, || {
            Ok(probe.check(sequence)?)
        })
    }

    /// CPUID as the guest itself read it at privilege level 0, at its last check or, before the
    /// first, when it started. `None` for a kind of guest that reads none.
    ///
    /// # Errors
    /// [`ShimError::Probe`] where it has not read it yet; [`ShimError::Cpu`] where what it wrote is
    /// no table.
    fn cpuid(&self) -> Result<Option<CpuidTable>, ShimError> {
        Ok(None)
    }

    /// Tells the guest under which phase to book its stalls.
    ///
    /// # Errors
    /// [`ShimError::Probe`].
    fn set_phase(&self, phase: Phase) -> Result<(), ShimError> {
        self.probe()?.set_phase(phase);
        Ok(())
    }

    /// One number for all of its memory; see [`GuestPages::digest`]. It must stand still.
    ///
    /// # Errors
    /// [`ShimError::Stage`] while it runs.
    fn memory_digest(&self) -> Result<u64, ShimError> {
        match self.stage() {
            Stage::Running => Err(ShimError::Stage {
                stage: Stage::Running,
                wanted: "hashed",
            }),
            _ => Ok(self.pages().digest()),
        }
    }

    /// How much of its memory lies in huge pages of the host. `None` where the kernel can't tell.
    fn huge_use(&self) -> Option<HugeUse> {
        self.pages().huge_use()
    }
}

/// Waits until `ask` has an answer, the guest stops, or `timeout` has passed.
fn wait<T>(
    guest: &(impl Workload + ?Sized),
    awaited: &'static str,
    timeout: Duration,
    mut ask: impl FnMut() -> Result<Option<T>, ShimError>,
) -> Result<T, ShimError> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        guest.fault()?;
        let waited = begun.elapsed();
        if waited > timeout {
            return Err(ShimError::Late { awaited, waited });
        }
        std::thread::sleep(POLL);
    }
}

impl Workload for KvmGuest {
    fn view(&self) -> HostView {
        Self::view(self)
    }

    fn pages(&self) -> &Arc<GuestPages> {
        Self::pages(self)
    }

    fn stage(&self) -> Stage {
        Self::stage(self)
    }

    fn tracking(&self) -> Choice {
        Self::tracking(self)
    }

    fn fault(&self) -> Result<(), ShimError> {
        Self::fault(self)
    }

    fn vcpu_cpu_times(&self) -> Vec<Duration> {
        Self::vcpu_cpu_times(self)
    }

    fn all_in_since(&self) -> Option<Instant> {
        Self::all_in_since(self)
    }

    fn cpuid(&self) -> Result<Option<CpuidTable>, ShimError> {
        let records = self.probe()?.cpuid()?;
        let entries = records.iter().map(|record| CpuidEntry {
            leaf: record.leaf,
            subleaf: record.subleaf,
            eax: record.eax,
            ebx: record.ebx,
            ecx: record.ecx,
            edx: record.edx,
        });
        let table = CpuidTable::new(entries.collect()).map_err(CpuError::from)?;
        Ok(Some(table))
    }

    fn serial_output(&self) -> Vec<u8> {
        Self::serial_output(self)
    }
}
