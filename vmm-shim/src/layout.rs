//! Where a guest's memory lies among its physical addresses. It reserves none.

use limosa_pages::{GuestAddress, MapError, MemoryMap, PageIndex, PageRange};
use limosa_payload::pc_memory;
use limosa_payload::protocol::{HOLE, Span};

/// The memory of a PC: `[0, 3 GiB)`, and what is more from 4 GiB on. The hole between belongs to
/// the interrupt controllers and to KVM's own pages.
///
/// # Errors
/// [`MapError`] for no memory, or for more than a map may have.
pub fn memory_map(memory_bytes: u64) -> Result<MemoryMap, MapError> {
    MemoryMap::new(pc_memory(memory_bytes).into_iter().map(pages).collect())
}

/// The first region of a map that reaches into the hole of a PC, if there is one.
#[must_use]
pub(crate) fn in_device_hole(map: &MemoryMap) -> Option<PageRange> {
    let hole = pages(HOLE);
    let mut regions = map.regions().iter().copied();
    regions.find(|region| !region.intersect(hole).is_empty())
}

fn pages(span: Span) -> PageRange {
    let page = |address| PageIndex::from_address(GuestAddress::new(address));
    PageRange::new(page(span.start), page(span.end)).unwrap_or(PageRange::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_around_the_hole() {
        let small = memory_map(1 << 30).expect("map");
        assert_eq!(small.regions().len(), 1);
        let large = memory_map(5 << 30).expect("map");
        assert_eq!(large.regions().len(), 2);
        assert_eq!(large.page_count().bytes(), 5 << 30);
        assert_eq!(large.regions()[1].start().address().get(), 4 << 30);
        assert!(in_device_hole(&large).is_none());
        let through = PageRange::new(PageIndex::ZERO, PageIndex::new(1 << 20)).expect("range");
        let through = MemoryMap::new(vec![through]).expect("map");
        assert!(in_device_hole(&through).is_some());
        assert!(memory_map(0).is_err());
    }
}
