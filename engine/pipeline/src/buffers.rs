//! The buffers of one stream, made before the first round. Waiting for one that is being sent is
//! the caller's.

use crate::config::PackConfig;
use crate::frame_buf::FrameBuf;

/// A fixed number of empty [`FrameBuf`]s.
///
/// A pool belongs to one stream and its thread: it needs no lock. A stream needs one buffer to fill
/// and as many as its link has under way; with two in all the link waits for the lift and the lift
/// for the link.
#[derive(Debug)]
pub struct BufferPool {
    idle: Vec<FrameBuf>,
    buffer_count: usize,
    payload_bytes: usize,
    overhead_bytes: usize,
}

impl BufferPool {
    /// Makes `buffer_count` buffers, at least one, for frames as `config` wants them.
    pub fn new(buffer_count: usize, config: &PackConfig) -> Self {
        let payload_bytes = config.frame_payload_bytes();
        let buffer_count = buffer_count.max(1);
        let idle: Vec<_> = (0..buffer_count)
            .map(|_| FrameBuf::new(payload_bytes))
            .collect();
        let overhead_bytes = idle.iter().map(FrameBuf::overhead_bytes).sum();
        Self {
            idle,
            buffer_count,
            payload_bytes,
            overhead_bytes,
        }
    }

    /// An empty buffer; `None` while all are out.
    pub fn take(&mut self) -> Option<FrameBuf> {
        self.idle.pop()
    }

    /// Gives a buffer back, whatever it holds. One that is not of this pool is let go.
    pub fn give(&mut self, mut buffer: FrameBuf) {
        let belongs = buffer.payload_bytes_max() == self.payload_bytes;
        if belongs && self.idle.len() < self.buffer_count {
            buffer.clear();
            self.idle.push(buffer);
        }
    }

    /// How many buffers are in the pool now.
    pub fn idle_count(&self) -> usize {
        self.idle.len()
    }

    /// How many buffers there are in all.
    pub fn buffer_count(&self) -> usize {
        self.buffer_count
    }

    /// How many bytes of memory all buffers take together.
    pub fn overhead_bytes(&self) -> usize {
        self.overhead_bytes
    }
}
