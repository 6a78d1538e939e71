//! The processors under `data/processors`, each a small text that names what it was re-typed from,
//! and what the tests ask about them.

use std::fs;
use std::path::Path;

use limosa_compat::{
    CpuidEntry, CpuidTable, GuestCpu, HostCpu, Judgement, MsrTable, Processor, Register,
    TscScaling, Vendor, judge, text,
};

/// The frequency of every guest and host here, where a test says no other.
const TSC_KHZ: u32 = 2_000_000;

/// A processor of the files, by the name of its file.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) processor: Processor,
}

impl Known {
    /// Whether it is what guests see on KVM, and not bare metal.
    pub(crate) fn is_seen_by_guests(&self) -> bool {
        self.name.contains("-linux-")
    }
}

/// Every processor of a folder of `.cpu` or `.cpuid` texts, sorted by name.
pub(crate) fn read_folder(folder: &Path) -> Vec<Known> {
    let mut known = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let processor = text::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        known.push(Known { name, processor });
    }
    known.sort_by(|a, b| a.name.cmp(&b.name));
    known
}

/// Every processor of the project's own files.
pub(crate) fn all() -> Vec<Known> {
    read_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/processors"))
}

/// One processor.
pub(crate) fn processor(name: &str) -> Processor {
    let mut all = all();
    all.retain(|known| known.name == name);
    all.pop().unwrap_or_else(|| panic!("{name}")).processor
}

/// Those of one vendor.
pub(crate) fn of_vendor(known: &[Known], vendor: Vendor) -> Vec<Known> {
    let of = |known: &&Known| known.processor.vendor() == Ok(vendor);
    known.iter().filter(of).cloned().collect()
}

pub(crate) fn guest(processor: &Processor) -> GuestCpu {
    GuestCpu {
        processor: processor.clone(),
        tsc_khz: TSC_KHZ,
        vcpu_count: 1,
        baseline: "off".into(),
    }
}

pub(crate) fn host(processor: &Processor) -> HostCpu {
    HostCpu::plain(processor.clone(), TSC_KHZ, TscScaling::No)
}

/// A guest that sees all of one processor, on a host that has the other.
pub(crate) fn judged(one: &Processor, other: &Processor) -> Judgement {
    judge(&guest(one), &host(other))
}

/// What speaks against it, by name.
pub(crate) fn refusals(one: &Processor, other: &Processor) -> Vec<String> {
    let found = judged(one, other).mismatches;
    found
        .into_iter()
        .map(|found| found.name.into_owned())
        .collect()
}

/// The processor with some bits of a register set and others cleared.
pub(crate) fn with(
    of: &Processor,
    (leaf, register): (u32, Register),
    set: u32,
    clear: u32,
) -> Processor {
    let mut entries = of.cpuid.entries().to_vec();
    if !entries
        .iter()
        .any(|entry| (entry.leaf, entry.subleaf) == (leaf, 0))
    {
        entries.push(CpuidEntry {
            leaf,
            ..CpuidEntry::default()
        });
    }
    for entry in &mut entries {
        if (entry.leaf, entry.subleaf) == (leaf, 0) {
            *entry.register_mut(register) |= set;
            *entry.register_mut(register) &= !clear;
        }
    }
    Processor {
        cpuid: CpuidTable::new(entries).unwrap(),
        msrs: of.msrs.clone(),
    }
}

/// The processor with this value of IA32_ARCH_CAPABILITIES.
pub(crate) fn with_capabilities(of: &Processor, value: u64) -> Processor {
    Processor {
        cpuid: of.cpuid.clone(),
        msrs: MsrTable::new(vec![(0x10a, value)]).unwrap(),
    }
}
