//! One vCPU: its descriptor, and what is done when the guest leaves it for the VMM. Which thread
//! runs it, and when, is not decided here.
//!
//! Safety rules: the page that KVM shares with a vCPU is reached in two ways besides `kvm-ioctls`:
//! one byte of it, atomically, to make `KVM_RUN` return; and its error details, right after the
//! exit that filled them in. The vector state is copied by the kernel in a size of its own: buffers
//! are made in the size that it states.
#![expect(
    unsafe_code,
    reason = "KVM's shared page, and vector state of the size that KVM states"
)]

use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{CpuId, KVM_EXIT_DIRTY_RING_FULL, Xsave, kvm_cpuid_entry2, kvm_xsave};
use kvm_ioctls::{VcpuExit, VcpuFd};
use limosa_dirty::VcpuRings;
use zerocopy::IntoBytes;

use crate::devices::Devices;
use crate::memory::GuestRam;
use crate::threads::Worker;

/// Why a vCPU stopped for good.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VcpuFault {
    /// A fault while handling a fault while handling a fault, or a shutdown.
    #[error("triple fault at {rip:#x}")]
    TripleFault {
        /// Where.
        rip: u64,
    },
    /// The processor refused the vCPU's state.
    #[error("the processor refused to enter the guest, reason {reason:#x}")]
    FailEntry {
        /// The processor's reason.
        reason: u64,
    },
    /// KVM could not go on, most often because it can't emulate an instruction.
    #[error("KVM's internal error {suberror} at {rip:#x}")]
    Internal {
        /// KVM's number: 1 is emulation.
        suberror: u32,
        /// Where.
        rip: u64,
    },
    /// An exit that this machine never asks for.
    #[error("an exit that this machine has no use for: {exit}")]
    Unexpected {
        /// Which.
        exit: String,
    },
    /// A thread of a process guest touched an address where no memory is.
    #[error("no memory at {address:#x}")]
    NoMemory {
        /// Where.
        address: u64,
    },
    /// Its dirty ring was full and could not be emptied.
    #[error("no room in the dirty ring: {error}")]
    Ring {
        /// The kernel's answer.
        error: String,
    },
    /// `KVM_RUN` failed.
    #[error("KVM_RUN: {}", io::Error::from_raw_os_error(*errno))]
    Run {
        /// The kernel's answer: 14 (EFAULT) for memory that can't be read, 133 for broken memory.
        errno: i32,
    },
}

/// What became of one stay in the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stay {
    /// The guest needed something and has it: go on.
    Served,
    /// Somebody wants the vCPU to come out.
    Interrupted,
}

/// A vCPU with its registers and what it can reach.
#[derive(Debug)]
pub(crate) struct Vcpu {
    fd: VcpuFd,
    index: u16,
    cpuid: Vec<kvm_cpuid_entry2>,
    xsave_bytes: usize,
    native_tsc_khz: u32,
    devices: Arc<Devices>,
    /// Of all vCPUs, where they record what they write.
    rings: Option<Arc<VcpuRings>>,
    // What the guest touches while `fd` runs; dropped after it.
    _ram: Arc<GuestRam>,
}

impl Vcpu {
    pub(crate) fn new(
        fd: VcpuFd,
        index: u16,
        xsave_bytes: usize,
        devices: Arc<Devices>,
        ram: Arc<GuestRam>,
    ) -> Self {
        // Nobody has set a frequency yet: so this is the host's own. 0 where it isn't stable.
        let native_tsc_khz = fd.get_tsc_khz().unwrap_or(0);
        Self {
            fd,
            index,
            cpuid: Vec::new(),
            xsave_bytes,
            native_tsc_khz,
            devices,
            rings: None,
            _ram: ram,
        }
    }

    /// The same with the dirty rings of its machine.
    pub(crate) fn with_rings(mut self, rings: Option<Arc<VcpuRings>>) -> Self {
        self.rings = rings;
        self
    }

    pub(crate) const fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    pub(crate) const fn index(&self) -> u16 {
        self.index
    }

    /// The CPUID answers that the guest was promised, on whatever host it is.
    pub(crate) fn cpuid(&self) -> &[kvm_cpuid_entry2] {
        &self.cpuid
    }

    /// Makes a promise. A vCPU that has run can't be given another one.
    pub(crate) fn set_cpuid(
        &mut self,
        entries: &[kvm_cpuid_entry2],
    ) -> Result<(), kvm_ioctls::Error> {
        let too_many = |_| kvm_ioctls::Error::new(libc::E2BIG);
        self.fd
            .set_cpuid2(&CpuId::from_entries(entries).map_err(too_many)?)?;
        self.cpuid = entries.to_vec();
        Ok(())
    }

    /// Takes it back: what was set counts for nothing.
    pub(crate) fn forget_cpuid(&mut self) {
        self.cpuid.clear();
    }

    /// Frequency of the host's TSC in kHz; 0 where KVM does not say.
    pub(crate) const fn native_tsc_khz(&self) -> u32 {
        self.native_tsc_khz
    }

    /// Runs the guest until it needs something, and serves it.
    fn stay(&mut self) -> Result<Stay, VcpuFault> {
        let devices = &self.devices;
        let exit = match self.fd.run() {
            Ok(VcpuExit::IoOut(port, bytes)) => {
                devices.write(port, bytes);
                return Ok(Stay::Served);
            }
            Ok(VcpuExit::IoIn(port, bytes)) => {
                devices.read(port, bytes);
                return Ok(Stay::Served);
            }
            // No device lies in memory: a PC's bus reads all ones there.
            Ok(VcpuExit::MmioRead(_, bytes)) => {
                bytes.fill(0xff);
                return Ok(Stay::Served);
            }
            Ok(VcpuExit::MmioWrite(..)) => return Ok(Stay::Served),
            Ok(VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL)) => return self.make_room(),
            Ok(VcpuExit::Intr) => return Ok(Stay::Interrupted),
            Ok(VcpuExit::FailEntry(reason, _)) => return Err(VcpuFault::FailEntry { reason }),
            Ok(VcpuExit::Shutdown) => Exit::Shutdown,
            Ok(VcpuExit::InternalError) => Exit::InternalError,
            Ok(other) => Exit::Other(format!("{other:?}")),
            Err(error) => match error.errno() {
                // EAGAIN: a vCPU that waited to be started was woken; it simply enters again.
                libc::EINTR | libc::EAGAIN => return Ok(Stay::Interrupted),
                errno => return Err(VcpuFault::Run { errno }),
            },
        };
        Err(self.fault(exit))
    }

    fn make_room(&self) -> Result<Stay, VcpuFault> {
        let Some(rings) = &self.rings else {
            let exit = "a full dirty ring that nobody asked for".into();
            return Err(VcpuFault::Unexpected { exit });
        };
        let emptied = rings.make_room(self.index.into());
        emptied.map_err(|error| VcpuFault::Ring {
            error: error.to_string(),
        })?;
        Ok(Stay::Served)
    }

    fn fault(&mut self, exit: Exit) -> VcpuFault {
        let rip = self.fd.get_regs().map_or(0, |regs| regs.rip);
        match exit {
            Exit::Shutdown => VcpuFault::TripleFault { rip },
            Exit::InternalError => {
                // SAFETY: the last exit was an internal error, so this is the part of the union
                // that the kernel filled in; it is a plain number.
                let suberror = unsafe { self.fd.get_kvm_run().__bindgen_anon_1.internal.suberror };
                VcpuFault::Internal { suberror, rip }
            }
            Exit::Other(exit) => VcpuFault::Unexpected { exit },
        }
    }

    /// Finishes what the last exit began, without entering the guest: a port or memory read whose
    /// value is still on its way is not in any register yet.
    ///
    /// Source: Linux Documentation/virt/kvm/api.rst, `KVM_RUN`: the operation is complete only
    /// after `KVM_RUN` was entered again, which a pending signal or `immediate_exit` lets return at
    /// once.
    fn finish_exit(&mut self) -> Result<(), VcpuFault> {
        self.fd.set_kvm_immediate_exit(1);
        let mut stay = self.stay();
        // An instruction of several accesses goes from one exit to the next.
        while stay == Ok(Stay::Served) {
            stay = self.stay();
        }
        stay.map(drop)
    }

    /// Has KVM make what it makes when a vCPU runs for the first time, without a step of the guest:
    /// among that is a thread for each VM.
    pub(crate) fn run_ahead(&mut self) {
        // What is wrong with a vCPU that can't run shows when it is to.
        self.finish_exit().ok();
    }

    /// The x87, SSE, AVX and further vector registers in the layout of XSAVE.
    pub(crate) fn xsave(&self) -> Result<Vec<u8>, kvm_ioctls::Error> {
        let more = self.xsave_bytes.saturating_sub(size_of::<kvm_xsave>());
        if self.xsave_bytes < size_of::<kvm_xsave>() {
            // A kernel from before Linux 5.17: there is nothing beyond the classic structure.
            return Ok(self.fd.get_xsave()?.region.as_bytes().to_vec());
        }
        let mut xsave = new_xsave(more)?;
        // SAFETY: the buffer has as many bytes as KVM stated for this machine, and this program
        // never asks for more vector state with `arch_prctl`.
        unsafe { self.fd.get_xsave2(&mut xsave) }?;
        let mut bytes = xsave.as_fam_struct_ref().xsave.region.as_bytes().to_vec();
        bytes.extend_from_slice(xsave.as_slice().as_bytes());
        Ok(bytes)
    }

    /// How many bytes KVM reads as the vector registers.
    pub(crate) fn xsave_bytes(&self) -> usize {
        self.xsave_bytes.max(size_of::<kvm_xsave>())
    }

    /// Puts vector registers back: the first [`xsave_bytes`](Self::xsave_bytes) bytes, or zeros
    /// where there are fewer.
    pub(crate) fn set_xsave(&self, bytes: &[u8]) -> Result<(), kvm_ioctls::Error> {
        let (head, tail) = bytes
            .split_at_checked(size_of::<kvm_xsave>())
            .unwrap_or((bytes, &[]));
        let mut xsave = new_xsave(self.xsave_bytes() - size_of::<kvm_xsave>())?;
        copy_words(tail, xsave.as_mut_slice());
        // SAFETY: only the fixed part is written; the length of the rest stays as it is.
        copy_words(head, unsafe { &mut xsave.as_mut_fam_struct().xsave.region });
        // SAFETY: the buffer has as many bytes as KVM stated for this machine.
        unsafe { self.fd.set_xsave2(&xsave) }
    }
}

fn new_xsave(bytes_beyond: usize) -> Result<Xsave, kvm_ioctls::Error> {
    Xsave::new(bytes_beyond.div_ceil(size_of::<u32>()))
        .map_err(|_| kvm_ioctls::Error::new(libc::ENOMEM))
}

fn copy_words(bytes: &[u8], words: &mut [u32]) {
    let (numbers, _) = bytes.as_chunks::<4>();
    for (word, number) in words.iter_mut().zip(numbers) {
        *word = u32::from_le_bytes(*number);
    }
}

enum Exit {
    Shutdown,
    InternalError,
    Other(String),
}

/// A vCPU that one thread runs and another may call out.
#[derive(Debug)]
pub(crate) struct VcpuCell {
    vcpu: Mutex<Vcpu>,
    /// A byte of the page that KVM shares with the vCPU: while it isn't 0, `KVM_RUN` returns before
    /// the guest is entered. The page is mapped as long as `vcpu` lives, and `vcpu` is never
    /// replaced.
    immediate_exit: *mut u8,
}

// SAFETY: the raw pointer is used for atomic access only, and the kernel, too, reads the byte in
// one piece. All else of the vCPU is behind the mutex.
unsafe impl Send for VcpuCell {}
// SAFETY: as above.
unsafe impl Sync for VcpuCell {}

impl VcpuCell {
    pub(crate) fn new(mut vcpu: Vcpu) -> Self {
        let immediate_exit = &raw mut vcpu.fd.get_kvm_run().immediate_exit;
        Self {
            vcpu: Mutex::new(vcpu),
            immediate_exit,
        }
    }

    /// The vCPU, once its thread stands still.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Vcpu> {
        self.vcpu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `KVM_RUN` return at once (1), or not (0).
    fn set_immediate_exit(&self, value: u8) {
        // SAFETY: the byte lies in a page that is mapped as long as the vCPU, which this cell owns.
        unsafe { AtomicU8::from_ptr(self.immediate_exit) }.store(value, Ordering::SeqCst);
    }
}

impl Worker for VcpuCell {
    type Fault = VcpuFault;

    fn let_in(&self) {
        self.set_immediate_exit(0);
    }

    fn call_out(&self) {
        self.set_immediate_exit(1);
    }

    fn work(&self, wanted: &dyn Fn() -> bool) -> Result<(), VcpuFault> {
        let mut vcpu = self.lock();
        // Tells the guest's watchdog that it stood still. KVM refuses where the guest has no
        // kvmclock, and then there is nothing to tell.
        vcpu.fd.kvmclock_ctrl().ok();
        while wanted() {
            vcpu.stay()?;
        }
        vcpu.finish_exit()
    }
}
