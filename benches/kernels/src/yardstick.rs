//! What the machine can do at best: copies and reads without any of the product's code.

use core::hint::black_box;

use limosa_pages::{CHUNK_BYTES, CHUNK_PAGES, PAGE_BYTES};
use limosa_pipeline::PackConfig;

use crate::bitmap::{CHUNKS_FOR_ONE, Density, set_of};
use crate::guest::{Fill, Guest};
use crate::kernel::{KernelError, Pass};

/// What one copy moves. Beyond 2 KiB libc leaves the work to one instruction of the processor whose
/// speed differs more from machine to machine than all else here does.
const PIECE_BYTES: usize = PAGE_BYTES / 2;

/// A guest's memory into a buffer that stays in the cache, as the corridor's does.
pub(crate) fn copy_near(chunk_count: u64) -> Result<(Pass, u64), KernelError> {
    let guest = Guest::new(chunk_count, Fill::Noise)?;
    let mut buffer = vec![1; PackConfig::FRAME_PAYLOAD_BYTES];
    let (page_count, pages_each) = (guest.page_count(), (buffer.len() / PAGE_BYTES) as u64);
    let pass = move || {
        for first in (0..page_count).step_by(pages_each as usize) {
            let mut rest = guest.run(first, pages_each)?;
            for piece in buffer.chunks_exact_mut(PIECE_BYTES) {
                rest.copy_to(piece);
                let Ok(next) = rest.offset(PIECE_BYTES) else {
                    break;
                };
                rest = next;
            }
            black_box(&buffer);
        }
        Ok(())
    };
    Ok((Box::new(pass), page_count))
}

/// Bytes into a guest's memory, as many as it has.
pub(crate) fn copy_far(chunk_count: u64) -> Result<(Pass, u64), KernelError> {
    let guest = Guest::new(chunk_count, Fill::Noise)?;
    let bytes = vec![1_u8; chunk_count as usize * CHUNK_BYTES];
    let page_count = guest.page_count();
    let pass = move || {
        for (first, chunk) in (0..)
            .step_by(CHUNK_PAGES as usize)
            .zip(bytes.chunks_exact(CHUNK_BYTES))
        {
            guest.run(first, CHUNK_PAGES)?.copy_from(chunk);
        }
        black_box(&guest);
        Ok(())
    };
    Ok((Box::new(pass), page_count))
}

/// Memory, each word once.
pub(crate) fn read(chunk_count: u64) -> (Pass, u64) {
    let words = vec![0_u64; chunk_count as usize * CHUNK_BYTES / 8];
    // An untouched page would be the kernel's one page of zeros, which is always in the cache.
    let words: Vec<u64> = words.into_iter().map(|word| black_box(word) + 1).collect();
    let pass = move || {
        black_box(sum(black_box(&words)));
        Ok(())
    };
    (Box::new(pass), chunk_count * CHUNK_PAGES)
}

/// The bits of a scan, each word once.
pub(crate) fn read_bitmap(chunk_count: u64) -> (Pass, u64) {
    let chunk_count = chunk_count * CHUNKS_FOR_ONE;
    let pages = set_of(chunk_count, Density::Full);
    let pass = move || {
        black_box(sum(black_box(pages.words())));
        Ok(())
    };
    (Box::new(pass), chunk_count)
}

/// In lanes, so that no addition waits for the one before.
fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0_u64; 16];
    for part in words.chunks_exact(lanes.len()) {
        for (lane, word) in lanes.iter_mut().zip(part) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.iter().fold(0, |sum, lane| sum.wrapping_add(*lane))
}
