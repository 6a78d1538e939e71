//! Memory of the guest on its way to a socket without a copy: its pages go through a pipe into the
//! socket's queue, from where the peer, or the network card, reads them.
//!
//! `sendmsg` copies each byte into the kernel. Here the kernel takes references to the pages
//! (vmsplice(2), splice(2)): on loopback the one copy left is the receiver's, which saves a sender
//! five sixths of its CPU time. What the guest writes before the peer has read goes too, so this
//! is for memory that is allowed to change meanwhile ([`Piece::Memory`]) and for nothing else. It
//! needs no io_uring; there a splice would run on a kernel thread of its own.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, pipe};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use vm_memory::VolatileSlice;

use crate::error::TransportError;
use crate::link::Link;
use crate::page::{FrameBytes, PageSender, Piece};
use crate::probe::PageIo;
use crate::sys::{self, Followed};

/// Asked of the kernel as room in a pipe, in bytes: what anybody may have
/// (`fs.pipe-max-size`, 1 MiB unless set otherwise). A pipe of the usual 64 KiB works as well, with
/// more calls.
const PIPE_BYTES: usize = 1 << 20;

/// The pipe between memory and a socket. Between two calls it is empty.
///
/// Page streams have their own; this is for who measures what sockets can do.
#[derive(Debug)]
pub struct Splicer {
    into: PipeWriter,
    out_of: PipeReader,
}

impl Splicer {
    /// A pipe, with room for 1 MiB where the process may have that. From then on this thread is
    /// told of a closed socket by an error and not by `SIGPIPE`.
    ///
    /// # Errors
    /// The kernel's, such as too many open files.
    pub fn new() -> io::Result<Self> {
        let (out_of, into) = pipe()?;
        sys::make_room(into.as_fd(), PIPE_BYTES);
        sys::block_sigpipe()?;
        Ok(Self { into, out_of })
    }

    /// Sends the front of `memory` on a blocking stream socket, as much of it as the pipe takes,
    /// and says how much: 1 byte or more. What is written there before the peer has read may go
    /// too.
    ///
    /// # Errors
    /// The kernel's. Whether a part was sent is unknown then, and the pipe is of no more use.
    pub fn splice(&self, socket: BorrowedFd<'_>, memory: VolatileSlice<'_>) -> io::Result<usize> {
        let taken = sys::vmsplice(self.into.as_fd(), &[Piece::Memory(memory)], 0)?;
        let mut left = taken;
        while left > 0 {
            match sys::splice(self.out_of.as_fd(), socket, left, Followed::ByNothing) {
                Ok(moved) => left -= moved,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Sends what of `memory`, pieces all, lies behind its first `skip` bytes, or as much of it as
    /// the pipe takes. Says how much; `None` where such memory has no pages to refer to.
    fn send(
        &self,
        link: &Link,
        memory: &[Piece<'_>],
        skip: usize,
        followed: Followed,
    ) -> Result<Option<usize>, TransportError> {
        let Ok(taken) = sys::vmsplice(self.into.as_fd(), memory, skip) else {
            return Ok(None);
        };
        let all: usize = memory.iter().map(Piece::len).sum();
        let followed = match taken + skip < all {
            true => Followed::ByMore,
            false => followed,
        };
        let mut left = taken;
        while left > 0 {
            let out_of = self.out_of.as_fd();
            left -= link.sent(sys::splice(out_of, link.as_fd(), left, followed))?;
        }
        Ok(Some(taken))
    }
}

/// Sends frames whose pieces are all in its buffer by another sender, and splices those with memory
/// of the guest.
pub(crate) struct SplicingSender<B> {
    link: Arc<Link>,
    usual: Box<dyn PageSender<B>>,
    /// `None` once memory turned out to be of a kind that can't be spliced.
    splicer: Option<Splicer>,
    done: VecDeque<B>,
}

impl<B: FrameBytes> SplicingSender<B> {
    /// `usual` itself where the process may have no pipe.
    pub(crate) fn around(link: Arc<Link>, usual: Box<dyn PageSender<B>>) -> Box<dyn PageSender<B>> {
        match Splicer::new() {
            Ok(splicer) => Box::new(Self {
                link,
                usual,
                splicer: Some(splicer),
                done: VecDeque::new(),
            }),
            Err(_) => usual,
        }
    }

    fn send_pieces(&mut self, pieces: &[Piece<'_>]) -> Result<(), TransportError> {
        let mut rest = pieces;
        while let Some(first) = rest.first() {
            let is_alike = |piece: &&Piece<'_>| piece.is_memory() == first.is_memory();
            let count = rest.iter().take_while(is_alike).count();
            let (now, later) = rest.split_at(count);
            let followed = match later.is_empty() {
                true => Followed::ByNothing,
                false => Followed::ByMore,
            };
            match first {
                Piece::Bytes(_) => self.link.send_pieces(now, 0, followed)?,
                Piece::Memory(_) => self.send_memory(now, followed)?,
            }
            rest = later;
        }
        Ok(())
    }

    fn send_memory(
        &mut self,
        memory: &[Piece<'_>],
        followed: Followed,
    ) -> Result<(), TransportError> {
        let all: usize = memory.iter().map(Piece::len).sum();
        let mut sent = 0;
        while let Some(splicer) = self.splicer.as_ref().filter(|_| sent < all) {
            match splicer.send(&self.link, memory, sent, followed)? {
                Some(more) => sent += more,
                None => self.splicer = None,
            }
        }
        self.link.send_pieces(memory, sent, followed)
    }
}

impl<B: FrameBytes> PageSender<B> for SplicingSender<B> {
    fn send(&mut self, frame: B) -> Result<Option<B>, TransportError> {
        let mut pieces = Vec::new();
        frame.pieces(&mut pieces);
        let has_memory = pieces.iter().any(Piece::is_memory);
        if !has_memory || self.splicer.is_none() {
            drop(pieces);
            let free = self.usual.send(frame)?;
            return Ok(free.or_else(|| self.done.pop_front()));
        }
        self.usual.flush()?;
        self.send_pieces(&pieces)?;
        drop(pieces);
        self.done.push_back(frame);
        self.reclaim()
    }

    fn reclaim(&mut self) -> Result<Option<B>, TransportError> {
        Ok(self.usual.reclaim()?.or_else(|| self.done.pop_front()))
    }

    fn flush(&mut self) -> Result<(), TransportError> {
        self.usual.flush()
    }

    fn io(&self) -> PageIo {
        self.usual.io()
    }
}
