//! One KVM virtual machine: interrupt controllers, timer, memory slots, vCPU descriptors. It runs
//! nothing.
//!
//! Safety rules: a slot tells the kernel to let vCPUs read and write memory of this process. So
//! every slot is a region of a [`GuestRam`], and that memory is kept alive by the machine and by
//! each vCPU; the machine waits for whoever adds slots before it goes.
#![expect(
    unsafe_code,
    reason = "giving guest memory to KVM by its address in this process"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use kvm_bindings::{
    KVM_API_VERSION, KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use limosa_dirty::{HarvestError, KvmLog, RingSetup, Slot, VcpuRings};
use limosa_pages::PageRange;

use crate::layout;
use crate::memory::GuestRam;

/// Where KVM keeps three pages of its own for Intel's real mode: in the hole below 4 GiB.
/// Source: Linux Documentation/virt/kvm/api.rst, `KVM_SET_TSS_ADDR`.
const TSS_ADDRESS: usize = 0xfffb_d000;
/// One more such page, ahead of those.
const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;

/// Why there is no virtual machine.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// There is no KVM here.
    #[error(
        "/dev/kvm is missing: load kvm-intel or kvm-amd, and switch virtualization on in the \
         firmware (in a virtual machine: nested virtualization on its host)"
    )]
    NoKvm,
    /// There is one, but not for this user.
    #[error("/dev/kvm may not be opened by this user: add it to the group kvm, or run as root")]
    NotPermitted,
    /// A kernel from before 2007, or something that only looks like KVM.
    #[error("KVM's interface has version {found}, not {KVM_API_VERSION}: use a newer kernel")]
    ApiVersion {
        /// What it says.
        found: i32,
    },
    /// The host gives a guest fewer vCPUs.
    #[error("{wanted} vCPUs are more than the {max} that this host's KVM gives a guest")]
    TooManyVcpus {
        /// What was asked for.
        wanted: u16,
        /// What there is.
        max: usize,
    },
    /// Memory where the machine has its devices.
    #[error("guest memory in pages {}..{} lies on devices", pages.start(), pages.end())]
    MemoryOnDevices {
        /// The region.
        pages: PageRange,
    },
    /// The kernel refused a call.
    #[error("{call}: {source}")]
    Refused {
        /// Which.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl VmError {
    pub(crate) fn refused(call: &'static str, error: kvm_ioctls::Error) -> Self {
        let source = io::Error::from_raw_os_error(error.errno());
        Self::Refused { call, source }
    }
}

/// Opens `/dev/kvm`.
///
/// # Errors
/// [`VmError::NoKvm`], [`VmError::NotPermitted`], [`VmError::ApiVersion`], each with what to do.
pub fn open_kvm() -> Result<Kvm, VmError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => VmError::NoKvm,
        libc::EACCES | libc::EPERM => VmError::NotPermitted,
        _ => VmError::refused("open /dev/kvm", error),
    })?;
    match kvm.get_api_version() {
        found if u32::try_from(found) == Ok(KVM_API_VERSION) => Ok(kvm),
        found => Err(VmError::ApiVersion { found }),
    }
}

/// A virtual machine and the memory that it may touch.
#[derive(Debug)]
pub(crate) struct Vm {
    // Dropped before the memory.
    slots: Slots,
    fd: Arc<VmFd>,
    ram: Arc<GuestRam>,
}

/// How far the memory slots are.
#[derive(Debug)]
enum Slots {
    /// A thread adds them.
    Coming(Option<JoinHandle<Result<(), VmError>>>),
    /// KVM has them all.
    Set,
}

impl Drop for Slots {
    fn drop(&mut self) {
        if let Self::Coming(thread) = self
            && let Some(thread) = thread.take()
        {
            // Its answer is of no use any more.
            let _ = thread.join();
        }
    }
}

impl Vm {
    /// Makes a machine with interrupt controllers and timer. A thread gives it a slot for each
    /// region of memory, for which KVM waits 5 to 10 ms: see [`settle`](Self::settle).
    pub(crate) fn new(kvm: &Kvm, ram: Arc<GuestRam>) -> Result<Self, VmError> {
        if let Some(pages) = layout::in_device_hole(ram.map()) {
            return Err(VmError::MemoryOnDevices { pages });
        }
        let fd = kvm
            .create_vm()
            .map_err(|error| VmError::refused("KVM_CREATE_VM", error))?;
        let fd = Arc::new(fd);
        let mut vm = Self {
            slots: Slots::Coming(None),
            fd,
            ram,
        };
        vm.add_controllers()?;
        let (fd, ram) = (Arc::clone(&vm.fd), Arc::clone(&vm.ram));
        let thread = std::thread::Builder::new()
            .name("memory-slots".into())
            .spawn(move || add_slots(&fd, &ram))
            .map_err(|source| VmError::Refused {
                call: "clone",
                source,
            })?;
        vm.slots = Slots::Coming(Some(thread));
        Ok(vm)
    }

    /// Waits until vCPUs can reach all memory, and KVM can log what they write.
    ///
    /// # Errors
    /// What KVM said of a slot, once; later that there are none.
    pub(crate) fn settle(&mut self) -> Result<(), VmError> {
        let lost = |text: &str| VmError::Refused {
            call: "KVM_SET_USER_MEMORY_REGION",
            source: io::Error::other(text),
        };
        let Slots::Coming(thread) = &mut self.slots else {
            return Ok(());
        };
        let thread = thread
            .take()
            .ok_or_else(|| lost("the guest has no memory"))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(lost("the thread that adds memory ended early")))?;
        self.slots = Slots::Set;
        Ok(())
    }

    fn add_controllers(&self) -> Result<(), VmError> {
        let refused = |call| move |error| VmError::refused(call, error);
        self.fd
            .set_identity_map_address(IDENTITY_MAP_ADDRESS)
            .map_err(refused("KVM_SET_IDENTITY_MAP_ADDR"))?;
        self.fd
            .set_tss_address(TSS_ADDRESS)
            .map_err(refused("KVM_SET_TSS_ADDR"))?;
        self.fd
            .create_irq_chip()
            .map_err(refused("KVM_CREATE_IRQCHIP"))?;
        let pit = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..kvm_pit_config::default()
        };
        self.fd.create_pit2(pit).map_err(refused("KVM_CREATE_PIT2"))
    }

    /// Makes the descriptors of `count` vCPUs, numbered from 0.
    pub(crate) fn create_vcpus(&self, kvm: &Kvm, count: u16) -> Result<Vec<VcpuFd>, VmError> {
        let (wanted, max) = (count, kvm.get_max_vcpus());
        if usize::from(wanted) > max {
            return Err(VmError::TooManyVcpus { wanted, max });
        }
        let vcpus = (0..u64::from(count)).map(|index| self.fd.create_vcpu(index));
        vcpus
            .collect::<Result<_, _>>()
            .map_err(|error| VmError::refused("KVM_CREATE_VCPU", error))
    }

    /// How many bytes the state of a vCPU's vector registers has.
    pub(crate) fn xsave_bytes(&self) -> usize {
        let bytes = self.fd.check_extension_int(Cap::Xsave2);
        usize::try_from(bytes).unwrap_or(0)
    }

    /// KVM's log of what vCPUs write, over all memory. The machine must be settled.
    pub(crate) fn dirty_log(&self) -> Result<KvmLog, HarvestError> {
        KvmLog::new(self.borrowed(), self.slots())
    }

    /// Lets KVM give each vCPU a dirty ring, before there is any.
    pub(crate) fn enable_rings(&self) -> Result<RingSetup, HarvestError> {
        RingSetup::enable(self.borrowed(), RingSetup::BYTES_DEFAULT)
    }

    /// The dirty rings of all `vcpus`. Nothing is recorded before the machine is settled.
    pub(crate) fn rings(
        &self,
        setup: RingSetup,
        vcpus: &[VcpuFd],
    ) -> Result<Arc<VcpuRings>, HarvestError> {
        let vcpus = vcpus.iter().map(|vcpu| {
            // SAFETY: the descriptor is open as long as `vcpus` is borrowed.
            unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) }
        });
        let vcpus: Vec<_> = vcpus.collect();
        VcpuRings::new(self.borrowed(), setup, &vcpus, self.slots())
    }

    fn slots(&self) -> Vec<Slot> {
        let regions = (0..).zip(self.ram.regions());
        let slots = regions.map(|(id, region)| {
            // SAFETY: these are the slots that the machine is made with, and it keeps them; nobody
            // gets at a log or a ring before they are all there.
            unsafe { Slot::new(id, region.pages(), region.host_address()) }
        });
        slots.collect()
    }

    fn borrowed(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.fd.as_raw_fd()) }
    }

    pub(crate) fn fd(&self) -> &VmFd {
        &self.fd
    }

    pub(crate) const fn ram(&self) -> &Arc<GuestRam> {
        &self.ram
    }
}

/// Lets vCPUs reach each region of memory.
fn add_slots(fd: &VmFd, ram: &GuestRam) -> Result<(), VmError> {
    for (slot, region) in (0..).zip(ram.regions()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.pages().start().address().get(),
            memory_size: region.pages().count().bytes(),
            userspace_addr: region.host_address(),
        };
        // SAFETY: the addresses are those of a region of `ram`, which lives as long as the machine
        // and each of its vCPUs; host code touches it by volatile access only.
        unsafe { fd.set_user_memory_region(region) }
            .map_err(|error| VmError::refused("KVM_SET_USER_MEMORY_REGION", error))?;
    }
    Ok(())
}
