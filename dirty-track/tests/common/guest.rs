//! A KVM guest whose vCPUs run the writer's program in 64-bit user mode: the one mode that hosts
//! with shadow paging run at full speed. It has no devices and no kernel.
#![expect(
    unsafe_code,
    reason = "giving memory to a VM, the guest's program as bytes, and signals"
)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use kvm_bindings::{
    KVM_EXIT_DIRTY_RING_FULL, KVM_MAX_CPUID_ENTRIES, kvm_segment, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use limosa_dirty::{HarvestError, RingSetup, Slot, VcpuRings};
use limosa_pages::{PageIndex, PageRange};

use super::memory::HostMemory;
use super::writer::Seed;

const CODE: u64 = 0x8000;
const PAGE_TABLES: u64 = 0x10000;

/// How many vCPUs a guest has; those that are not run do nothing.
pub(crate) const VCPUS: usize = 2;

// The program of `writer::write_until_told`, for a vCPU: r8 is the control block, rdi the address
// of the data, r10 the mask of page numbers, r9 the seed, r11 an address without memory,
// r12 how many writes are left.
core::arch::global_asm!(
    r#"
    .balign 16
    .globl limosa_test_guest_start
limosa_test_guest_start:
2:  mov rax, [r8]
    test rax, rax
    jnz 3f
    test r12, r12
    jz 7f
    dec r12
    imul r9, r9, 1664525
    add r9, 1013904223
    mov rbx, r9
    shr rbx, 12
    and rbx, r10
    shl rbx, 12
    lock inc qword ptr [rdi + rbx]
    jmp 2b
3:  mov [r8 + 8], rax
    cmp rax, -1
    je 5f
4:  pause
    mov rbx, [r8 + 16]
    test rbx, rbx
    jz 6f
    lock inc qword ptr [rbx]
    mov qword ptr [r8 + 16], 0
6:  cmp [r8], rax
    je 4b
    mov r12, [r8 + 24]
    jmp 2b
7:  pause
    jmp 2b
5:  mov [r11], rax
    jmp 5b
    .globl limosa_test_guest_end
limosa_test_guest_end:
"#
);

unsafe extern "C" {
    static limosa_test_guest_start: u8;
    static limosa_test_guest_end: u8;
}

pub(crate) struct Guest {
    vm: VmFd,
    slots: Vec<Slot>,
    /// Until they are run, each on a thread of its own.
    vcpus: Vec<Option<VcpuFd>>,
    host_address: u64,
    /// Emptied by the vCPU's thread when they are full.
    rings: Option<Arc<VcpuRings>>,
}

/// What the guest's program is given.
pub(crate) struct Task {
    /// Address of the control block.
    pub(crate) control: u64,
    pub(crate) seed: Seed,
    /// The first page that it may write.
    pub(crate) data: PageIndex,
    /// Which bits of a random number are added to that.
    pub(crate) data_mask: u64,
    /// A page without memory, within the first GiB.
    pub(crate) hole: PageIndex,
}

impl Guest {
    /// A guest with `memory`, of which it has `regions`; `None` without KVM.
    pub(crate) fn new(memory: &HostMemory, regions: &[PageRange]) -> Option<Self> {
        Self::prepared(memory, regions, |_| ())
    }

    /// The same, with its VM prepared before it has a vCPU.
    pub(crate) fn prepared(
        memory: &HostMemory,
        regions: &[PageRange],
        prepare: impl FnOnce(&VmFd),
    ) -> Option<Self> {
        let kvm = Kvm::new().ok()?;
        let vm = kvm.create_vm().expect("a VM");
        // An address range that KVM for Intel wants for itself; others have no such call.
        let _ = vm.set_tss_address(0xfffb_d000);
        prepare(&vm);
        let mut slots = Vec::new();
        for (id, &pages) in (0..).zip(regions) {
            let host_address = memory.mapping(pages).host_address;
            // SAFETY: this slot is made below, and only its flags ever change.
            slots.push(unsafe { Slot::new(id, pages, host_address) });
        }
        load_program(memory);
        map_first_gib(memory);
        let cpuid = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .expect("CPUID");
        let vcpus = (0..VCPUS as u64).map(|index| {
            let vcpu = vm.create_vcpu(index).expect("a vCPU");
            vcpu.set_cpuid2(&cpuid).expect("CPUID accepted");
            Some(vcpu)
        });
        let guest = Self {
            vcpus: vcpus.collect(),
            vm,
            slots,
            host_address: memory.address(),
            rings: None,
        };
        guest.set_flags(0);
        Some(guest)
    }

    /// A guest whose vCPUs have a dirty ring of `bytes` each.
    pub(crate) fn with_rings(
        memory: &HostMemory,
        regions: &[PageRange],
        bytes: u64,
    ) -> Option<Result<Self, HarvestError>> {
        let mut setup = None;
        let mut guest = Self::prepared(memory, regions, |vm| {
            // SAFETY: the VM's descriptor is open for as long as the VM is borrowed.
            let fd = unsafe { BorrowedFd::borrow_raw(vm.as_raw_fd()) };
            setup = Some(RingSetup::enable(fd, bytes));
        })?;
        let made = setup.expect("the VM was prepared").and_then(|setup| {
            let vcpus = guest.vcpus.iter().map(|vcpu| {
                let vcpu = vcpu.as_ref().expect("the guest was not run yet");
                // SAFETY: the vCPU's descriptor is open for as long as the guest is borrowed.
                unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) }
            });
            let vcpus: Vec<_> = vcpus.collect();
            VcpuRings::new(guest.fd(), setup, &vcpus, guest.slots())
        });
        Some(made.map(|rings| {
            guest.rings = Some(rings);
            guest
        }))
    }

    pub(crate) fn rings(&self) -> Option<Arc<VcpuRings>> {
        self.rings.clone()
    }

    pub(crate) fn vm(&self) -> &VmFd {
        &self.vm
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the VM's descriptor is open for as long as the VM is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.vm.as_raw_fd()) }
    }

    pub(crate) fn slots(&self) -> Vec<Slot> {
        self.slots.clone()
    }

    /// Makes the memory slots, or changes their flags.
    pub(crate) fn set_flags(&self, flags: u32) {
        for slot in &self.slots {
            let address = slot.pages().start().address().get();
            let region = kvm_userspace_memory_region {
                slot: slot.id(),
                flags,
                guest_phys_addr: address,
                memory_size: slot.pages().count().bytes(),
                userspace_addr: self.host_address + address,
            };
            // SAFETY: the memory outlives the vCPU (its thread keeps it), and is accessed as
            // atomics.
            unsafe { self.vm.set_user_memory_region(region) }.expect("a memory slot");
        }
    }

    /// Runs the guest's program on the next vCPU, on a thread; it ends when the control block says
    /// so.
    pub(crate) fn spawn(&mut self, memory: Arc<HostMemory>, task: &Task) -> JoinHandle<()> {
        let index = self.vcpus.iter().position(Option::is_some);
        let index = index.expect("a vCPU that does not run yet");
        let mut vcpu = self.vcpus[index].take().expect("a vCPU");
        enter_user_mode(&vcpu);
        let mut registers = vcpu.get_regs().expect("registers");
        registers.rip = CODE;
        registers.rflags = 2;
        registers.r8 = task.control;
        registers.rdi = task.data.address().get();
        registers.r10 = task.data_mask;
        registers.r9 = task.seed.0;
        registers.r11 = task.hole.address().get();
        vcpu.set_regs(&registers).expect("registers accepted");
        let rings = self.rings.clone();
        std::thread::spawn(move || {
            loop {
                match vcpu.run() {
                    Ok(VcpuExit::MmioWrite(..)) => break,
                    Ok(VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL)) => {
                        let rings = rings.as_ref().expect("a ring that is full is there");
                        rings.make_room(index).expect("room in the ring");
                    }
                    Err(error) if error.errno() == libc::EINTR => {}
                    other => {
                        eprintln!("the guest ended with {other:?}");
                        break;
                    }
                }
            }
            // The guest uses the memory as long as its vCPU may run.
            drop(memory);
        })
    }
}

fn load_program(memory: &HostMemory) {
    let start = &raw const limosa_test_guest_start;
    let bytes = (&raw const limosa_test_guest_end).addr() - start.addr();
    // SAFETY: the program lies between the two symbols, in this binary's own code.
    let program = unsafe { std::slice::from_raw_parts(start, bytes) };
    for (index, bytes) in (0..).zip(program.chunks(8)) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        memory
            .word(CODE + 8 * index)
            .store(u64::from_le_bytes(word), Ordering::SeqCst);
    }
}

/// Page tables that map the first GiB to itself, in 2 MiB pages open to user mode.
fn map_first_gib(memory: &HostMemory) {
    const USER_TABLE: u64 = 0b111;
    const USER_HUGE_PAGE: u64 = 0b1000_0111;
    let (top, middle, low) = (PAGE_TABLES, PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2000);
    memory
        .word(top)
        .store(middle | USER_TABLE, Ordering::SeqCst);
    memory
        .word(middle)
        .store(low | USER_TABLE, Ordering::SeqCst);
    for entry in 0..512 {
        memory
            .word(low + 8 * entry)
            .store(entry << 21 | USER_HUGE_PAGE, Ordering::SeqCst);
    }
}

fn enter_user_mode(vcpu: &VcpuFd) {
    let mut special = vcpu.get_sregs().expect("special registers");
    special.cr3 = PAGE_TABLES;
    special.cr4 |= 1 << 5; // PAE
    special.cr0 = 0x8005_0033; // paging, write protection, numeric errors, protected mode
    special.efer = 0x501; // long mode, enabled and active, and SYSCALL
    let code = kvm_segment {
        limit: 0xffff_ffff,
        selector: 0x33,
        type_: 11,
        present: 1,
        dpl: 3,
        s: 1,
        l: 1,
        g: 1,
        ..Default::default()
    };
    let data = kvm_segment {
        type_: 3,
        selector: 0x2b,
        l: 0,
        db: 1,
        ..code
    };
    special.cs = code;
    for segment in [
        &mut special.ds,
        &mut special.es,
        &mut special.ss,
        &mut special.fs,
        &mut special.gs,
    ] {
        *segment = data;
    }
    vcpu.set_sregs(&special)
        .expect("special registers accepted");
}

/// Sends signals that do nothing to some threads, as often as it can, until it is dropped.
pub(crate) struct Pester {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
}

impl Pester {
    /// Pesters the calling thread.
    pub(crate) fn me() -> Self {
        let signal = libc::SIGRTMIN() + 6;
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: all zeros are a valid action.
        let action = unsafe { action.assume_init_mut() };
        // Without SA_RESTART: system calls are interrupted.
        action.sa_sigaction = nothing as *const () as libc::sighandler_t;
        // SAFETY: the action is a local value, and its handler does nothing.
        let installed = unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) };
        assert_eq!(installed, 0);
        // SAFETY: the call has no arguments.
        let thread = unsafe { libc::pthread_self() };
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let sender = std::thread::spawn(move || {
            while !told.load(Ordering::SeqCst) {
                // SAFETY: the thread joins this one before it ends.
                unsafe { libc::pthread_kill(thread, signal) };
                (0..200).for_each(|_| std::hint::spin_loop());
            }
        });
        Self {
            stop,
            sender: Some(sender),
        }
    }
}

impl Drop for Pester {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(sender) = self.sender.take() {
            let _ = sender.join();
        }
    }
}

extern "C" fn nothing(_: libc::c_int) {}
