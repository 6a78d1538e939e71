//! What a kernel is, and the list of all of them.

use core::fmt;

use limosa_pipeline::{Codec, LandError, MemoryError, PackConfig, PackError, Staging, ZstdLevel};

use crate::bitmap::{self, Density};
use crate::corridor::{config_of, pack};
use crate::guest::Fill;
use crate::landing::{Delivery, land};
use crate::streams::StreamCount;
use crate::{loops, yardstick};

/// Every kernel, in the order of a page's trip; the yardsticks are last.
///
/// A new codec is a line for each content that it is meant for.
pub const KERNELS: &[Kernel] = &[
    Kernel::new("copy-test", Task::CopyTest(Fill::Noise)),
    Kernel::new("checksum", Task::Checksum),
    Kernel::new("checksum-guest", Task::ChecksumGuest),
    Kernel::new("frame-table", Task::FrameTable),
    Kernel::new("scan-full", Task::Scan(Density::Full)),
    Kernel::new("scan-sparse", Task::Scan(Density::Sparse)),
    Kernel::new("pack-raw", Task::Pack(Fill::Noise, Codec::None)),
    Kernel::new("pack-zeros", Task::Pack(Fill::Zeros, Codec::None)),
    Kernel::new("pack-mixed", Task::Pack(Fill::Mixed, Codec::None)),
    Kernel::new("pack-live", Task::PackLive(Fill::Noise)),
    Kernel::new("pack-constant", Task::Pack(Fill::Words, Codec::None)),
    Kernel::new("pack-lz4", Task::Pack(Fill::Text, Codec::Lz4)),
    Kernel::new("pack-lz4-noise", Task::Pack(Fill::Noise, Codec::Lz4)),
    Kernel::new("pack-zstd", Task::Pack(Fill::Text, ZSTD)),
    Kernel::new("pack-delta", Task::Pack(Fill::Noise, Codec::Delta)),
    Kernel::new("land-raw", Task::Land(Fill::Noise, Codec::None)),
    Kernel::new("land-zeros", Task::Land(Fill::Zeros, Codec::None)),
    Kernel::new("land-mixed", Task::Land(Fill::Mixed, Codec::None)),
    Kernel::new("land-lz4", Task::Land(Fill::Text, Codec::Lz4)),
    Kernel::new("land-constant", Task::Land(Fill::Words, Codec::None)),
    Kernel::new("land-zstd", Task::Land(Fill::Text, ZSTD)),
    Kernel::new("land-raw-copied", Task::LandCopied),
    Kernel::new("memcpy-near", Task::CopyNear),
    Kernel::new("memcpy-far", Task::CopyFar),
    Kernel::new("read-memory", Task::Read),
    Kernel::new("read-bitmap", Task::ReadBitmap),
];

const ZSTD: Codec = Codec::Zstd(ZstdLevel::MIN);

/// A piece of page work with a name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    name: &'static str,
    task: Task,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    CopyTest(Fill),
    Checksum,
    ChecksumGuest,
    FrameTable,
    Scan(Density),
    Pack(Fill, Codec),
    PackLive(Fill),
    Land(Fill, Codec),
    LandCopied,
    CopyNear,
    CopyFar,
    Read,
    ReadBitmap,
}

/// What one unit of a kernel's work is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// A page of 4 KiB.
    Page,
    /// A record of a frame's table.
    Record,
    /// A chunk's 512 bits.
    Chunk,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Page => "page",
            Self::Record => "record",
            Self::Chunk => "chunk",
        })
    }
}

/// How much one pass works on, and whether it is more than it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Amount {
    /// Chunks of 2 MiB, at least one. A kernel that works on bits takes 2048 times as many.
    pub chunk_count: u64,
    /// The work itself, or more of it.
    pub load: Load,
}

/// Whether a kernel does its work, or more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Load {
    /// Just its work.
    #[default]
    Plain,
    /// The corridor lifts, packs and seals one page in ten twice: a slow-down that whoever watches
    /// the kernels must see. Kernels other than `pack-…` are as ever.
    Planted,
}

/// Why a kernel could not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// There was no memory for its guest.
    #[error("no memory for a guest of {chunk_count} chunks: {why}")]
    NoMemory {
        /// Size of the guest.
        chunk_count: u64,
        /// What the kernel of this host says.
        why: String,
    },
    /// The guest's memory could not be reached.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The corridor failed.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The lander failed.
    #[error(transparent)]
    Land(#[from] LandError),
    /// What the corridor made is not what the lander reads.
    #[error("the recorded frames are not what a lander reads: {what}")]
    Tape {
        /// What is wrong with them.
        what: String,
    },
    /// No threads for the scan.
    #[error("no thread for the scan: {0}")]
    Threads(String),
}

/// One pass of a kernel's work.
pub(crate) type Pass = Box<dyn FnMut() -> Result<(), KernelError> + Send>;

/// A kernel with all that it needs.
pub struct Prepared {
    pass: Pass,
    units: u64,
}

impl Prepared {
    /// Does the work once.
    ///
    /// # Errors
    /// Any [`KernelError`]: what was measured then means nothing.
    pub fn pass(&mut self) -> Result<(), KernelError> {
        (self.pass)()
    }

    /// Units of work in one pass.
    pub fn units(&self) -> u64 {
        self.units
    }
}

impl Kernel {
    const fn new(name: &'static str, task: Task) -> Self {
        Self { name, task }
    }

    /// The kernel of that name.
    pub fn named(name: &str) -> Option<Self> {
        KERNELS.iter().find(|kernel| kernel.name == name).copied()
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it is there for others to be compared with: it runs no code of the product.
    pub fn is_yardstick(&self) -> bool {
        matches!(
            self.task,
            Task::CopyNear | Task::CopyFar | Task::Read | Task::ReadBitmap
        )
    }

    /// What its work is counted in.
    pub fn unit(&self) -> Unit {
        match self.task {
            Task::FrameTable => Unit::Record,
            Task::Scan(_) | Task::ReadBitmap => Unit::Chunk,
            _ => Unit::Page,
        }
    }

    /// What it does, for people.
    pub fn what(&self) -> &'static str {
        match self.task {
            Task::CopyTest(_) => "copy a page and find out whether it is zero",
            Task::Checksum => "checksum of a frame's payload",
            Task::ChecksumGuest => "checksum of pages in the guest's memory",
            Task::FrameTable => "encode and decode header and record table of a frame",
            Task::Scan(_) => "bitmap to work lists",
            Task::Pack(..) => "lift, pack and seal",
            Task::PackLive(_) => "the same where pages are sent straight out of the guest's memory",
            Task::Land(..) => "open, check, unpack and place, of bytes that are there",
            Task::LandCopied => "the same, with the copy that a socket makes",
            Task::CopyNear => "memcpy to a buffer in the cache",
            Task::CopyFar => "memcpy to as much memory",
            Task::Read => "read memory",
            Task::ReadBitmap => "read a bitmap",
        }
    }

    /// Makes memory and fills it, so that passes do nothing but the work.
    ///
    /// # Errors
    /// [`KernelError::NoMemory`], and those of the rooms that are used to prepare.
    pub fn prepare(&self, amount: Amount) -> Result<Prepared, KernelError> {
        let prepared = self.prepare_streams(amount, 1)?.pop();
        prepared.ok_or_else(|| KernelError::Tape {
            what: "there is no stream".into(),
        })
    }

    /// As [`prepare`](Self::prepare), for so many threads that each do the work of `amount`.
    ///
    /// Corridors are then the streams of one guest, and landers those of one ledger too, as in a
    /// true migration. All other kernels have nothing to share. `stream_count` is brought into 1 to
    /// [`STREAMS_MAX`](limosa_wire::STREAMS_MAX).
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare).
    pub fn prepare_streams(
        &self,
        amount: Amount,
        stream_count: u16,
    ) -> Result<Vec<Prepared>, KernelError> {
        let streams = StreamCount::new(stream_count);
        let chunk_count = amount.chunk_count.max(1);
        let amount = Amount {
            chunk_count,
            ..amount
        };
        let noise = (Fill::Noise, Codec::None);
        let each = match self.task {
            Task::Pack(fill, codec) => pack(amount, streams, (fill, config_of(codec)))?,
            Task::PackLive(fill) => {
                let config = PackConfig::default().with_staging(Staging::Never);
                pack(amount, streams, (fill, config))?
            }
            Task::Land(fill, codec) => {
                land(chunk_count, streams, (fill, codec), Delivery::InPlace)?
            }
            Task::LandCopied => land(chunk_count, streams, noise, Delivery::Copied)?,
            _ => {
                let each = streams.indices().map(|_| self.prepare_alone(chunk_count));
                each.collect::<Result<_, _>>()?
            }
        };
        let prepared = |(pass, units)| Prepared { pass, units };
        Ok(each.into_iter().map(prepared).collect())
    }

    fn prepare_alone(&self, chunk_count: u64) -> Result<(Pass, u64), KernelError> {
        match self.task {
            Task::CopyTest(fill) => loops::copy_test(chunk_count, fill),
            Task::Checksum => Ok(loops::checksum_of_payload(chunk_count)),
            Task::ChecksumGuest => loops::checksum_of_guest(chunk_count),
            Task::FrameTable => Ok(loops::frame_table(chunk_count)),
            Task::Scan(density) => bitmap::scanned(chunk_count, density),
            Task::CopyNear => yardstick::copy_near(chunk_count),
            Task::CopyFar => yardstick::copy_far(chunk_count),
            Task::Read => Ok(yardstick::read(chunk_count)),
            Task::ReadBitmap => Ok(yardstick::read_bitmap(chunk_count)),
            Task::Pack(..) | Task::PackLive(_) | Task::Land(..) | Task::LandCopied => {
                Err(KernelError::Tape {
                    what: "a stream is prepared with its guest".into(),
                })
            }
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}
