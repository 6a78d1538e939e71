//! The knobs of the source's pipeline, validated once.

use limosa_pages::PAGE_BYTES;
use limosa_wire::limits::FRAME_PAYLOAD_BYTES_MAX;
use limosa_wire::{EncodingSet, PageEncoding};

use crate::frame_buf::BESIDES_PAYLOAD_BYTES;

/// Which pages are encoded before they are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Codec {
    /// None: what is not zero goes as it is. For links at the speed of memory.
    #[default]
    None,
    /// LZ4 for every run whose sample shrinks, whatever it costs. For links that are known to be
    /// slow.
    Lz4,
    /// LZ4 where it shortens the time that the stream's thread spends: see
    /// [`Classifier`](crate::classify::Classifier).
    Auto,
}

/// Whether pages that go as they are pass through a frame's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Staging {
    /// Runs of pages go straight out of the guest's memory where the target lets
    /// [`Live`](PageEncoding::Live) records in, which it does on links that never leave the host;
    /// else through the buffer, where they hold still and are covered by the checksum.
    #[default]
    Auto,
    /// Every page goes through the buffer.
    Always,
    /// As `Auto`, on whatever link: raw pages then have no checksum but the link's own. Both sides
    /// must ask for it.
    Never,
}

/// How pages become frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackConfig {
    codec: Codec,
    encodings: EncodingSet,
    frame_payload_bytes: usize,
    staging: Staging,
}

impl PackConfig {
    /// Smallest payload of a full frame: 64 KiB.
    pub const FRAME_PAYLOAD_BYTES_MIN: usize = 64 << 10;

    /// Payload of a full frame by default: 256 KiB.
    ///
    /// Measured on one core of a Xeon with 2 MiB of L2 cache, lift, pack and seal of pages of
    /// noise: 64 KiB 10.1, 128 KiB 10.3, **256 KiB 10.4**, 512 KiB 10.0, 1 MiB 8.3 GiB/s, where
    /// memcpy to a small buffer has 9.8. A frame must still be in the cache when it is sealed and
    /// when the kernel takes it; the larger it is, the fewer sends. `examples/throughput.rs`
    /// measures again.
    pub const FRAME_PAYLOAD_BYTES: usize = 256 << 10;

    /// The defaults with `codec`, for a target that can read `encodings`.
    ///
    /// A codec that the target cannot read is left out.
    pub fn new(codec: Codec, encodings: EncodingSet) -> Self {
        let readable = encodings.contains(PageEncoding::Lz4);
        Self {
            codec: if readable { codec } else { Codec::None },
            encodings,
            frame_payload_bytes: Self::FRAME_PAYLOAD_BYTES,
            staging: Staging::Always,
        }
    }

    /// Sets whether pages may go straight out of the guest's memory.
    ///
    /// Default [`Staging::Always`]: whoever sends what a [`FrameBuf`](crate::FrameBuf) holds must
    /// know that not all of it lies there.
    #[must_use]
    pub fn with_staging(mut self, staging: Staging) -> Self {
        self.staging = staging;
        self
    }

    /// Sets the payload of a full frame, in bytes.
    ///
    /// Brought into [`FRAME_PAYLOAD_BYTES_MIN`](Self::FRAME_PAYLOAD_BYTES_MIN) to 1 MiB and down to
    /// whole pages. Default [`FRAME_PAYLOAD_BYTES`](Self::FRAME_PAYLOAD_BYTES).
    #[must_use]
    pub fn with_frame_payload_bytes(mut self, bytes: usize) -> Self {
        let bytes = bytes.clamp(
            Self::FRAME_PAYLOAD_BYTES_MIN,
            FRAME_PAYLOAD_BYTES_MAX as usize,
        );
        self.frame_payload_bytes = bytes - bytes % PAGE_BYTES;
        self
    }

    /// Which pages are encoded.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Whether pages that the guest never touched are said to be absent; else they are zero.
    pub fn sends_absent(&self) -> bool {
        self.encodings.contains(PageEncoding::Absent)
    }

    /// Whether long runs of raw pages go straight out of the guest's memory.
    pub fn sends_live(&self) -> bool {
        self.staging != Staging::Always && self.encodings.contains(PageEncoding::Live)
    }

    /// How many bytes of memory a buffer for such a frame takes.
    pub fn buffer_bytes(&self) -> usize {
        self.frame_payload_bytes + BESIDES_PAYLOAD_BYTES
    }

    /// Payload of a full frame, in bytes.
    pub fn frame_payload_bytes(&self) -> usize {
        self.frame_payload_bytes
    }
}

impl Default for PackConfig {
    /// Every encoding may be read, nothing is encoded.
    fn default() -> Self {
        Self::new(Codec::None, EncodingSet::ALL)
    }
}
