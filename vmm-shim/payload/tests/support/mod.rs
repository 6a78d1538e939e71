//! The smallest VMM that can run the payload: tests use it in place of the real one. It cannot
//! migrate anything.
//!
//! Safety rules: guest memory is one anonymous mapping that outlives the VM and all vCPU threads
//! (`Machine::drop` joins them first); it is read and written through volatile bytes or aligned
//! words, because vCPUs run on it meanwhile.
#![allow(unsafe_code, reason = "a test VMM maps memory and sends signals")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::VecDeque;
use std::os::unix::thread::JoinHandleExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_pit_config, kvm_regs, kvm_segment,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use limosa_payload::protocol::{HOLE, Params};
use limosa_payload::{ENTRY_STATE, GuestBytes, GuestProbe, Image, ProbeError};

/// Whether a guest can be run; prints why not.
pub(crate) fn kvm_present() -> bool {
    let present = Path::new("/dev/kvm").exists() && Kvm::new().is_ok();
    if !present {
        println!("SKIPPED: no usable /dev/kvm");
    }
    present
}

/// Guest memory from address 0, all in one piece; what lies in the hole is not given to the VM.
pub(crate) struct Memory {
    base: *mut u8,
    bytes: usize,
}

// SAFETY: all access is through volatile or atomic-sized loads and stores on a live mapping.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    fn new(bytes: usize) -> Self {
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        assert!(base != libc::MAP_FAILED, "mmap of {bytes} bytes");
        // Huge pages only save time; a kernel without them is as good.
        // SAFETY: the mapping made above.
        unsafe { libc::madvise(base, bytes, libc::MADV_HUGEPAGE) };
        Self {
            base: base.cast(),
            bytes,
        }
    }

    fn at(&self, address: u64, count: usize) -> *mut u8 {
        let start = usize::try_from(address).unwrap();
        assert!(
            start + count <= self.bytes,
            "{address:#x} is outside guest memory"
        );
        self.base.wrapping_add(start)
    }

    /// Changes one bit of guest memory behind the guest's back.
    pub(crate) fn corrupt(&self, address: u64) {
        let mut byte = [0];
        self.read(address, &mut byte);
        self.write(address, &[byte[0] ^ 0x10]);
    }
}

impl GuestBytes for Memory {
    fn read(&self, address: u64, into: &mut [u8]) {
        let from = self.at(address, into.len());
        for (offset, byte) in into.iter_mut().enumerate() {
            // SAFETY: `at` checked the bounds.
            *byte = unsafe { from.add(offset).read_volatile() };
        }
    }

    fn write(&self, address: u64, from: &[u8]) {
        let to = self.at(address, from.len());
        if let (Ok(word), 0) = (<[u8; 8]>::try_from(from), address % 8) {
            // SAFETY: `at` checked the bounds; the address is aligned.
            unsafe { to.cast::<u64>().write_volatile(u64::from_le_bytes(word)) };
            return;
        }
        for (offset, byte) in from.iter().enumerate() {
            // SAFETY: `at` checked the bounds.
            unsafe { to.add(offset).write_volatile(*byte) };
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is this object's own and nobody uses it any more.
        unsafe { libc::munmap(self.base.cast(), self.bytes) };
    }
}

/// What vCPU threads and the test share.
#[derive(Default)]
struct Shared {
    paused: AtomicBool,
    over: AtomicBool,
    parked: AtomicUsize,
    printed: Mutex<Vec<u8>>,
    typed: Mutex<VecDeque<u8>>,
}

/// A running guest.
pub(crate) struct Machine {
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
    /// The guest's memory and reports.
    pub(crate) probe: GuestProbe<Arc<Memory>>,
    _vm: VmFd,
}

impl Machine {
    /// Boots a guest with so much memory (below the hole) and these parameters.
    pub(crate) fn boot(memory_bytes: u64, params: &Params) -> Self {
        Self::boot_with(memory_bytes, params, params)
    }

    /// Boots a guest with parameters other than those that its host believes in.
    pub(crate) fn boot_with(memory_bytes: u64, believed: &Params, params: &Params) -> Self {
        assert!(memory_bytes <= HOLE.start);
        let kvm = Kvm::new().unwrap();
        let vm = kvm.create_vm().unwrap();
        vm.set_tss_address(0xfffb_d000).unwrap();
        vm.create_irq_chip().unwrap();
        vm.create_pit2(kvm_pit_config::default()).unwrap();
        let memory = Arc::new(Memory::new(usize::try_from(memory_bytes).unwrap()));
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: memory_bytes,
            userspace_addr: memory.base as u64,
        };
        // SAFETY: the mapping outlives the VM; see the rules above.
        unsafe { vm.set_user_memory_region(region).unwrap() };
        let image = Image::embedded().unwrap();
        image.load(&memory, believed);
        let probe = GuestProbe::new(Arc::clone(&memory)).unwrap();
        image.load(&memory, params);
        let cpuid = kvm.get_supported_cpuid(256).unwrap();
        let shared = Arc::new(Shared::default());
        quiet_signal();
        let mut threads = Vec::new();
        for index in 0..u64::from(params.vcpu_count) {
            let vcpu = vm.create_vcpu(index).unwrap();
            vcpu.set_cpuid2(&cpuid).unwrap();
            enter(&vcpu, index, &image);
            let shared = Arc::clone(&shared);
            threads.push(thread::spawn(move || run(vcpu, &shared)));
        }
        Self {
            threads,
            shared,
            probe,
            _vm: vm,
        }
    }

    /// Stops every vCPU, does something, lets them go on.
    pub(crate) fn paused<T>(&self, deed: impl FnOnce() -> T) -> T {
        self.shared.paused.store(true, Ordering::SeqCst);
        while self.shared.parked.load(Ordering::SeqCst) < self.threads.len() {
            self.kick();
        }
        let result = deed();
        self.shared.paused.store(false, Ordering::SeqCst);
        while self.shared.parked.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
        result
    }

    /// What came out of COM1.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&self.shared.printed.lock().unwrap()).into_owned()
    }

    /// Puts bytes into COM1.
    pub(crate) fn type_in(&self, bytes: &[u8]) {
        self.shared.typed.lock().unwrap().extend(bytes);
    }

    /// Waits until something is there, at most half a minute.
    pub(crate) fn wait_for<T>(&self, what: &str, mut look: impl FnMut(&Self) -> Option<T>) -> T {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(30) {
            if let Some(found) = look(self) {
                return found;
            }
            thread::sleep(Duration::from_millis(1));
        }
        panic!("no {what} after 30 s: {:#x?}", self.probe.vcpus());
    }

    /// Waits until memory is filled.
    pub(crate) fn wait_ready(&self) {
        self.wait_for("readiness", |machine| match machine.probe.ready() {
            Ok(ready) => ready.then_some(()),
            Err(stopped @ (ProbeError::Faulted { .. } | ProbeError::Rejected { .. })) => {
                panic!("{stopped}")
            }
            Err(other) => panic!("{other:?}"),
        });
    }

    fn kick(&self) {
        for thread in &self.threads {
            // SAFETY: the thread is not joined yet, so its handle is valid.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR1) };
        }
        thread::sleep(Duration::from_micros(200));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            self.kick();
        }
        for thread in self.threads.drain(..) {
            // A vCPU thread that failed has already printed why.
            let _ = thread.join();
        }
    }
}

/// A signal that only interrupts `KVM_RUN`.
fn quiet_signal() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing at all, and the structure is a plain one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut());
    }
}

fn enter(vcpu: &VcpuFd, index: u64, image: &Image<'_>) {
    let state = ENTRY_STATE;
    let segment = |selector, type_, s, db| kvm_segment {
        base: state.segment_base,
        limit: state.segment_limit,
        selector,
        type_,
        present: 1,
        s,
        db,
        g: s,
        ..kvm_segment::default()
    };
    let mut sregs = vcpu.get_sregs().unwrap();
    sregs.cs = segment(0x08, state.code_type, 1, 1);
    let data = segment(0x10, state.data_type, 1, 1);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(0x18, state.task_type, 0, 0);
    sregs.tr.limit = state.task_limit;
    (sregs.cr0, sregs.cr4, sregs.efer) = (state.cr0, state.cr4, state.efer);
    vcpu.set_sregs(&sregs).unwrap();
    let rip = if index == 0 {
        image.pvh_entry()
    } else {
        image.ap_entry()
    };
    let regs = kvm_regs {
        rip,
        rdi: index,
        rflags: state.rflags,
        ..kvm_regs::default()
    };
    vcpu.set_regs(&regs).unwrap();
    vcpu.set_mp_state(kvm_mp_state {
        mp_state: KVM_MP_STATE_RUNNABLE,
    })
    .unwrap();
}

fn run(mut vcpu: VcpuFd, shared: &Shared) {
    while !shared.over.load(Ordering::SeqCst) {
        if shared.paused.load(Ordering::SeqCst) {
            shared.parked.fetch_add(1, Ordering::SeqCst);
            while shared.paused.load(Ordering::SeqCst) && !shared.over.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_micros(50));
            }
            shared.parked.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        match vcpu.run() {
            Ok(VcpuExit::IoOut(0x3f8, bytes)) => {
                shared.printed.lock().unwrap().extend_from_slice(bytes);
            }
            Ok(VcpuExit::IoIn(port, bytes)) => bytes.fill(serial_in(port, shared)),
            Ok(VcpuExit::IoOut(..) | VcpuExit::Intr) => {}
            Ok(other) => panic!("unexpected exit {other:?}"),
            Err(error) if error.errno() == libc::EINTR => {}
            Err(error) => panic!("KVM_RUN: {error}"),
        }
    }
}

fn serial_in(port: u16, shared: &Shared) -> u8 {
    let mut typed = shared.typed.lock().unwrap();
    match port {
        0x3fd => 0x60 | u8::from(!typed.is_empty()),
        0x3f8 => typed.pop_front().unwrap_or(0),
        _ => 0xff,
    }
}
