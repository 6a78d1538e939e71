//! The program that runs inside the guest: fills memory, dirties it at a rate, notices when it
//! stood still, verifies every byte. It has no kernel below it and needs no device but a local
//! APIC.
//!
//! Everything but the few lines of `boot.rs` runs at privilege level 3: some hosts emulate level 0
//! instruction by instruction, and level 3 is native on all of them.
//!
//! Safety rules of this program: memory is identity-mapped and all addresses come from
//! `protocol.rs` or from a checked [`plan::Plan`]; a page is touched only by the vCPU that owns it;
//! what the host reads or writes meanwhile is accessed by volatile loads and stores of at most
//! eight aligned bytes; no reference to such memory is ever made.
#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn)]

mod boot;
mod clock;
#[allow(dead_code, reason = "the host's half")]
#[path = "../src/content.rs"]
mod content;
mod cpu;
mod cpuid;
mod memory;
mod pages;
#[allow(dead_code, reason = "the host's half")]
#[path = "../src/plan.rs"]
mod plan;
mod probe;
#[allow(dead_code, reason = "the host's half")]
#[path = "../src/protocol.rs"]
mod protocol;
mod serial;
#[allow(dead_code, reason = "the host's half")]
#[path = "../src/stats.rs"]
mod stats;
mod tables;
mod work;

use protocol::{PARAMS, Params};

/// What the guest is to do; its host overwrites it, in memory or in the file.
#[used]
#[unsafe(link_section = ".params")]
static DEFAULT_PARAMS: Params = Params::DEFAULT;

/// First Rust code of each vCPU, at privilege level 3 on its own stack.
#[unsafe(no_mangle)]
extern "C" fn payload_main(index: u64) -> ! {
    let own = memory::Own::start(index);
    let params: Params = memory::load(PARAMS);
    let plan = match plan::Plan::new(&params) {
        Ok(plan) => plan,
        Err(fault) => own.reject(fault as u64),
    };
    if index >= u64::from(params.vcpu_count) {
        cpu::stop();
    }
    if index == 0 {
        cpuid::store_table();
    }
    work::run(own, &params, &plan)
}

/// Where a vCPU continues at privilege level 3 after an exception was noted in its stats.
#[unsafe(no_mangle)]
extern "C" fn payload_faulted(index: u64) -> ! {
    let params: Params = memory::load(PARAMS);
    if index == 0 && params.flags & protocol::FLAG_SERIAL != 0 {
        serial::fault(&memory::Own::of(index).fault());
    }
    cpu::stop()
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The invalid instruction's handler notes where it happened.
    cpu::invalid()
}
