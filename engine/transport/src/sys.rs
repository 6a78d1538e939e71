//! The few socket calls that no safe crate offers: receiving into guest memory, and `poll`. It
//! knows no protocol.
//!
//! # Safety rules
//!
//! 1. A pointer handed to the kernel comes from a slice that is borrowed for the whole call.
//! 2. Guest memory is only ever written by the kernel, through a `VolatileSlice`'s pointer: no Rust
//!    reference to it is made, so it does not matter who else reads or writes it meanwhile.
#![expect(
    unsafe_code,
    reason = "recvmsg into volatile memory and poll have no safe door"
)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use vm_memory::VolatileSlice;

/// Most pieces in one call. Source: `UIO_MAXIOV`, readv(2).
pub(crate) const PIECES_MAX: usize = 1024;

/// Pieces of memory for one call to the kernel.
#[derive(Default)]
pub(crate) struct Pieces(pub(crate) Vec<libc::iovec>);

impl Pieces {
    /// The bytes of `landing` behind its first `skip`, as many as fit in one call.
    ///
    /// What is left here are bare pointers: they may be used while `landing` is borrowed.
    pub(crate) fn fill_volatile(&mut self, landing: &[VolatileSlice<'_>], mut skip: usize) {
        self.0.clear();
        for slice in landing {
            let bytes = slice.len();
            if skip >= bytes {
                skip -= bytes;
                continue;
            }
            if self.0.len() == PIECES_MAX {
                return;
            }
            let base = slice.ptr_guard_mut().as_ptr().wrapping_add(skip);
            self.0.push(libc::iovec {
                iov_base: base.cast(),
                iov_len: bytes - skip,
            });
            skip = 0;
        }
    }
}

/// Bytes in all of `landing`.
pub(crate) fn landing_bytes(landing: &[VolatileSlice<'_>]) -> usize {
    landing.iter().map(VolatileSlice::len).sum()
}

/// Receives into `into`; returns when it is full, the peer has closed, or the socket's time is up.
pub(crate) fn recv(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of `into`, borrowed until the call returns.
    let received = unsafe {
        libc::recv(
            socket.as_raw_fd(),
            into.as_mut_ptr().cast(),
            into.len(),
            libc::MSG_WAITALL,
        )
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// Receives into `landing` behind its first `skip` bytes; returns as [`recv`] does, and also when
/// as many pieces as one call takes are full.
pub(crate) fn recv_volatile(
    socket: BorrowedFd<'_>,
    landing: &[VolatileSlice<'_>],
    skip: usize,
    pieces: &mut Pieces,
) -> io::Result<usize> {
    pieces.fill_volatile(landing, skip);
    // SAFETY: all-zero is a valid `msghdr`: no address, no pieces, no control data.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = pieces.0.as_mut_ptr();
    message.msg_iovlen = pieces.0.len();
    // SAFETY: the pieces lie within `landing`, which is borrowed until the call returns; the
    // message and its piece list live on this stack and in `pieces`.
    let received =
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_WAITALL) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// What is awaited of a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Awaited {
    /// Bytes to read, a connection to accept, or the peer's end.
    Readable,
    /// Room to write, or the end of connecting.
    Writable,
}

/// Naps until one of `sockets` is ready, or `nap` is over; says of each whether it is ready.
pub(crate) fn poll(
    sockets: &[(BorrowedFd<'_>, Awaited)],
    nap: Duration,
    ready: &mut Vec<bool>,
) -> io::Result<()> {
    let mut fds: Vec<libc::pollfd> = sockets
        .iter()
        .map(|(fd, awaited)| libc::pollfd {
            fd: fd.as_raw_fd(),
            events: match awaited {
                Awaited::Readable => libc::POLLIN,
                Awaited::Writable => libc::POLLOUT,
            },
            revents: 0,
        })
        .collect();
    // Rounded up, so that a nap of less than 1 ms does not become a busy loop.
    let milliseconds = i32::try_from(nap.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    // SAFETY: pointer and count are those of `fds`, which lives until the call returns.
    let count = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) };
    if count < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        fds.iter_mut().for_each(|fd| fd.revents = 0);
    }
    ready.clear();
    ready.extend(fds.iter().map(|fd| fd.revents != 0));
    Ok(())
}
