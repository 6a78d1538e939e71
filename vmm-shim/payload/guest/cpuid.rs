//! Stores every CPUID leaf where the host can read it; it judges none of them.

use crate::cpu::identify;
use crate::memory::store;
use crate::protocol::{CPUID_ENTRIES_MAX, CPUID_MAGIC, CPUID_TABLE, CpuidRecord, CpuidTable};

const RANGES: [u32; 3] = [0, 0x4000_0000, 0x8000_0000];
/// Leaves of a range at most; a hypervisor may claim any number.
const RANGE_MAX: u32 = 0x100;

/// Writes the entries and returns their number.
fn walk() -> u64 {
    let mut count = 0;
    for base in RANGES {
        let head = identify(base, 0);
        push(&mut count, head);
        let last = if head.eax >= base {
            head.eax.min(base + RANGE_MAX)
        } else {
            base
        };
        for leaf in base + 1..=last {
            let first = identify(leaf, 0);
            push(&mut count, first);
            for subleaf in 1..subleaves(&first) {
                let record = identify(leaf, subleaf);
                if ends(&record) {
                    break;
                }
                if leaf != 0xd || subleaf == 1 || record.eax != 0 {
                    push(&mut count, record);
                }
            }
        }
    }
    count
}

/// Fills the table, at first or anew; there is no magic number while it is being filled.
pub fn store_table() {
    let magic = CPUID_TABLE + core::mem::offset_of!(CpuidTable, magic) as u64;
    store(magic, 0u64);
    let count = walk();
    store(
        CPUID_TABLE + core::mem::offset_of!(CpuidTable, count) as u64,
        count,
    );
    store(magic, CPUID_MAGIC);
}

/// A bound for the number of subleaves, by the first of them.
/// Source: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.
fn subleaves(first: &CpuidRecord) -> u32 {
    match first.leaf {
        0x4 | 0xb | 0x1f | 0x8000_001d | 0x8000_0026 => 8,
        0x7 | 0x14 | 0x17 | 0x18 | 0x1d | 0x20 | 0x23 | 0x24 => first.eax.saturating_add(1).min(8),
        0xd => 64,
        0xf | 0x10 | 0x12 | 0x8000_0020 => 4,
        _ => 1,
    }
}

/// Whether a subleaf only says that there are no more.
fn ends(record: &CpuidRecord) -> bool {
    match record.leaf {
        0x4 | 0x8000_001d => record.eax & 0x1f == 0,
        0xb | 0x1f | 0x8000_0026 => record.ecx & 0xff00 == 0,
        _ => false,
    }
}

fn push(count: &mut u64, record: CpuidRecord) {
    if *count < CPUID_ENTRIES_MAX as u64 {
        let entries = CPUID_TABLE + core::mem::offset_of!(CpuidTable, entries) as u64;
        store(entries + *count * size_of::<CpuidRecord>() as u64, record);
        *count += 1;
    }
}
