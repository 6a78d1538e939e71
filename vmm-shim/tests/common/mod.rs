//! What the tests of guests on KVM share.
#![allow(dead_code, reason = "each test file uses its own part")]

use limosa_payload::GuestBytes;
use limosa_shim::{KvmGuest, open_kvm};

/// Whether there is no KVM, which it says.
pub fn no_kvm() -> bool {
    match open_kvm() {
        Ok(_) => false,
        Err(error) => {
            println!("SKIPPED: {error}");
            true
        }
    }
}

/// Changes one byte of a guest behind its back.
pub fn flip_byte(guest: &KvmGuest, address: u64) {
    let view = guest.view();
    let mut byte = [0];
    view.read(address, &mut byte);
    view.write(address, &[byte[0] ^ 1]);
}

/// Takes the program away from under a guest.
pub fn wipe_program(guest: &KvmGuest) {
    guest.view().write(0x10_0000, &[0; 0x10_0000]);
}
