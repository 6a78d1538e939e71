//! What the tests of guests on KVM share.
#![allow(dead_code, reason = "each test file uses its own part")]

use limosa_payload::GuestBytes;
use limosa_shim::{HostSpec, KvmGuest, KvmHost, open_kvm};

/// Whether there is no KVM, which it says.
pub(crate) fn no_kvm() -> bool {
    match open_kvm() {
        Ok(_) => false,
        Err(error) => {
            println!("SKIPPED: {error}");
            true
        }
    }
}

/// Changes one byte of a guest behind its back.
pub(crate) fn flip_byte(guest: &KvmGuest, address: u64) {
    let view = guest.view();
    let mut byte = [0];
    view.read(address, &mut byte);
    view.write(address, &[byte[0] ^ 1]);
}

/// Takes the program away from under a guest.
pub(crate) fn wipe_program(guest: &KvmGuest) {
    guest.view().write(0x10_0000, &[0; 0x10_0000]);
}

/// An empty guest that is ready to take over from `guest`.
pub(crate) fn arriving(guest: &KvmGuest) -> KvmGuest {
    let mut host = KvmHost::new(HostSpec::default()).expect("host");
    host.prepare(&guest.offer()).expect("prepare")
}

/// Copies all memory, whatever the pages hold.
pub(crate) fn copy_memory(from: &KvmGuest, to: &KvmGuest) {
    for pages in from.pages().ram().map().regions() {
        let source = from.pages().ram().slice(*pages).expect("source");
        let target = to.pages().ram().slice(*pages).expect("target");
        source.copy_to_volatile_slice(target);
    }
}

/// Makes memory useless, so that a guest that still touches it is found out.
pub(crate) fn poison(guest: &KvmGuest) {
    for pages in guest.pages().ram().map().regions() {
        let memory = guest.pages().ram().slice(*pages).expect("memory");
        let poison = vec![0xaa_u8; memory.len()];
        memory.copy_from(&poison);
    }
}
