//! What answers a guest's port accesses. There is one serial port; everything else is an empty
//! slot.

pub(crate) mod serial;

use std::sync::{Mutex, MutexGuard, PoisonError};

use serial::{COM1, Serial};

/// All devices of one guest that are not in the kernel.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    serial: Mutex<Serial>,
}

impl Devices {
    /// The serial port, to be looked at or changed.
    pub(crate) fn serial(&self) -> MutexGuard<'_, Serial> {
        // The port's fields are whole after each call: a panic of another thread leaves none torn.
        self.serial.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest writes `bytes` to a port, one after the other.
    pub(crate) fn write(&self, port: u16, bytes: &[u8]) {
        if let Some(register) = register_of(port) {
            let mut serial = self.serial();
            bytes.iter().for_each(|byte| serial.write(register, *byte));
        }
    }

    /// The guest reads as many bytes from a port. Where nothing answers, a PC's bus reads all ones.
    pub(crate) fn read(&self, port: u16, bytes: &mut [u8]) {
        match register_of(port) {
            Some(register) => {
                let mut serial = self.serial();
                bytes
                    .iter_mut()
                    .for_each(|byte| *byte = serial.read(register));
            }
            None => bytes.fill(0xff),
        }
    }
}

fn register_of(port: u16) -> Option<u8> {
    let register = port.checked_sub(COM1)?;
    u8::try_from(register).ok().filter(|register| *register < 8)
}
