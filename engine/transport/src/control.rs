//! The control link: whole messages in both directions over one blocking socket. What they mean,
//! and how long to wait for the next one, the session knows.

use std::io;
use std::sync::Arc;

use limosa_wire::{ENVELOPE_BYTES, Envelope};
use socket2::SockAddr;

use crate::endpoint::Endpoint;
use crate::error::{TransportError, TransportFault};
use crate::link::{Link, Start, StopHandle};
use crate::wait::Wait;

/// A connected control link, made by [`connect_control`](crate::connect_control) or
/// [`Listener::accept_control`](crate::Listener::accept_control).
#[derive(Debug)]
pub struct ControlLink {
    link: Arc<Link>,
    early: Vec<u8>,
}

impl ControlLink {
    /// `early` are bytes that were read from the socket already, and are the reader's first.
    pub(crate) fn new(link: Link, early: Vec<u8>) -> Self {
        let link = Arc::new(link);
        Self { link, early }
    }

    /// The peer's address; of a Unix socket the listener's, on both sides.
    #[must_use]
    pub fn peer(&self) -> &Endpoint {
        &self.link.name.peer
    }

    /// Whether what is sent on it, and on page streams beside it, stays in the memory of this host:
    /// a Unix socket, or a TCP peer at a loopback address or at this side's own.
    ///
    /// A relay on this host that carries bytes on is not seen through.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let ip = |address: io::Result<SockAddr>| address.ok()?.as_socket().map(|it| it.ip());
        let socket = &self.link.socket;
        match (ip(socket.local_addr()), ip(socket.peer_addr())) {
            (Some(own), Some(peer)) => peer.to_canonical().is_loopback() || own == peer,
            (own, peer) => own == peer,
        }
    }

    /// Stops reader and writer, from any thread.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle::new(&self.link)
    }

    /// The two directions, each for a thread of its own. The link closes when both are
    /// dropped.
    #[must_use]
    pub fn split(self) -> (ControlWriter, ControlReader) {
        let writer = ControlWriter {
            link: Arc::clone(&self.link),
        };
        let reader = ControlReader {
            link: self.link,
            early: self.early,
        };
        (writer, reader)
    }
}

/// Sends control messages.
#[derive(Debug)]
pub struct ControlWriter {
    link: Arc<Link>,
}

impl ControlWriter {
    /// Sends the bytes of one whole message, as `limosa_wire::Message::encode` makes them. Returns
    /// when the kernel has them all.
    ///
    /// # Errors
    ///
    /// [`Silent`](TransportFault::Silent) when the peer takes nothing for too long, `Reset`,
    /// `Vanished` or `Stopped`. A part may have been sent: the link is of no more use.
    pub fn send(&mut self, message: &[u8]) -> Result<(), TransportError> {
        self.link.send_all(message)
    }

    /// Sends as [`send`](Self::send) does, but waits for a peer that does not read only as `wait`
    /// says: for large messages that must not hold up whoever sends them.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](TransportFault::TimedOut) and [`Cancelled`](TransportFault::Cancelled) as
    /// `wait` says, `Reset`, `Vanished` or `Stopped`. A part may have been sent: the link is of no
    /// more use.
    pub fn send_within(&mut self, message: &[u8], wait: &Wait<'_>) -> Result<(), TransportError> {
        self.link.send_within(message, wait)
    }

    /// Says that nothing more will be sent. What was sent still arrives, and the peer's reader then
    /// sees the link closed; this side can go on reading until the peer does the same.
    pub fn finish(&mut self) {
        // A link that has ended already is as finished as can be.
        let _ = self.link.socket.shutdown(std::net::Shutdown::Write);
    }
}

/// Receives control messages.
#[derive(Debug)]
pub struct ControlReader {
    link: Arc<Link>,
    early: Vec<u8>,
}

impl ControlReader {
    /// Waits for the next message and reads it whole: its envelope, which is checked, and its body,
    /// which is not. Room for the body is only made once its size is within the bound of its kind.
    ///
    /// The wait for a message to begin has no end of its own; that it arrives fully within
    /// [`io_silence_max`](crate::LinkConfig::io_silence_max) between its bytes is demanded.
    ///
    /// # Errors
    ///
    /// [`Closed`](TransportFault::Closed) between messages,
    /// [`ClosedMidway`](TransportFault::ClosedMidway) and `Silent` inside one,
    /// [`Garbage`](TransportFault::Garbage) for a wrong envelope, `Reset`, `Vanished`, `Stopped`.
    pub fn recv(&mut self) -> Result<(Envelope, Vec<u8>), TransportError> {
        let mut front = [0; ENVELOPE_BYTES];
        self.fill(&mut front, Start::Front)?;
        let envelope = Envelope::decode(&front)
            .map_err(|error| self.link.fail(TransportFault::Garbage(error)))?;
        let mut body = vec![0; envelope.body_bytes as usize];
        self.fill(&mut body, Start::Midway)?;
        Ok((envelope, body))
    }

    /// Fills `into`, first from what was read early.
    fn fill(&mut self, into: &mut [u8], start: Start) -> Result<(), TransportError> {
        let early_bytes = self.early.len().min(into.len());
        let (front, rest) = into.split_at_mut(early_bytes);
        for (byte, early) in front.iter_mut().zip(self.early.drain(..early_bytes)) {
            *byte = early;
        }
        let start = if early_bytes > 0 {
            Start::Midway
        } else {
            start
        };
        self.link.recv_all(rest, start)
    }
}
