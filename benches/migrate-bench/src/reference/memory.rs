//! Memory like a guest's, without a guest.

use anyhow::{Context, Result};
use limosa_pages::{CHUNK_BYTES, MemoryMap, PAGE_BYTES, PageIndex, PageRange};
use limosa_shim::{Backing, GuestRam, HugePages};
use vm_memory::{Bytes, VolatileSlice};

/// Fresh memory like a guest's: huge pages advised, nothing populated.
pub(crate) fn fresh_memory(bytes: u64, backing: Backing) -> Result<GuestRam> {
    let pages = bytes.div_ceil(PAGE_BYTES as u64);
    let range =
        PageRange::new(PageIndex::new(0), PageIndex::new(pages)).context("an empty range")?;
    Ok(GuestRam::new(
        MemoryMap::new(vec![range])?,
        backing,
        HugePages::Advised,
    )?)
}

/// Writes something that is not zero to every page, so that each has memory of its own.
pub(crate) fn touch(memory: &GuestRam) -> Result<()> {
    let all = whole_slice(memory)?;
    let block = vec![0xa5; CHUNK_BYTES.min(all.len())];
    for at in (0..all.len()).step_by(CHUNK_BYTES) {
        let count = block.len().min(all.len() - at);
        all.write_slice(&block[..count], at)?;
    }
    Ok(())
}

/// All of it in one.
pub(super) fn whole_slice(memory: &GuestRam) -> Result<VolatileSlice<'_>> {
    let region = memory.map().regions().first().context("no memory")?;
    memory.slice(*region).context("no memory")
}
