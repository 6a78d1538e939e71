//! The system calls of this crate, each behind a safe function; the only place with unsafe code. It
//! keeps no state and decides nothing.
//!
//! # Safety rules
//!
//! * A request number and the type of its argument are written side by side, from the kernel's
//!   header named there; no other code makes an ioctl.
//! * Each argument is a local value that outlives the call. A pointer inside it comes from a slice
//!   that is borrowed across the call, and the length beside it is that slice's.
//! * A ring that the kernel shares is mapped once, read and written as atomics, and unmapped when
//!   its last user goes.
//! * What the kernel returns is checked before it is used as a length.
#![expect(unsafe_code, reason = "system calls that no safe crate covers")]

pub(crate) mod kvm;
pub(crate) mod mincore;
pub(crate) mod pagemap;
pub(crate) mod ring;
pub(crate) mod uffd;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What the kernel does with an ioctl's argument: the direction bits of a request number.
// Source: Linux include/uapi/asm-generic/ioctl.h, _IOC(dir, type, nr, size).
#[derive(Clone, Copy)]
enum Direction {
    Write = 1,
    Both = 3,
}

const fn request<Argument>(direction: Direction, kind: u8, number: u8) -> u64 {
    (direction as u64) << 30
        | (size_of::<Argument>() as u64) << 16
        | (kind as u64) << 8
        | number as u64
}

/// Makes an ioctl that takes a pointer, and returns its result, which is not negative.
///
/// # Safety
/// `request` takes a pointer to an `Argument`, and each pointer inside is valid for what the
/// request does with it.
unsafe fn ioctl<Argument>(
    fd: BorrowedFd<'_>,
    request: u64,
    argument: &mut Argument,
) -> io::Result<usize> {
    // SAFETY: the caller vouches for the request and its argument, which is borrowed for the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, std::ptr::from_mut(argument)) };
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
