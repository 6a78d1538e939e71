//! The knobs of the source's pipeline, validated once.

use limosa_pages::PAGE_BYTES;
use limosa_wire::limits::FRAME_PAYLOAD_BYTES_MAX;
use limosa_wire::{EncodingSet, PageEncoding};

use crate::codec::ZstdLevel;
use crate::frame_buf::BESIDES_PAYLOAD_BYTES;

/// How pages with data are written before they are sent. Pages of zeros, and of one word over and
/// over, take no room in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Codec {
    /// As they are. For links at the speed of memory.
    #[default]
    None,
    /// LZ4 for every run whose sample shrinks, whatever it costs. For links that are known to be
    /// slow.
    Lz4,
    /// zstd for every run whose sample shrinks, whatever it costs. For links that are known to be
    /// very slow.
    Zstd(ZstdLevel),
    /// What has changed of pages that were sent before, where the history still has what was sent.
    /// For guests that write a few words of many pages again and again.
    Delta,
    /// Whatever of these shortens the time that the stream takes: see
    /// [`Classifier`](crate::classify::Classifier).
    Auto,
}

/// The name of a codec that there is not.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no codec is named {name:?}: it is none, lz4, zstd, zstd:1 to zstd:4, delta or auto")]
pub struct UnknownCodec {
    /// The name.
    pub name: String,
}

impl core::str::FromStr for Codec {
    type Err = UnknownCodec;

    /// Reads `none`, `lz4`, `zstd`, `zstd:1` to `zstd:4`, `delta` or `auto`.
    fn from_str(name: &str) -> Result<Self, UnknownCodec> {
        let unknown = || UnknownCodec { name: name.into() };
        match name {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::Zstd(ZstdLevel::default())),
            "delta" => Ok(Self::Delta),
            "auto" => Ok(Self::Auto),
            _ => {
                let level = name.strip_prefix("zstd:").ok_or_else(unknown)?;
                let level = level.parse().ok().and_then(ZstdLevel::new);
                level.map(Self::Zstd).ok_or_else(unknown)
            }
        }
    }
}

impl core::fmt::Display for Codec {
    /// Writes what [`FromStr`](core::str::FromStr) reads.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd:{}", level.get()),
            Self::Delta => f.write_str("delta"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// The encodings among which [`Codec::Auto`] chooses.
const AUTO: [PageEncoding; 3] = [PageEncoding::Lz4, PageEncoding::Zstd, PageEncoding::Delta];

/// Most memory that the codecs of all streams take together, in bytes: together with the buffers of
/// frames it stays below the 64 MiB that an engine may take.
const CODEC_BYTES_MAX: usize = 24 << 20;

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
        let readable = match codec {
            Codec::None => true,
            Codec::Lz4 => encodings.contains(PageEncoding::Lz4),
            Codec::Zstd(_) => encodings.contains(PageEncoding::Zstd),
            Codec::Delta => encodings.contains(PageEncoding::Delta),
            Codec::Auto => AUTO.iter().any(|encoding| encodings.contains(*encoding)),
        };
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

    /// The encodings that may be used.
    pub fn encodings(&self) -> EncodingSet {
        self.encodings
    }

    /// Most memory that the codecs of all streams take together: history, tables and room to
    /// encode. In bytes; none where nothing is encoded.
    pub fn codec_bytes_max(&self) -> usize {
        match self.codec {
            Codec::None => 0,
            Codec::Lz4 | Codec::Zstd(_) | Codec::Delta | Codec::Auto => CODEC_BYTES_MAX,
        }
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
