//! Lift: guest memory to a frame. Place: bytes to guest memory. The only doors through which the
//! pipeline touches a guest; what the bytes mean is `pack.rs`.

use limosa_pages::{PAGE_BYTES, PageRange};
use vm_memory::VolatileSlice;

use crate::frame_buf::FrameBuf;
use crate::kernels::{Content, Kernels};
use crate::memory::{GuestMemory, MemoryError, checked_slice};

static ZERO_PAGE: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// Copies one page behind the payload of the frame that is being built, and says what the copy
/// holds; `None` where the frame is full. A page of zeros does not become part of the payload.
///
/// The page is read once: from here on it is a still picture, whatever the guest writes.
#[inline]
pub(crate) fn lift(
    kernels: Kernels,
    page: &VolatileSlice<'_>,
    frame: &mut FrameBuf,
) -> Option<Content> {
    let content = kernels.copy_and_test_zero(page, frame.next_page()?);
    if content == Content::Data {
        frame.keep_page();
    }
    Some(content)
}

/// Copies `bytes`, as long as `pages`, into the guest.
pub(crate) fn place(
    memory: &dyn GuestMemory,
    pages: PageRange,
    bytes: &[u8],
) -> Result<(), MemoryError> {
    checked_slice(memory, pages)?.copy_from(bytes);
    Ok(())
}

/// Copies `pages` of the guest, which nobody writes meanwhile, to `into`, as long as they are.
pub(crate) fn read(
    memory: &dyn GuestMemory,
    pages: PageRange,
    into: &mut [u8],
) -> Result<(), MemoryError> {
    checked_slice(memory, pages)?.copy_to(into);
    Ok(())
}

/// Overwrites `pages` of the guest with zeros.
pub(crate) fn place_zeros(memory: &dyn GuestMemory, pages: PageRange) -> Result<(), MemoryError> {
    place_over(memory, pages, &ZERO_PAGE)
}

/// Overwrites each of `pages` of the guest with the one page `bytes`.
pub(crate) fn place_over(
    memory: &dyn GuestMemory,
    pages: PageRange,
    bytes: &[u8],
) -> Result<(), MemoryError> {
    let slice = checked_slice(memory, pages)?;
    for at in (0..slice.len()).step_by(PAGE_BYTES) {
        if let Ok(page) = slice.offset(at) {
            page.copy_from(bytes);
        }
    }
    Ok(())
}
