//! COM1: a dot that shows life, and two commands, so that the payload is of use under any VMM.
//!
//! It prints `B` when it starts, `F` and the nanoseconds of the fill when it is ready, then a dot
//! per heartbeat. `V` verifies all memory and answers `K` and the writes done, or `X`, the bad
//! pages, a comma and the first one's address. `G` answers `G` and the longest gap of the boot
//! processor since the last `G`, in nanoseconds. An exception prints `!`, vector, error code,
//! instruction and cr2. All numbers are 16 hexadecimal digits, each answer ends in a newline.

use crate::cpu::{port_read, port_write};
use crate::stats::Fault;

const DATA: u16 = 0x3f8;
const INTERRUPTS: u16 = 0x3f9;
const LINE_STATUS: u16 = 0x3fd;
const RECEIVED: u8 = 1;

/// Turns the port's interrupts off.
pub fn start() {
    port_write(INTERRUPTS, 0);
    put(b'B');
}

/// Prints a byte.
pub fn put(byte: u8) {
    port_write(DATA, byte);
}

/// A byte that came in.
pub fn take() -> Option<u8> {
    (port_read(LINE_STATUS) & RECEIVED != 0).then(|| port_read(DATA))
}

/// Prints a letter, numbers with commas between them, and a newline.
pub fn answer(letter: u8, numbers: &[u64]) {
    put(letter);
    for (at, number) in numbers.iter().enumerate() {
        if at > 0 {
            put(b',');
        }
        for digit in (0..16).rev() {
            let digit = (number >> (digit * 4)) as u8 & 15;
            put(if digit < 10 {
                b'0' + digit
            } else {
                b'a' + digit - 10
            });
        }
    }
    put(b'\n');
}

/// Prints why the vCPU stopped.
pub fn fault(fault: &Fault) {
    answer(
        b'!',
        &[fault.vector, fault.error_code, fault.rip, fault.cr2],
    );
}
