//! zstd frames: half again as short as LZ4 blocks at a third of the speed, for links that are much
//! slower than memory.

use zstd::zstd_safe::{CCtx, CParameter, DCtx, ResetDirective};

use super::{BLOCK_BYTES_MAX, PageCodec, UnpackFault};

/// How hard zstd tries: 1 to 4, default 1.
///
/// Measured on one core of an EPYC 7003, blocks of 256 KiB of a program with its symbols, against
/// LZ4 with ratio 2.5: level 1 has 3.6, 2 3.8, 3 3.9, 4 4.0, each at two thirds of the speed of the
/// one before. Level 9 has 4.2 at a sixth of the speed of level 3 and takes 3 MiB a stream: beyond
/// 4 no level pays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ZstdLevel(u8);

impl ZstdLevel {
    /// The fastest: 1.
    pub const MIN: Self = Self(1);

    /// The slowest that pays: 4.
    pub const MAX: Self = Self(4);

    /// The one that is weighed against the fastest where levels are chosen: 3.
    pub(crate) const SLOW: Self = Self(3);

    /// The level numbered so; `None` outside of 1 to 4.
    pub fn new(level: u8) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0)
            .contains(&level)
            .then_some(Self(level))
    }

    /// The level's number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Default for ZstdLevel {
    fn default() -> Self {
        Self::MIN
    }
}

/// One zstd frame for each run of pages.
pub(crate) struct Zstd {
    encoder: Option<CCtx<'static>>,
    level: ZstdLevel,
    tables: Tables,
    decoder: Option<DCtx<'static>>,
}

impl Zstd {
    /// For encoding runs of up to `run_bytes` at levels of up to `level`. Its memory is taken here.
    pub(crate) fn encoder(level: ZstdLevel, run_bytes: usize) -> Self {
        let tables = Tables::of_runs(run_bytes);
        let mut zstd = Self {
            encoder: new_encoder(level, tables),
            level,
            tables,
            decoder: None,
        };
        // It works differently for short and for long runs: not always in less memory.
        for bytes in [run_bytes, run_bytes / 2, run_bytes / 16] {
            zstd.encode(&vec![1; bytes], &[], &mut vec![0; bytes]);
        }
        zstd
    }

    /// For decoding.
    pub(crate) fn decoder() -> Self {
        Self {
            encoder: None,
            level: ZstdLevel::MIN,
            tables: Tables::Small,
            decoder: DCtx::try_create(),
        }
    }

    /// Encodes at `level` from here on.
    pub(crate) fn set_level(&mut self, level: ZstdLevel) {
        if level == self.level {
            return;
        }
        if let Some(encoder) = &mut self.encoder
            && self
                .tables
                .parameters(level)
                .into_iter()
                .all(|parameter| encoder.set_parameter(parameter).is_ok())
        {
            self.level = level;
        }
    }

    /// How many bytes of memory it takes.
    pub(crate) fn overhead_bytes(&self) -> usize {
        self.encoder.as_ref().map_or(0, CCtx::sizeof)
            + self.decoder.as_ref().map_or(0, DCtx::sizeof)
    }
}

/// How much memory an encoder may take for its tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tables {
    /// What pays on long runs.
    Large,
    /// What there is room for where many streams share it, whose runs are short.
    Small,
}

impl Tables {
    fn of_runs(run_bytes: usize) -> Self {
        if run_bytes < BLOCK_BYTES_MAX {
            Self::Small
        } else {
            Self::Large
        }
    }

    fn parameters(self, level: ZstdLevel) -> [CParameter; 3] {
        // Entries as powers of two; 0 is what the level has. Level 4 would have 1 MiB of them for
        // runs of middling length.
        let (hash_log, chain_log) = match self {
            Self::Small if level > ZstdLevel::MIN => (12, 12),
            Self::Large if level == ZstdLevel::MAX => (0, 16),
            Self::Small | Self::Large => (0, 0),
        };
        [
            CParameter::CompressionLevel(level.0.into()),
            CParameter::HashLog(hash_log),
            CParameter::ChainLog(chain_log),
        ]
    }
}

/// `None` where there is no memory for one: then nothing is encoded.
fn new_encoder(level: ZstdLevel, tables: Tables) -> Option<CCtx<'static>> {
    let mut encoder = CCtx::try_create()?;
    for parameter in tables.parameters(level) {
        encoder.set_parameter(parameter).ok()?;
    }
    // The frame that carries it has a checksum of its own.
    encoder
        .set_parameter(CParameter::ChecksumFlag(false))
        .ok()?;
    Some(encoder)
}

impl PageCodec for Zstd {
    fn encode(&mut self, pages: &[u8], _last: &[u8], into: &mut [u8]) -> Option<usize> {
        // Where it would not become shorter it stops for want of room.
        let room = into.len().min(pages.len().checked_sub(1)?);
        let encoder = self.encoder.as_mut()?;
        let encoded = encoder.compress2(&mut into[..room], pages);
        if encoded.is_err() {
            // It stopped in the middle of a frame, which nobody continues.
            let _ = encoder.reset(ResetDirective::SessionOnly);
        }
        encoded.ok()
    }

    fn decode(&mut self, block: &[u8], pages: &mut [u8]) -> Result<(), UnpackFault> {
        let expected = pages.len();
        let decoder = self.decoder.as_mut().ok_or(UnpackFault::Damaged)?;
        match decoder.decompress(pages, block) {
            Ok(found) if found == expected => Ok(()),
            Ok(found) => Err(UnpackFault::TooShort { expected, found }),
            Err(code) if code == TOO_SMALL => Err(UnpackFault::TooLong { expected }),
            Err(_) => Err(UnpackFault::Damaged),
        }
    }
}

/// What zstd says where the frame has more than there is room for: its numbers of errors are
/// settled.
const TOO_SMALL: usize = 70_usize.wrapping_neg();
