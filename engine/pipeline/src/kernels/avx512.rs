//! The loops for processors with AVX-512: 64 bytes at a time. What they must answer is in
//! `portable.rs`.

use core::arch::x86_64::{
    __m512i, _mm512_or_si512, _mm512_setzero_si512, _mm512_storeu_si512, _mm512_test_epi64_mask,
};

use limosa_pages::PAGE_BYTES;

use super::SourcePage;

/// Bytes that one turn of the loop moves: four registers, so that the loads need not wait for the
/// zero test.
const TURN_BYTES: usize = 4 * size_of::<__m512i>();

/// Proof that the processor has AVX-512 F.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx512 {
    /// `None` where the processor lacks AVX-512 F.
    pub(super) fn new() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }

    /// Copies the page, and says whether the copy holds nothing but zeros.
    #[inline]
    pub(super) fn copy_and_test_zero(
        self,
        page: SourcePage<'_>,
        into: &mut [u8; PAGE_BYTES],
    ) -> bool {
        // SAFETY: `self` exists, so the processor has AVX-512 F.
        unsafe { copy_and_test_zero(page, into) }
    }

    /// Whether the page holds nothing but zeros.
    #[inline]
    pub(super) fn test_zero(self, page: SourcePage<'_>) -> bool {
        // SAFETY: `self` exists, so the processor has AVX-512 F.
        unsafe { test_zero(page) }
    }
}

#[target_feature(enable = "avx512f")]
fn test_zero(page: SourcePage<'_>) -> bool {
    let source = page.pointer.cast::<__m512i>();
    (0..PAGE_BYTES / TURN_BYTES).all(|turn| {
        let mut all = _mm512_setzero_si512();
        for lane in 0..4 {
            // SAFETY: `(turn * 4 + lane + 1) * 64` is at most `PAGE_BYTES`, which a `SourcePage`
            // has readable and aligned.
            let part = unsafe { source.add(turn * 4 + lane).read_volatile() };
            all = _mm512_or_si512(all, part);
        }
        _mm512_test_epi64_mask(all, all) == 0
    })
}

#[target_feature(enable = "avx512f")]
fn copy_and_test_zero(page: SourcePage<'_>, into: &mut [u8; PAGE_BYTES]) -> bool {
    let mut seen = [_mm512_setzero_si512(); 4];
    for (turn, turn_into) in into.chunks_exact_mut(TURN_BYTES).enumerate() {
        let source = page
            .pointer
            .wrapping_add(turn * TURN_BYTES)
            .cast::<__m512i>();
        let target = turn_into.as_mut_ptr().cast::<__m512i>();
        for (lane, seen) in seen.iter_mut().enumerate() {
            // SAFETY: `turn * TURN_BYTES + lane * 64 + 64` is at most `PAGE_BYTES`, which a
            // `SourcePage` has readable and aligned and `turn_into` ends before; the store needs no
            // alignment.
            unsafe {
                let part = source.add(lane).read_volatile();
                *seen = _mm512_or_si512(*seen, part);
                _mm512_storeu_si512(target.add(lane), part);
            }
        }
    }
    let all = _mm512_or_si512(
        _mm512_or_si512(seen[0], seen[1]),
        _mm512_or_si512(seen[2], seen[3]),
    );
    _mm512_test_epi64_mask(all, all) == 0
}
