//! The program that runs inside the guest.
#![no_std]
#![no_main]

#[path = "../src/protocol.rs"]
pub mod protocol;

core::arch::global_asm!(
    ".section .entry, \"ax\"",
    ".code32",
    ".globl pvh_entry, ap_entry",
    "pvh_entry: hlt",
    ".balign 16",
    "ap_entry: hlt",
    ".section .note.Xen, \"a\", @note",
    ".balign 4",
    ".long 4, 8, 18",
    ".asciz \"Xen\"",
    ".quad pvh_entry",
    ".code64",
);

/// What the guest is to do; the host overwrites it.
#[used]
#[unsafe(link_section = ".params")]
static PARAMS: protocol::Params = protocol::Params::DEFAULT;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
