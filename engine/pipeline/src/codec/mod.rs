//! The ways in which pages are written shorter than they are, one file each, with encode and decode
//! side by side. When one is worth its time is decided elsewhere.

mod constant;
mod delta;
mod history;
mod lz4;
mod zstd;

use limosa_pages::PAGE_BYTES;
use limosa_wire::limits::BLOCK_PAGES_MAX;

pub(crate) use self::zstd::Zstd;
pub use self::zstd::ZstdLevel;
pub(crate) use constant::{Constant, word_of};
pub(crate) use delta::Delta;
pub(crate) use history::{History, Last};
pub(crate) use lz4::Lz4;

/// Most bytes of pages that are encoded as one block.
pub(crate) const BLOCK_BYTES_MAX: usize = BLOCK_PAGES_MAX as usize * PAGE_BYTES;

/// One way to write whole pages.
///
/// A codec belongs to one thread, and works in what it took when it was made: neither direction
/// allocates. `decode` takes what a peer sent: it writes to `pages` only, and fails, without a
/// panic and without more memory, on what is no encoding of as many bytes.
pub(crate) trait PageCodec {
    /// Writes `pages`, of which the target has `last` so far, to the start of `into`, and says in
    /// how many bytes; `None` where they do not become shorter or `into` has no room.
    ///
    /// Only [`Delta`] looks at `last`.
    fn encode(&mut self, pages: &[u8], last: &[u8], into: &mut [u8]) -> Option<usize>;

    /// Puts what `block` says into `pages`, which hold what the target has so far.
    ///
    /// # Errors
    /// Every [`UnpackFault`]. What `pages` hold then means nothing.
    fn decode(&mut self, block: &[u8], pages: &mut [u8]) -> Result<(), UnpackFault>;
}

/// Why an encoded run is not what its record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackFault {
    /// The block would become more bytes than its record has pages for.
    #[error("the block unpacks to more than the {expected} bytes of its pages")]
    TooLong {
        /// Bytes of the record's pages.
        expected: usize,
    },
    /// The block became fewer bytes than its record has pages for.
    #[error("the block unpacks to {found} bytes, not to the {expected} of its pages")]
    TooShort {
        /// Bytes of the record's pages.
        expected: usize,
        /// Bytes that came out.
        found: usize,
    },
    /// The bytes are no block of the encoding that the record names.
    #[error("the bytes are no block of their encoding")]
    Damaged,
    /// A delta does not lead to the page that it is of: what it starts from is not there.
    #[error("the page has another checksum than the delta says: it starts from other contents")]
    OtherBase,
}

#[cfg(test)]
mod tests;
