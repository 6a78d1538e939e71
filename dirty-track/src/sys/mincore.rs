//! Which pages of a mapping are in memory, mapped here or not. It does not touch the pages.

use std::io;

use limosa_pages::PAGE_BYTES;

/// Whether the pages from the one at `start` on are in memory, one for each of `resident`.
pub(crate) fn resident_pages(start: u64, resident: &mut [bool]) -> io::Result<()> {
    let mut answers = vec![0_u8; resident.len()];
    let (address, bytes) = (start as usize, resident.len() * PAGE_BYTES);
    let address = std::ptr::without_provenance_mut(address);
    // SAFETY: the kernel looks the addresses up and accesses nothing there; it writes one byte for
    // each page of the range to `answers`, which has as many.
    let answer = unsafe { libc::mincore(address, bytes, answers.as_mut_ptr()) };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    for (resident, answer) in resident.iter_mut().zip(answers) {
        *resident = answer & 1 == 1;
    }
    Ok(())
}
