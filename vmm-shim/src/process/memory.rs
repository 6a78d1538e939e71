//! Guest memory as a thread of a process guest touches it: numbers and whole pages, by guest
//! address. No write is recorded here: the kernel sees them all in the page tables.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use limosa_pages::PAGE_BYTES;
use limosa_payload::content::{self, BLOCKS, Block, PageKind};
use limosa_payload::protocol::Fill;
use vm_memory::{VolatileMemory, VolatileSlice};
use zerocopy::IntoBytes;

use crate::memory::GuestRam;
use crate::vcpu::VcpuFault;

/// The bits of a page's first word that hold its write counter, in the working set.
pub(super) const COUNTER: u64 = 0xffff_ffff;

/// A guest's memory, to its own threads.
#[derive(Debug)]
pub(super) struct Memory(pub(super) Arc<GuestRam>);

impl Memory {
    fn bytes(&self, address: u64, bytes: usize) -> Result<VolatileSlice<'_>, VcpuFault> {
        let memory = self.0.bytes(address, bytes);
        memory.ok_or(VcpuFault::NoMemory { address })
    }

    pub(super) fn load(&self, address: u64) -> Result<u64, VcpuFault> {
        let memory = self.bytes(address, 8)?;
        let number = memory.get_atomic_ref::<AtomicU64>(0);
        let number = number.map_err(|_| VcpuFault::NoMemory { address })?;
        Ok(number.load(Ordering::SeqCst))
    }

    pub(super) fn store(&self, address: u64, value: u64) -> Result<(), VcpuFault> {
        let memory = self.bytes(address, 8)?;
        let number = memory.get_atomic_ref::<AtomicU64>(0);
        let number = number.map_err(|_| VcpuFault::NoMemory { address })?;
        number.store(value, Ordering::SeqCst);
        Ok(())
    }

    pub(super) fn load_short(&self, address: u64) -> Result<u32, VcpuFault> {
        let memory = self.bytes(address, 4)?;
        let number = memory.get_atomic_ref::<AtomicU32>(0);
        let number = number.map_err(|_| VcpuFault::NoMemory { address })?;
        Ok(number.load(Ordering::SeqCst))
    }

    pub(super) fn store_short(&self, address: u64, value: u32) -> Result<(), VcpuFault> {
        let memory = self.bytes(address, 4)?;
        let number = memory.get_atomic_ref::<AtomicU32>(0);
        let number = number.map_err(|_| VcpuFault::NoMemory { address })?;
        number.store(value, Ordering::SeqCst);
        Ok(())
    }

    /// Adds to a number that only this thread writes.
    pub(super) fn add(&self, address: u64, more: u64) -> Result<(), VcpuFault> {
        self.store(address, self.load(address)?.wrapping_add(more))
    }

    /// Adds 1 to a short number that only this thread writes.
    pub(super) fn bump(&self, address: u64) -> Result<(), VcpuFault> {
        let number = self.load_short(address)?;
        self.store_short(address, number.wrapping_add(1))
    }

    /// Writes a page's content; the bits `cleared` of its first word are left 0.
    pub(super) fn fill(
        &self,
        seed: u64,
        address: u64,
        fill: Fill,
        cleared: u64,
    ) -> Result<(), VcpuFault> {
        let mut page = content::page(seed, address, fill);
        page[0][0] &= !cleared;
        let memory = self.bytes(address, PAGE_BYTES)?;
        memory.copy_from(page.as_bytes());
        Ok(())
    }

    /// Whether a page holds what it should, apart from the bits `ignored` of its first word.
    pub(super) fn holds(
        &self,
        seed: u64,
        address: u64,
        kind: PageKind,
        ignored: u64,
    ) -> Result<bool, VcpuFault> {
        let mut found: [Block; BLOCKS] = [[0; 8]; BLOCKS];
        let memory = self.bytes(address, PAGE_BYTES)?;
        memory.copy_to(found.as_mut_bytes());
        let mut same = true;
        content::for_each_block(seed, address, kind, |at, mut expected| {
            let mut found = found.get(at).copied().unwrap_or_default();
            if at == 0 {
                expected[0] &= !ignored;
                found[0] &= !ignored;
            }
            same &= found == expected;
        });
        Ok(same)
    }
}
