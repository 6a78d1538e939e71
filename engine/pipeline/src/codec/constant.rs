//! Pages that hold one word over and over: the word alone. Other lengths of pattern are left to the
//! compressors.

use limosa_pages::PAGE_BYTES;
use limosa_wire::CONSTANT_BYTES;

use super::{PageCodec, UnpackFault};

/// Pages of one word.
pub(crate) struct Constant;

/// The word that `bytes` hold and nothing else; of most others two words are read.
#[inline]
pub(crate) fn word_of(bytes: &[u8]) -> Option<[u8; CONSTANT_BYTES]> {
    let (word, rest) = bytes.split_first_chunk()?;
    if rest.first_chunk() != Some(word) || rest.last_chunk() != Some(word) {
        return None;
    }
    // Each byte is that of a word ahead: so all words are the first one.
    let is_one_word = bytes.len().is_multiple_of(CONSTANT_BYTES)
        && rest == &bytes[..bytes.len() - CONSTANT_BYTES];
    is_one_word.then_some(*word)
}

impl PageCodec for Constant {
    fn encode(&mut self, pages: &[u8], _last: &[u8], into: &mut [u8]) -> Option<usize> {
        let word = word_of(pages)?;
        *into.first_chunk_mut()? = word;
        Some(CONSTANT_BYTES)
    }

    fn decode(&mut self, block: &[u8], pages: &mut [u8]) -> Result<(), UnpackFault> {
        let word: &[u8; CONSTANT_BYTES] = block.try_into().map_err(|_| UnpackFault::Damaged)?;
        let (words, rest) = pages.as_chunks_mut();
        words.fill(*word);
        rest.copy_from_slice(&word[..rest.len()]);
        Ok(())
    }
}

const _: () = assert!(PAGE_BYTES.is_multiple_of(CONSTANT_BYTES));
