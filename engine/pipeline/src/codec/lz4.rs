//! LZ4 blocks: fast both ways, for links that are a few times slower than memory.

use lz4_flex::block::{
    CompressTable, DecompressError, compress_into_with_table, decompress_into,
    get_maximum_output_size,
};

use super::{PageCodec, UnpackFault};

/// One LZ4 block for each run of pages.
pub(crate) struct Lz4 {
    table: Option<CompressTable>,
}

impl Lz4 {
    /// Memory of an encoder, in bytes: its table has 4096 places of four bytes.
    pub(crate) const OVERHEAD_BYTES: usize = 16 << 10;

    /// Room that `encode` needs for runs of up to `run_bytes`, whatever they hold, in bytes.
    pub(crate) fn room_bytes(run_bytes: usize) -> usize {
        get_maximum_output_size(run_bytes)
    }

    /// For encoding.
    pub(crate) fn encoder() -> Self {
        Self {
            table: Some(CompressTable::large()),
        }
    }

    /// For decoding, which needs no memory.
    pub(crate) fn decoder() -> Self {
        Self { table: None }
    }
}

impl PageCodec for Lz4 {
    fn encode(&mut self, pages: &[u8], _last: &[u8], into: &mut [u8]) -> Option<usize> {
        let table = self.table.get_or_insert_with(CompressTable::large);
        let encoded = compress_into_with_table(pages, into, table).ok();
        encoded.filter(|bytes| *bytes < pages.len())
    }

    fn decode(&mut self, block: &[u8], pages: &mut [u8]) -> Result<(), UnpackFault> {
        let expected = pages.len();
        match decompress_into(block, pages) {
            Ok(found) if found == expected => Ok(()),
            Ok(found) => Err(UnpackFault::TooShort { expected, found }),
            Err(DecompressError::OutputTooSmall { .. }) => Err(UnpackFault::TooLong { expected }),
            Err(_) => Err(UnpackFault::Damaged),
        }
    }
}
