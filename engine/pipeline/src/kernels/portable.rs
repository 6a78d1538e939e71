//! The loops that every processor can run, and the oracle of the faster ones. Nothing here is
//! tuned.

use limosa_pages::PAGE_BYTES;

use super::SourcePage;

const WORD_BYTES: usize = size_of::<u64>();

/// Copies the page, and says whether the copy holds nothing but zeros.
pub(super) fn copy_and_test_zero(page: SourcePage<'_>, into: &mut [u8; PAGE_BYTES]) -> bool {
    let source = page.pointer.cast::<u64>();
    let mut seen = 0;
    for (at, word_into) in into.chunks_exact_mut(WORD_BYTES).enumerate() {
        // SAFETY: a `SourcePage` has `PAGE_BYTES` readable, aligned bytes, and `into` has as many.
        let word = unsafe { source.add(at).read_volatile() };
        seen |= word;
        word_into.copy_from_slice(&word.to_ne_bytes());
    }
    seen == 0
}

/// Whether the page holds nothing but zeros.
pub(super) fn is_zero_page(page: SourcePage<'_>) -> bool {
    let source = page.pointer.cast::<u64>();
    (0..PAGE_BYTES / WORD_BYTES).all(|at| {
        // SAFETY: a `SourcePage` has `PAGE_BYTES` readable, aligned bytes.
        let word = unsafe { source.add(at).read_volatile() };
        word == 0
    })
}

/// Whether there is nothing but zeros in `bytes`.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}
