//! One connected socket that several handles share, and the handle that stops it. What goes over it
//! is not known here.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use socket2::Socket;

use crate::error::{LinkName, TransportError, TransportFault};
use crate::page::Piece;
use crate::sys::{self, Awaited, Followed};
use crate::wait::Wait;

/// Where in a message or frame a piece begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Start {
    /// At its front: silence ahead of it and a closed link there are in order.
    Front,
    /// Behind its front: the peer owes the rest.
    Midway,
}

/// A connected socket and its name.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) socket: Socket,
    pub(crate) name: LinkName,
    /// Longest time without a byte in the midst of a piece.
    pub(crate) silence: Duration,
    stopped: AtomicBool,
}

impl Link {
    pub(crate) fn new(socket: Socket, name: LinkName, silence: Duration) -> Self {
        Self {
            socket,
            name,
            silence,
            stopped: AtomicBool::new(false),
        }
    }

    /// Ends both directions: every blocked call returns. Idempotent.
    pub(crate) fn shut_down(&self) {
        // A link that the peer has ended already is as ended as can be.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// The error that `fault` is on this link. After a stop whatever the socket says is a
    /// consequence of it.
    pub(crate) fn fail(&self, fault: TransportFault) -> TransportError {
        if self.is_stopped() {
            return TransportFault::Stopped.of(self.name.clone());
        }
        fault.of(self.name.clone())
    }

    pub(crate) fn fail_io(&self, error: io::Error, deed: &'static str) -> TransportError {
        self.fail(TransportFault::of_socket(error, deed))
    }

    pub(crate) fn fail_silent(&self) -> TransportError {
        let silence = self.silence;
        self.fail(TransportFault::Silent { silence })
    }
}

impl Link {
    /// Fills `into`, by blocking calls.
    pub(crate) fn recv_all(&self, into: &mut [u8], start: Start) -> Result<(), TransportError> {
        let mut received = 0;
        while let Some(rest) = into.get_mut(received..).filter(|rest| !rest.is_empty()) {
            let missing_bytes = rest.len();
            let result = sys::recv(self.as_fd(), rest);
            received += self.received(result, received, missing_bytes, start)?;
        }
        Ok(())
    }

    /// What the result of a receiving call means, when `received` bytes of the piece had come
    /// ahead of it and `missing_bytes` had not: how many more there are, none to try again.
    pub(crate) fn received(
        &self,
        result: io::Result<usize>,
        received: usize,
        missing_bytes: usize,
        start: Start,
    ) -> Result<usize, TransportError> {
        let may_idle = received == 0 && start == Start::Front;
        match result {
            // Linux hands out what had arrived, and a fast peer would be listened to for long.
            _ if self.is_stopped() => Err(self.fail(TransportFault::Stopped)),
            Ok(0) if may_idle => Err(self.fail(TransportFault::Closed)),
            Ok(0) => Err(self.fail(TransportFault::ClosedMidway { missing_bytes })),
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) if is_silence(&error) && may_idle => Ok(0),
            Err(error) if is_silence(&error) => Err(self.fail_silent()),
            Err(error) => Err(self.fail_io(error, "receive")),
        }
    }

    /// Sends `bytes`, by blocking calls.
    pub(crate) fn send_all(&self, bytes: &[u8]) -> Result<(), TransportError> {
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            sent += self.sent(self.socket.send_with_flags(rest, libc::MSG_NOSIGNAL))?;
        }
        Ok(())
    }

    /// Sends what of `pieces` is behind their first `skip` bytes, by blocking calls.
    pub(crate) fn send_pieces(
        &self,
        pieces: &[Piece<'_>],
        skip: usize,
        followed: Followed,
    ) -> Result<(), TransportError> {
        let total: usize = pieces.iter().map(Piece::len).sum();
        let mut sent = skip;
        while sent < total {
            sent += self.sent(sys::send_pieces(self.as_fd(), pieces, sent, followed))?;
        }
        Ok(())
    }

    /// Sends `bytes` within the bounds of `wait`, which a peer that takes them at once never sees.
    pub(crate) fn send_within(&self, bytes: &[u8], wait: &Wait<'_>) -> Result<(), TransportError> {
        let mut ready = Vec::with_capacity(1);
        let mut sent = 0;
        while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            match self.socket.send_with_flags(rest, flags) {
                Err(error) if is_silence(&error) && !self.is_stopped() => {
                    let nap = wait
                        .nap("the peer's reading")
                        .map_err(|fault| self.fail(fault))?;
                    sys::poll(&[(self.as_fd(), Awaited::Writable)], nap, &mut ready)
                        .map_err(|error| self.fail_io(error, "wait for room to send"))?;
                }
                result => sent += self.sent(result)?,
            }
        }
        Ok(())
    }

    /// What the result of a sending call means: how many bytes went, none to try again.
    pub(crate) fn sent(&self, result: io::Result<usize>) -> Result<usize, TransportError> {
        match result {
            _ if self.is_stopped() => Err(self.fail(TransportFault::Stopped)),
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            Err(error) if is_silence(&error) => Err(self.fail_silent()),
            Err(error) => Err(self.fail_io(error, "send")),
        }
    }
}

/// Is this how the kernel says that a socket's time is up?
fn is_silence(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Stops a link from any thread. Cloned freely. It does not keep the link open: a link closes when
/// whoever sends or receives on it is dropped.
#[derive(Clone, Debug)]
pub struct StopHandle(Weak<Link>);

impl StopHandle {
    pub(crate) fn new(link: &Arc<Link>) -> Self {
        Self(Arc::downgrade(link))
    }

    /// Ends the link in both directions, now and for good. Who is blocked on it on this side
    /// returns with [`TransportFault::Stopped`], and so does every later call; the peer sees the
    /// link closed or reset. Bytes that were sent before and are with the kernel still arrive,
    /// unless the peer has sent bytes that were not read. On a link that is closed it does nothing.
    pub fn stop(&self) {
        if let Some(link) = self.0.upgrade() {
            link.stopped.store(true, Ordering::Release);
            link.shut_down();
        }
    }
}
