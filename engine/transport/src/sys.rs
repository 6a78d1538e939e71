//! The few socket calls that no safe crate offers: sending from and receiving into guest memory,
//! splicing it, and `poll`. It knows no protocol.
//!
//! # Safety rules
//!
//! 1. A pointer handed to the kernel comes from a slice that is borrowed for the whole call.
//! 2. Guest memory is only ever read and written by the kernel, through a `VolatileSlice`'s
//!    pointer: no Rust reference to it is made, so it does not matter who else reads or writes it
//!    meanwhile.
//! 3. Memory that was spliced is only referred to by the kernel, which keeps its pages, not its
//!    addresses: it may be unmapped, and is only ever read.
#![expect(
    unsafe_code,
    reason = "sendmsg, recvmsg and vmsplice over volatile memory, and poll, have no safe door"
)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use vm_memory::VolatileSlice;

use crate::page::Piece;

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

impl Pieces {
    /// Appends `pieces`.
    ///
    /// What is left here are bare pointers: they may be used while the pieces are borrowed.
    pub(crate) fn append(&mut self, pieces: &[Piece<'_>]) {
        self.0.extend(pieces.iter().map(|piece| match piece {
            Piece::Bytes(bytes) => libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            },
            Piece::Memory(slice) => libc::iovec {
                iov_base: slice.ptr_guard().as_ptr().cast_mut().cast(),
                iov_len: slice.len(),
            },
        }));
    }

    /// Bytes in all pieces.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(|piece| piece.iov_len).sum()
    }

    /// Appends what is left of `other` behind its first `skip` bytes, as far as a call takes it.
    pub(crate) fn append_rest(&mut self, other: &Self, mut skip: usize) {
        for piece in &other.0 {
            if skip >= piece.iov_len {
                skip -= piece.iov_len;
                continue;
            }
            if self.0.len() == PIECES_MAX {
                return;
            }
            self.0.push(libc::iovec {
                iov_base: piece.iov_base.wrapping_byte_add(skip),
                iov_len: piece.iov_len - skip,
            });
            skip = 0;
        }
    }
}

/// Bytes in all of `landing`.
pub(crate) fn landing_bytes(landing: &[VolatileSlice<'_>]) -> usize {
    landing.iter().map(VolatileSlice::len).sum()
}

/// Whether more bytes of a frame will follow those of a call: the kernel need not send a packet
/// that is not full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Followed {
    ByNothing,
    ByMore,
}

/// `pieces` behind their first `skip` bytes, as many as one call takes.
fn rest_of(pieces: &[Piece<'_>], skip: usize) -> Pieces {
    let (mut all, mut rest) = (Pieces::default(), Pieces::default());
    all.append(pieces);
    rest.append_rest(&all, skip);
    rest
}

/// Sends `pieces` behind their first `skip` bytes; returns when all are with the kernel, as many as
/// one call takes, or the socket's time is up.
pub(crate) fn send_pieces(
    socket: BorrowedFd<'_>,
    pieces: &[Piece<'_>],
    skip: usize,
    followed: Followed,
) -> io::Result<usize> {
    let mut rest = rest_of(pieces, skip);
    let flags = match followed {
        Followed::ByNothing => libc::MSG_NOSIGNAL,
        Followed::ByMore => libc::MSG_NOSIGNAL | libc::MSG_MORE,
    };
    // SAFETY: all-zero is a valid `msghdr`: no address, no pieces, no control data.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = rest.0.as_mut_ptr();
    message.msg_iovlen = rest.0.len();
    // SAFETY: the pieces are borrowed until the call returns, and only read; the message and its
    // piece list live on this stack and in `rest`.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Makes room for `bytes` in a pipe where the process may have it; else its room stays.
pub(crate) fn make_room(pipe: BorrowedFd<'_>, bytes: usize) {
    let wanted = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the call takes a number and no pointer.
    unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, wanted) };
}

/// Puts references to the pages of `memory`, pieces all, behind its first `skip` bytes into an
/// empty pipe; says for how many bytes, never 0 and as many as it has room for.
pub(crate) fn vmsplice(
    pipe: BorrowedFd<'_>,
    memory: &[Piece<'_>],
    skip: usize,
) -> io::Result<usize> {
    let rest = rest_of(memory, skip);
    // SAFETY: the pieces are borrowed until the call returns; what the kernel keeps are references
    // of its own to their pages, which it reads.
    let taken = unsafe {
        libc::vmsplice(
            pipe.as_raw_fd(),
            rest.0.as_ptr(),
            rest.0.len(),
            libc::SPLICE_F_NONBLOCK,
        )
    };
    match usize::try_from(taken) {
        Ok(0) => Err(io::ErrorKind::WriteZero.into()),
        Ok(bytes) => Ok(bytes),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Moves at most `bytes` from a pipe into a socket; returns when they are with the kernel, or the
/// socket's time is up. It must not be called for more than the pipe holds.
pub(crate) fn splice(
    pipe: BorrowedFd<'_>,
    socket: BorrowedFd<'_>,
    bytes: usize,
    followed: Followed,
) -> io::Result<usize> {
    let flags = match followed {
        Followed::ByNothing => 0,
        Followed::ByMore => libc::SPLICE_F_MORE,
    };
    let (from, to) = (pipe.as_raw_fd(), socket.as_raw_fd());
    let nowhere = std::ptr::null_mut();
    // SAFETY: pipe and socket have no offsets, so none are pointed to.
    let moved = unsafe { libc::splice(from, nowhere, to, nowhere, bytes, flags) };
    usize::try_from(moved).map_err(|_| io::Error::last_os_error())
}

/// Has this thread not be told by a signal of a socket that is closed: splice(2) takes no
/// `MSG_NOSIGNAL`, and not every program ignores `SIGPIPE` as Rust's do.
pub(crate) fn block_sigpipe() -> io::Result<()> {
    // SAFETY: all-zero is a set of signals for the next call to empty.
    let mut signals: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set lives on this stack; no old mask is asked for.
    let failure = unsafe {
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const signals, std::ptr::null_mut())
    };
    match failure {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
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
