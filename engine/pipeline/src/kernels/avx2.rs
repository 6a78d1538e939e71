//! The loops for processors with AVX2: 32 bytes at a time. What they must answer is in
//! `portable.rs`.

use core::arch::x86_64::{
    __m256i, _mm256_or_si256, _mm256_setzero_si256, _mm256_storeu_si256, _mm256_testz_si256,
};

use limosa_pages::PAGE_BYTES;

use super::SourcePage;

/// Bytes that one turn of the loop moves: four registers, so that the loads need not wait for the
/// zero test.
const TURN_BYTES: usize = 4 * size_of::<__m256i>();

/// Proof that the processor has AVX2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    /// `None` where the processor lacks AVX2.
    pub(super) fn new() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// Copies the page, and says whether the copy holds nothing but zeros.
    #[inline]
    pub(super) fn copy_and_test_zero(
        self,
        page: SourcePage<'_>,
        into: &mut [u8; PAGE_BYTES],
    ) -> bool {
        // SAFETY: `self` exists, so the processor has AVX2.
        unsafe { copy_and_test_zero(page, into) }
    }

    /// Whether the page holds nothing but zeros.
    #[inline]
    pub(super) fn test_zero(self, page: SourcePage<'_>) -> bool {
        // SAFETY: `self` exists, so the processor has AVX2.
        unsafe { test_zero(page) }
    }
}

#[target_feature(enable = "avx2")]
fn test_zero(page: SourcePage<'_>) -> bool {
    let source = page.pointer.cast::<__m256i>();
    (0..PAGE_BYTES / TURN_BYTES).all(|turn| {
        let mut all = _mm256_setzero_si256();
        for lane in 0..4 {
            // SAFETY: `(turn * 4 + lane + 1) * 32` is at most `PAGE_BYTES`, which a `SourcePage`
            // has readable and aligned.
            let part = unsafe { source.add(turn * 4 + lane).read_volatile() };
            all = _mm256_or_si256(all, part);
        }
        _mm256_testz_si256(all, all) == 1
    })
}

#[target_feature(enable = "avx2")]
fn copy_and_test_zero(page: SourcePage<'_>, into: &mut [u8; PAGE_BYTES]) -> bool {
    let mut seen = [_mm256_setzero_si256(); 4];
    for (turn, turn_into) in into.chunks_exact_mut(TURN_BYTES).enumerate() {
        let source = page
            .pointer
            .wrapping_add(turn * TURN_BYTES)
            .cast::<__m256i>();
        let target = turn_into.as_mut_ptr().cast::<__m256i>();
        for (lane, seen) in seen.iter_mut().enumerate() {
            // SAFETY: `turn * TURN_BYTES + lane * 32 + 32` is at most `PAGE_BYTES`, which a
            // `SourcePage` has readable and aligned and `turn_into` ends before; the store needs no
            // alignment.
            unsafe {
                let part = source.add(lane).read_volatile();
                *seen = _mm256_or_si256(*seen, part);
                _mm256_storeu_si256(target.add(lane), part);
            }
        }
    }
    let all = _mm256_or_si256(
        _mm256_or_si256(seen[0], seen[1]),
        _mm256_or_si256(seen[2], seen[3]),
    );
    _mm256_testz_si256(all, all) == 1
}
