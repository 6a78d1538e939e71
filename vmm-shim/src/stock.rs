//! The memory that a host gives guests to come: made when a guest is offered, or populated before.
//! It knows no guest.

use limosa_pages::MemoryMap;

use crate::error::ShimError;
use crate::host::HostSpec;
use crate::layout;
use crate::memory::GuestRam;
use crate::spec::{Populate, Room};

/// A host's memory for guests.
#[derive(Debug)]
pub(crate) struct MemoryStock {
    /// Populated, and nobody's yet.
    ready: Option<GuestRam>,
}

impl MemoryStock {
    /// What `spec` asks for ahead of any guest.
    pub(crate) fn new(spec: &HostSpec) -> Result<Self, ShimError> {
        let ready = match spec.populate {
            Populate::OnArrival => None,
            Populate::Ahead { memory_bytes } => {
                Some(make(layout::memory_map(memory_bytes)?, spec)?)
            }
        };
        Ok(Self { ready })
    }

    /// Memory of zeros for a guest with `map`. What was populated ahead serves one guest; the next
    /// one, and one with another map, wait until theirs is.
    pub(crate) fn take(&mut self, map: &MemoryMap, spec: &HostSpec) -> Result<GuestRam, ShimError> {
        match self.ready.take().filter(|ram| ram.map() == map) {
            Some(ram) => Ok(ram),
            None => make(map.clone(), spec),
        }
    }
}

fn make(map: MemoryMap, spec: &HostSpec) -> Result<GuestRam, ShimError> {
    let of_room = |room| GuestRam::with_room(map, spec.backing, spec.huge_pages, room);
    match spec.populate {
        Populate::OnArrival => Ok(of_room(spec.room)?),
        Populate::Ahead { .. } => {
            let ram = of_room(Room::All)?;
            ram.populate_all()?;
            Ok(ram)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::pages::GuestPages;
    use crate::spec::{Backing, HugePages};

    const BYTES: u64 = 8 << 20;

    fn populated_bytes(ram: GuestRam) -> Option<u64> {
        let used = GuestPages::new(Arc::new(ram)).huge_use()?;
        Some(used.populated.bytes())
    }

    #[test]
    fn memory_is_populated_ahead_for_whoever_comes_if_asked() {
        for backing in [Backing::Anonymous, Backing::Memfd] {
            let spec = HostSpec {
                backing,
                huge_pages: HugePages::Avoided,
                populate: Populate::Ahead {
                    memory_bytes: BYTES,
                },
                ..HostSpec::default()
            };
            let mut stock = MemoryStock::new(&spec).expect("stock");
            assert!(stock.ready.is_some());
            let map = layout::memory_map(BYTES).expect("map");
            let first = stock.take(&map, &spec).expect("the first");
            assert!(stock.ready.is_none());
            let Some(bytes) = populated_bytes(first) else {
                println!("SKIPPED: this kernel does not tell which pages are populated");
                return;
            };
            assert_eq!(bytes, BYTES);
            let larger = layout::memory_map(2 * BYTES).expect("map");
            let second = stock.take(&larger, &spec).expect("the second");
            assert_eq!(populated_bytes(second), Some(2 * BYTES));
            let plain = HostSpec {
                populate: Populate::OnArrival,
                ..spec
            };
            let third = stock.take(&map, &plain).expect("the third");
            assert_eq!(populated_bytes(third), Some(0));
        }
    }
}
