//! CPUID answers between KVM's form and a table: which leaves have subleaves, and what tells one
//! vCPU from another.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use limosa_compat::{CpuidEntry, CpuidTable, TableError};

/// Leaves whose answer depends on ECX.
/// Source: Linux arch/x86/kvm/cpuid.c, `__do_cpuid_func` and `cpuid_function_is_indexed`.
const INDEXED: &[u32] = &[
    0x4,
    0x7,
    0xb,
    0xd,
    0xf,
    0x10,
    0x12,
    0x14,
    0x17,
    0x18,
    0x1d,
    0x1e,
    0x1f,
    0x20,
    0x23,
    0x24,
    0x8000_001d,
    0x8000_0020,
    0x8000_0026,
];

/// CPUID entries as a table; of answers that come twice the first counts.
pub(crate) fn table(entries: &[kvm_cpuid_entry2]) -> Result<CpuidTable, TableError> {
    let mut found: Vec<CpuidEntry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let indexed = entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX != 0;
        let subleaf = if indexed { entry.index } else { 0 };
        let twice = |other: &CpuidEntry| other.leaf == entry.function && other.subleaf == subleaf;
        if !found.iter().any(twice) {
            found.push(CpuidEntry {
                leaf: entry.function,
                subleaf,
                eax: entry.eax,
                ebx: entry.ebx,
                ecx: entry.ecx,
                edx: entry.edx,
            });
        }
    }
    CpuidTable::new(found)
}

/// A table as the CPUID entries of one vCPU, of so many.
pub(crate) fn of_vcpu(table: &CpuidTable, index: u16, count: u16) -> Vec<kvm_cpuid_entry2> {
    let mut entries = as_it_is(table);
    let all = entries.iter_mut();
    all.for_each(|entry| place(entry, index.into(), count.into()));
    entries
}

/// A table as CPUID entries that say what it says.
pub(crate) fn as_it_is(table: &CpuidTable) -> Vec<kvm_cpuid_entry2> {
    let entries = table.entries().iter().map(|entry| {
        let indexed = INDEXED.contains(&entry.leaf);
        kvm_cpuid_entry2 {
            function: entry.leaf,
            index: entry.subleaf,
            flags: if indexed {
                KVM_CPUID_FLAG_SIGNIFCANT_INDEX
            } else {
                0
            },
            eax: entry.eax,
            ebx: entry.ebx,
            ecx: entry.ecx,
            edx: entry.edx,
            ..kvm_cpuid_entry2::default()
        }
    });
    entries.collect()
}

/// Says which vCPU it is, of how many: one package, a core per vCPU, a thread per core. And what
/// every guest here has: a local APIC, and a hypervisor below.
fn place(entry: &mut kvm_cpuid_entry2, index: u32, count: u32) {
    let id_bits = count.next_power_of_two().trailing_zeros();
    match (entry.function, entry.index) {
        (1, _) => {
            entry.ebx = entry.ebx & 0xffff | count << 16 | index << 24;
            entry.ecx |= 1 << 31;
            entry.edx |= 1 << 9;
            if count > 1 {
                entry.edx |= 1 << 28;
            } else {
                entry.edx &= !(1 << 28);
            }
        }
        (0xb | 0x1f, 0) => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 1, 0x100, index);
        }
        (0xb | 0x1f, 1) => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (id_bits, count, 0x201, index);
        }
        (0xb | 0x1f, _) => entry.edx = index,
        (0x8000_0008, _) => entry.ecx = id_bits << 12 | (count - 1),
        (0x8000_001e, _) => (entry.eax, entry.ebx, entry.ecx) = (index, index, 0),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            ..kvm_cpuid_entry2::default()
        }
    }

    #[test]
    fn subleaves_count_only_where_they_are_significant() {
        let mut twice = [entry(2, 0), entry(2, 1), entry(4, 0), entry(4, 1)];
        twice[2].flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        twice[3].flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        let table = table(&twice).expect("table");
        let keys = table.entries().iter();
        let keys: Vec<_> = keys.map(|entry| (entry.leaf, entry.subleaf)).collect();
        assert_eq!(keys, [(2, 0), (4, 0), (4, 1)]);
    }

    #[test]
    fn every_vcpu_knows_its_place() {
        let mut leaf_1 = entry(1, 0);
        place(&mut leaf_1, 5, 6);
        assert_eq!(leaf_1.ebx >> 24, 5);
        assert_eq!(leaf_1.ebx >> 16 & 0xff, 6);
        let mut leaf_b = entry(0xb, 1);
        place(&mut leaf_b, 5, 6);
        assert_eq!((leaf_b.eax, leaf_b.ebx, leaf_b.edx), (3, 6, 5));
    }

    #[test]
    fn a_table_comes_back_but_for_the_place_of_the_vcpu() {
        let kvm = [entry(0, 0), entry(1, 0), {
            let mut leaf = entry(7, 1);
            (leaf.flags, leaf.eax) = (KVM_CPUID_FLAG_SIGNIFCANT_INDEX, 5);
            leaf
        }];
        let there = table(&kvm).expect("table");
        let back = of_vcpu(&there, 0, 1);
        assert_eq!(back[2], kvm[2]);
        assert_eq!(table(&back).expect("table").find(7, 1), there.find(7, 1));
    }
}
