//! Guest memory as the VMM itself reads and writes it: every write is recorded, because the
//! kernel's log has only those of vCPUs. It knows no page of the guest by name.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use limosa_dirty::WriteRecorder;
use limosa_pages::{GuestAddress, PageIndex, PageRange};
use limosa_payload::GuestBytes;
use vm_memory::{Bytes, VolatileMemory};

use crate::memory::GuestRam;

/// The VMM's own hands on guest memory.
#[derive(Clone)]
pub struct HostView {
    ram: Arc<GuestRam>,
    recorder: WriteRecorder,
}

impl HostView {
    pub(crate) const fn new(ram: Arc<GuestRam>, recorder: WriteRecorder) -> Self {
        Self { ram, recorder }
    }

    /// Says whether there is memory for all of it.
    fn write_bytes(&self, address: u64, from: &[u8]) -> bool {
        let Some(memory) = self.ram.bytes(address, from.len()) else {
            return false;
        };
        // The guest reads numbers while they are written: they have to change in one piece.
        if let Ok(number) = <[u8; 8]>::try_from(from)
            && let Ok(place) = memory.get_atomic_ref::<AtomicU64>(0)
        {
            place.store(u64::from_le_bytes(number), Ordering::SeqCst);
            return true;
        }
        if let Ok(number) = <[u8; 4]>::try_from(from)
            && let Ok(place) = memory.get_atomic_ref::<AtomicU32>(0)
        {
            place.store(u32::from_le_bytes(number), Ordering::SeqCst);
            return true;
        }
        memory.write_slice(from, 0).is_ok()
    }
}

impl GuestBytes for HostView {
    fn read(&self, address: u64, into: &mut [u8]) {
        let memory = self.ram.bytes(address, into.len());
        if memory.is_none_or(|memory| memory.read_slice(into, 0).is_err()) {
            into.fill(0);
        }
    }

    fn write(&self, address: u64, from: &[u8]) {
        let end = address.saturating_add(from.len() as u64).saturating_sub(1);
        let page = |address| PageIndex::from_address(GuestAddress::new(address));
        let written = PageRange::new(page(address), PageIndex::new(page(end).get() + 1));
        if self.write_bytes(address, from)
            && let Some(written) = written
        {
            // After the bytes, so that a harvest in between can't lose them.
            self.recorder.record(written);
        }
    }
}

#[cfg(test)]
mod tests {
    use limosa_dirty::{DirtySource, VmmWrites};
    use limosa_pages::PageSet;

    use super::*;
    use crate::layout::memory_map;
    use crate::spec::{Backing, HugePages};

    #[test]
    fn every_write_is_recorded_and_no_read_is() {
        let map = memory_map(4 << 20).expect("map");
        let recorder = WriteRecorder::new(&map);
        let ram = GuestRam::new(map.clone(), Backing::Anonymous, HugePages::Avoided);
        let view = HostView::new(Arc::new(ram.expect("memory")), recorder.clone());
        let mut source = VmmWrites::new(recorder);
        source.start().expect("start");
        for (chunk, mut pages) in map.full_set().chunks() {
            source.rearm(chunk, &mut pages).expect("rearm");
        }
        view.write(8192, &7u64.to_le_bytes());
        view.write(3 * 4096 + 4, &9u32.to_le_bytes());
        view.write(6 * 4096 - 3, b"across");
        view.write(u64::MAX - 4, b"nowhere");
        let mut number = [0; 8];
        view.read(8192, &mut number);
        assert_eq!(u64::from_le_bytes(number), 7);
        let mut text = [0; 6];
        view.read(6 * 4096 - 3, &mut text);
        assert_eq!(&text, b"across");
        view.read(u64::MAX - 2, &mut text);
        assert_eq!(text, [0; 6]);
        let mut dirty = PageSet::new(map.end());
        source.harvest(&mut dirty).expect("harvest");
        let pages: Vec<u64> = dirty
            .runs()
            .flat_map(|run| run.iter())
            .map(PageIndex::get)
            .collect();
        assert_eq!(pages, [2, 3, 5, 6]);
    }
}
