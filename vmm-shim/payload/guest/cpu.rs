//! The few instructions that Rust has no words for, and the services of level 0.

use core::arch::asm;

use crate::protocol::CpuidRecord;

/// The time stamp counter.
#[inline(always)]
pub fn time() -> u64 {
    let (low, high): (u64, u64);
    // SAFETY: RDTSC only reads the counter. Not `nomem`: loads and stores of shared memory must
    // stay on their side of it.
    unsafe { asm!("rdtsc", out("rax") low, out("rdx") high, options(nostack, preserves_flags)) };
    (high << 32) | low
}

/// Tells the processor that this is a waiting loop.
#[inline(always)]
pub fn relax() {
    core::hint::spin_loop();
}

/// Sleeps until the next interrupt: the timer's.
pub fn sleep() {
    // SAFETY: the service gate keeps every register but r8, and works on a stack of its own.
    unsafe { asm!("int3", inout("r8") 0u64 => _) };
}

/// CPUID as level 0 sees it.
pub fn identify(leaf: u32, subleaf: u32) -> CpuidRecord {
    let (eax, ebx, ecx, edx): (u32, u64, u32, u32);
    // SAFETY: as `sleep`, and the service changes what CPUID changes; rbx, which the compiler
    // keeps for itself, is put back.
    unsafe {
        asm!(
            "mov {kept}, rbx",
            "int3",
            "xchg {kept}, rbx",
            kept = out(reg) ebx,
            inout("r8") 1u64 => _,
            inout("eax") leaf => eax,
            inout("ecx") subleaf => ecx,
            out("edx") edx,
        );
    }
    CpuidRecord {
        leaf,
        subleaf,
        eax,
        ebx: ebx as u32,
        ecx,
        edx,
    }
}

/// Halts this vCPU for good.
pub fn stop() -> ! {
    // SAFETY: the service never comes back.
    unsafe { asm!("int3", in("r8") 2u64, options(noreturn)) }
}

/// Raises the invalid-opcode exception.
pub fn invalid() -> ! {
    // SAFETY: the exception's handler never comes back.
    unsafe { asm!("ud2", options(noreturn)) }
}

/// Writes a byte to a port of COM1, the only ports that the I/O bitmap opens.
pub fn port_write(port: u16, byte: u8) {
    // SAFETY: a serial port changes no memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") byte, options(nostack, preserves_flags)) };
}

/// Reads a byte from a port of COM1.
pub fn port_read(port: u16) -> u8 {
    let byte;
    // SAFETY: a serial port changes no memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") byte, options(nostack, preserves_flags)) };
    byte
}
