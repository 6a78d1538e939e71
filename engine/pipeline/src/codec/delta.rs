//! What of a page has changed: the words that differ from the version that the target has, and how
//! many equal ones lie between. The version is the history's at the source; at the target it is the
//! guest's memory.

use limosa_pages::PAGE_BYTES;
use limosa_wire::{DELTA_CHECKSUM_BYTES, checksum};

use super::{PageCodec, UnpackFault};

const WORD_BYTES: usize = 8;

/// The difference (exclusive or) of two versions of one page, by run length: pairs of how many
/// words are equal and how many differ, and behind each pair those that differ, as they are now.
///
/// | bytes | field |
/// | --- | --- |
/// | 0..4 | checksum of the page as it is now |
/// | then, until the end: 1 | number of equal words |
/// | 1 | number of words that differ |
/// | 8 for each | the words that differ |
///
/// Words behind the last pair are equal. Sending the words themselves takes as much room as sending
/// their differences would, and the checksum is of the page that comes out: a target that starts
/// from another version says so instead of running a guest on it.
pub(crate) struct Delta;

impl Delta {
    /// Longest delta that is made, in bytes: a longer one saves too little of its page.
    pub(crate) const BYTES_MAX: usize = PAGE_BYTES / 2;
}

impl PageCodec for Delta {
    fn encode(&mut self, pages: &[u8], last: &[u8], into: &mut [u8]) -> Option<usize> {
        let page: &[u8; PAGE_BYTES] = pages.try_into().ok()?;
        let last: &[u8; PAGE_BYTES] = last.try_into().ok()?;
        let room = into.len().min(Self::BYTES_MAX);
        let mut out = Out {
            bytes: &mut into[..room],
            end: 0,
        };
        // Its place; it is computed only of a page whose delta is short enough.
        out.push(&[0; DELTA_CHECKSUM_BYTES])?;
        let differs = |word: usize| word_at(page, word) != word_at(last, word);
        let (mut word, mut told) = (0, 0);
        loop {
            word = next_difference(page, last, word);
            if word == PAGE_WORDS {
                break;
            }
            let from = word;
            word = (from..PAGE_WORDS)
                .find(|word| !differs(*word))
                .unwrap_or(PAGE_WORDS);
            push_changed(&mut out, page, told, from..word)?;
            told = word;
        }
        let end = out.end;
        into[..DELTA_CHECKSUM_BYTES].copy_from_slice(&checksum(page).to_le_bytes());
        Some(end)
    }

    fn decode(&mut self, block: &[u8], pages: &mut [u8]) -> Result<(), UnpackFault> {
        let expected = pages.len();
        let (sum, mut rest) = block.split_first_chunk().ok_or(UnpackFault::Damaged)?;
        let mut left = &mut *pages;
        while !rest.is_empty() {
            let ([equal, changed], words) = rest.split_first_chunk().ok_or(UnpackFault::Damaged)?;
            let changed_bytes = usize::from(*changed) * WORD_BYTES;
            let (words, behind) = words
                .split_at_checked(changed_bytes)
                .ok_or(UnpackFault::Damaged)?;
            let into = left
                .split_at_mut_checked(usize::from(*equal) * WORD_BYTES)
                .and_then(|(_, into)| into.split_at_mut_checked(changed_bytes));
            let (into, unchanged) = into.ok_or(UnpackFault::TooLong { expected })?;
            into.copy_from_slice(words);
            (left, rest) = (unchanged, behind);
        }
        if checksum(pages) != u32::from_le_bytes(*sum) {
            return Err(UnpackFault::OtherBase);
        }
        Ok(())
    }
}

const PAGE_WORDS: usize = PAGE_BYTES / WORD_BYTES;

/// Words that are compared at once where most are equal.
const STRIDE_WORDS: usize = 8;

fn word_at(page: &[u8; PAGE_BYTES], word: usize) -> &[u8] {
    &page[word * WORD_BYTES..][..WORD_BYTES]
}

/// The first word at or behind `word` that differs; `PAGE_WORDS` where there is none.
fn next_difference(page: &[u8; PAGE_BYTES], last: &[u8; PAGE_BYTES], mut word: usize) -> usize {
    while word < PAGE_WORDS {
        let stride = STRIDE_WORDS - word % STRIDE_WORDS;
        let bytes = word * WORD_BYTES..(word + stride) * WORD_BYTES;
        if page[bytes.clone()] != last[bytes] {
            let differs = |word: &usize| word_at(page, *word) != word_at(last, *word);
            return (word..word + stride).find(differs).unwrap_or(word + stride);
        }
        word += stride;
    }
    PAGE_WORDS
}

/// Writes the words in `changed`, ahead of which those from `told` on are equal.
fn push_changed(
    out: &mut Out<'_>,
    page: &[u8; PAGE_BYTES],
    told: usize,
    changed: core::ops::Range<usize>,
) -> Option<()> {
    let (mut equal, mut from) = (changed.start - told, changed.start);
    while equal > usize::from(u8::MAX) {
        out.push(&[u8::MAX, 0])?;
        equal -= usize::from(u8::MAX);
    }
    while from < changed.end {
        let count = (changed.end - from).min(u8::MAX.into());
        out.push(&[equal as u8, count as u8])?;
        out.push(&page[from * WORD_BYTES..(from + count) * WORD_BYTES])?;
        (equal, from) = (0, from + count);
    }
    Some(())
}

/// Bytes that are being written, as far as there is room.
struct Out<'a> {
    bytes: &'a mut [u8],
    end: usize,
}

impl Out<'_> {
    fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let room = self.bytes.get_mut(self.end..self.end + bytes.len())?;
        room.copy_from_slice(bytes);
        self.end += bytes.len();
        Some(())
    }
}

const _: () = assert!(PAGE_WORDS.is_multiple_of(STRIDE_WORDS));
