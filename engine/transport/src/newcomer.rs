//! A connection that has not shown yet who it is, and what its first message makes of it. Newcomers
//! are read without blocking, and never a byte beyond their first message.

use std::io::{self, Read as _};
use std::time::Instant;

use limosa_wire::{
    Bind, CONTROL_MAGIC, ENVELOPE_BYTES, Envelope, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader,
    FrameKind, MessageKind, checksum,
};
use socket2::Socket;

use crate::endpoint::Endpoint;

/// How many newcomers were dropped, by reason, since the listener was bound. A healthy network has
/// none; they disturb no migration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Strangers {
    /// Their first bytes are no valid `Hello` and no valid `Bind`.
    pub garbage: u64,
    /// They closed the connection ahead of the end of their first message: port scanners and
    /// health checks.
    pub closed: u64,
    /// They took longer than [`newcomer_max`](crate::LinkConfig::newcomer_max).
    pub slow: u64,
    /// They had to go because too many newcomers were there at once.
    pub crowded_out: u64,
    /// They showed a valid first message that nobody awaited: a second source, or a page stream of
    /// another migration, with a wrong secret or number, or at the wrong time.
    pub unbidden: u64,
}

impl Strangers {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.garbage + self.closed + self.slow + self.crowded_out + self.unbidden
    }
}

/// Why a newcomer is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flaw {
    Garbage,
    Closed,
}

/// What a newcomer turned out to be.
pub(crate) enum Shown {
    /// A control link; these are the bytes of its `Hello`.
    Control(Vec<u8>),
    /// A page stream, with what it says of itself.
    Stream(FrameHeader, Bind),
}

/// A connection without a whole first message.
#[derive(Debug)]
pub(crate) struct Newcomer {
    pub(crate) socket: Socket,
    pub(crate) peer: Endpoint,
    pub(crate) since: Instant,
    bytes: Vec<u8>,
}

/// What the bytes so far ask for.
enum Next {
    /// This many bytes in all.
    Bytes(usize),
    Shown(Shown),
}

impl Newcomer {
    /// `socket` must not block.
    pub(crate) fn new(socket: Socket, peer: Endpoint) -> Self {
        Self {
            socket,
            peer,
            since: Instant::now(),
            bytes: Vec::new(),
        }
    }

    /// Reads what is there. `None` when the first message is not whole yet.
    pub(crate) fn read(&mut self) -> Result<Option<Shown>, Flaw> {
        loop {
            let wanted = match next(&self.bytes)? {
                Next::Bytes(wanted) => wanted,
                Next::Shown(shown) => return Ok(Some(shown)),
            };
            let known = self.bytes.len();
            self.bytes.resize(wanted.max(known), 0);
            let result = match self.bytes.get_mut(known..) {
                Some(room) => (&self.socket).read(room),
                None => Ok(0),
            };
            let read = *result.as_ref().unwrap_or(&0);
            self.bytes.truncate(known + read);
            match result {
                Ok(0) => return Err(Flaw::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Flaw::Closed),
            }
        }
    }
}

fn next(bytes: &[u8]) -> Result<Next, Flaw> {
    match bytes.first_chunk() {
        None => Ok(Next::Bytes(CONTROL_MAGIC.len())),
        Some(&CONTROL_MAGIC) => next_of_control(bytes),
        Some(&FRAME_MAGIC) => next_of_stream(bytes),
        Some(_) => Err(Flaw::Garbage),
    }
}

fn next_of_control(bytes: &[u8]) -> Result<Next, Flaw> {
    let Some((front, body)) = bytes.split_first_chunk::<ENVELOPE_BYTES>() else {
        return Ok(Next::Bytes(ENVELOPE_BYTES));
    };
    let envelope = Envelope::decode(front).map_err(|_| Flaw::Garbage)?;
    if envelope.kind != MessageKind::Hello {
        return Err(Flaw::Garbage);
    }
    let body_bytes = envelope.body_bytes as usize;
    if body.len() < body_bytes {
        return Ok(Next::Bytes(ENVELOPE_BYTES + body_bytes));
    }
    if checksum(body) != envelope.body_crc {
        return Err(Flaw::Garbage);
    }
    Ok(Next::Shown(Shown::Control(bytes.to_vec())))
}

fn next_of_stream(bytes: &[u8]) -> Result<Next, Flaw> {
    let Some((front, payload)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Ok(Next::Bytes(FRAME_HEADER_BYTES));
    };
    let header = FrameHeader::decode(front).map_err(|_| Flaw::Garbage)?;
    if header.kind != FrameKind::Bind || header.frame_bytes() != FRAME_HEADER_BYTES + Bind::BYTES {
        return Err(Flaw::Garbage);
    }
    if payload.len() < Bind::BYTES {
        return Ok(Next::Bytes(FRAME_HEADER_BYTES + Bind::BYTES));
    }
    let bind = Bind::decode(&header, payload).map_err(|_| Flaw::Garbage)?;
    Ok(Next::Shown(Shown::Stream(header, bind)))
}
