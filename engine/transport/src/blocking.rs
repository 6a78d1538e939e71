//! Page streams by blocking system calls: for kernels and sandboxes without io_uring, and the
//! yardstick for it. Time-outs are the socket's own.

use std::marker::PhantomData;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use vm_memory::VolatileSlice;

use crate::error::TransportError;
use crate::link::{Link, Start};
use crate::page::{FrameBytes, PageReceiver, PageSender};
use crate::probe::PageIo;
use crate::sys::{self, Followed, Pieces};

/// Sends each frame before it returns, and gives its buffer back at once.
pub(crate) struct BlockingSender<B> {
    link: Arc<Link>,
    frames: PhantomData<B>,
}

impl<B: FrameBytes> BlockingSender<B> {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        let frames = PhantomData;
        Self { link, frames }
    }
}

impl<B: FrameBytes> PageSender<B> for BlockingSender<B> {
    fn send(&mut self, frame: B) -> Result<Option<B>, TransportError> {
        let mut pieces = Vec::new();
        frame.pieces(&mut pieces);
        self.link.send_pieces(&pieces, 0, Followed::ByNothing)?;
        Ok(Some(frame))
    }

    fn reclaim(&mut self) -> Result<Option<B>, TransportError> {
        Ok(None)
    }

    fn flush(&mut self) -> Result<(), TransportError> {
        Ok(())
    }

    fn io(&self) -> PageIo {
        PageIo::Blocking
    }
}

/// Receives by one call for each piece.
pub(crate) struct BlockingReceiver {
    link: Arc<Link>,
    pieces: Pieces,
}

impl BlockingReceiver {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        let pieces = Pieces::default();
        Self { link, pieces }
    }
}

impl PageReceiver for BlockingReceiver {
    fn recv_header(&mut self, header: &mut [u8]) -> Result<(), TransportError> {
        self.link.recv_all(header, Start::Front)
    }

    fn recv_exact(&mut self, into: &mut [u8]) -> Result<(), TransportError> {
        self.link.recv_all(into, Start::Midway)
    }

    fn recv_into(&mut self, landing: &[VolatileSlice<'_>]) -> Result<(), TransportError> {
        let total = sys::landing_bytes(landing);
        let mut received = 0;
        while received < total {
            let fd = self.link.as_fd();
            let result = sys::recv_volatile(fd, landing, received, &mut self.pieces);
            let missing_bytes = total - received;
            received += self
                .link
                .received(result, received, missing_bytes, Start::Midway)?;
        }
        Ok(())
    }

    fn io(&self) -> PageIo {
        PageIo::Blocking
    }
}
