//! Page streams: what a sender takes and gives back, what a receiver fills. How the kernel is asked
//! is in `uring.rs`, `blocking.rs` and `splice.rs`.

use std::sync::Arc;

use limosa_wire::StreamIndex;
use vm_memory::VolatileSlice;

use crate::blocking::{BlockingReceiver, BlockingSender};
use crate::config::{IoChoice, LinkConfig, Splice};
use crate::endpoint::Endpoint;
use crate::error::{TransportError, TransportFault};
use crate::link::{Link, StopHandle};
use crate::options::{self, LinkFacts};
use crate::probe::PageIo;
use crate::splice::SplicingSender;
use crate::uring::{Ring, UringReceiver, UringSender};

/// A part of what a [`FrameBytes`] puts on the wire.
#[derive(Debug)]
pub enum Piece<'a> {
    /// Bytes that hold still.
    Bytes(&'a [u8]),
    /// Memory that others may write meanwhile: each byte goes as it is when the kernel takes it or,
    /// where it is [spliced](Splice), as late as when the peer does.
    Memory(VolatileSlice<'a>),
}

impl Piece<'_> {
    /// How many bytes it puts on the wire.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Memory(slice) => slice.len(),
        }
    }

    pub(crate) fn is_memory(&self) -> bool {
        matches!(self, Self::Memory(_))
    }
}

/// Whole frames that are handed over to be sent.
///
/// A sender keeps the buffer to itself, in one place and untouched, from its last call of
/// [`pieces`](Self::pieces) until the kernel is through with them; so whatever safe code returns
/// there, inside the buffer, on the heap, or borrowed from what the buffer keeps alive, stays where
/// it is.
pub trait FrameBytes: Send + 'static {
    /// Appends, in their order, the pieces that go on the wire.
    fn pieces<'a>(&'a self, pieces: &mut Vec<Piece<'a>>);
}

impl FrameBytes for Vec<u8> {
    fn pieces<'a>(&'a self, pieces: &mut Vec<Piece<'a>>) {
        pieces.push(Piece::Bytes(self));
    }
}

impl FrameBytes for Box<[u8]> {
    fn pieces<'a>(&'a self, pieces: &mut Vec<Piece<'a>>) {
        pieces.push(Piece::Bytes(self));
    }
}

/// Sends the frames of one page stream, in order. It stays on the thread that made it.
///
/// Buffers go in with [`send`](Self::send) and come back, oldest first, from `send` or
/// [`reclaim`](Self::reclaim). After an error only dropping is left, which drops the buffers that
/// did not come back. Dropping a sender whose frames are not [flushed](Self::flush) breaks the
/// stream off.
pub trait PageSender<B: FrameBytes> {
    /// Hands over one frame, and takes back a buffer that is free again, when there is one. Waits
    /// only while [`frames_in_flight_max`](LinkConfig::frames_in_flight_max) frames are on their
    /// way.
    ///
    /// # Errors
    ///
    /// [`Silent`](TransportFault::Silent) when the peer takes nothing for too long, `Reset`,
    /// `Vanished` or `Stopped`; of this frame or of one handed over earlier.
    fn send(&mut self, frame: B) -> Result<Option<B>, TransportError>;

    /// Takes back the oldest buffer, and waits for it when it is still on its way. `None` when the
    /// sender holds no buffer.
    ///
    /// # Errors
    ///
    /// As of [`send`](Self::send).
    fn reclaim(&mut self) -> Result<Option<B>, TransportError>;

    /// Waits until the kernel has every byte. The buffers remain to be reclaimed.
    ///
    /// # Errors
    ///
    /// As of [`send`](Self::send).
    fn flush(&mut self) -> Result<(), TransportError>;

    /// How this sender reaches the kernel.
    fn io(&self) -> PageIo;
}

/// Receives the frames of one page stream, piece by piece. It stays on the thread that made it.
///
/// Every call fills what it was given, or fails; after an error the stream is of no more use, and
/// how much of the last piece was filled is unknown.
pub trait PageReceiver {
    /// Waits for the next frame and fills `header` with its first bytes. The wait has no end of
    /// its own: that a source which stays silent between frames is noticed, is the session's
    /// business.
    ///
    /// # Errors
    ///
    /// [`Closed`](TransportFault::Closed) when the peer closed the link ahead of a frame,
    /// [`ClosedMidway`](TransportFault::ClosedMidway) and [`Silent`](TransportFault::Silent) once
    /// a byte has come, `Reset`, `Vanished` or `Stopped`.
    fn recv_header(&mut self, header: &mut [u8]) -> Result<(), TransportError>;

    /// Fills `into` with the frame's next bytes.
    ///
    /// # Errors
    ///
    /// `ClosedMidway`, `Silent`, `Reset`, `Vanished` or `Stopped`.
    fn recv_exact(&mut self, into: &mut [u8]) -> Result<(), TransportError>;

    /// Fills all of `landing`, in its order, with the frame's next bytes: straight from the kernel
    /// into guest memory.
    ///
    /// # Errors
    ///
    /// As of [`recv_exact`](Self::recv_exact), and [`Kernel`](TransportFault::Kernel) when memory
    /// behind `landing` can't be written.
    fn recv_into(&mut self, landing: &[VolatileSlice<'_>]) -> Result<(), TransportError>;

    /// How this receiver reaches the kernel.
    fn io(&self) -> PageIo;
}

/// A bound page stream, ready to be opened by the thread that will use it.
#[derive(Debug)]
pub struct PageLink {
    link: Arc<Link>,
    stream: StreamIndex,
    io: IoChoice,
    splice: Splice,
    frames_in_flight_max: usize,
}

impl PageLink {
    pub(crate) fn new(link: Link, stream: StreamIndex, config: &LinkConfig) -> Self {
        Self {
            link: Arc::new(link),
            stream,
            io: config.io,
            splice: config.splice,
            frames_in_flight_max: config.frames_in_flight_bound(),
        }
    }

    /// Which stream of the migration it is.
    #[must_use]
    pub fn stream(&self) -> StreamIndex {
        self.stream
    }

    /// The peer's address; of a Unix socket the listener's, on both sides.
    #[must_use]
    pub fn peer(&self) -> &Endpoint {
        &self.link.name.peer
    }

    /// Stops the stream, from any thread.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle::new(&self.link)
    }

    /// What the kernel made of the socket's options.
    ///
    /// # Errors
    ///
    /// [`Kernel`](TransportFault::Kernel) when it does not say.
    pub fn facts(&self) -> Result<LinkFacts, TransportError> {
        options::facts(&self.link.socket)
            .map_err(|error| self.link.fail_io(error, "tell a socket's options"))
    }

    /// The sending end, to be used on this thread.
    ///
    /// # Errors
    ///
    /// [`NoUring`](TransportFault::NoUring) when io_uring was demanded and can't be had.
    pub fn into_sender<B: FrameBytes>(self) -> Result<Box<dyn PageSender<B>>, TransportError> {
        let ring = self.ring()?;
        let (link, held_max) = (Arc::clone(&self.link), self.frames_in_flight_max);
        let usual: Box<dyn PageSender<B>> = match ring {
            Some(ring) => Box::new(UringSender::new(link, ring, held_max)),
            None => Box::new(BlockingSender::new(link)),
        };
        Ok(match self.splice {
            Splice::Auto => SplicingSender::around(self.link, usual),
            Splice::Never => usual,
        })
    }

    /// The receiving end, to be used on this thread.
    ///
    /// # Errors
    ///
    /// [`NoUring`](TransportFault::NoUring) when io_uring was demanded and can't be had.
    pub fn into_receiver(self) -> Result<Box<dyn PageReceiver>, TransportError> {
        Ok(match self.ring()? {
            Some(ring) => Box::new(UringReceiver::new(self.link, ring)),
            None => Box::new(BlockingReceiver::new(self.link)),
        })
    }

    fn ring(&self) -> Result<Option<Ring>, TransportError> {
        match self.io {
            IoChoice::Blocking => Ok(None),
            IoChoice::Auto => Ok(Ring::new().ok()),
            IoChoice::Uring => Ring::new()
                .map(Some)
                .map_err(|reason| self.link.fail(TransportFault::NoUring { reason })),
        }
    }
}
