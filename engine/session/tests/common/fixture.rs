//! What a test migration is of: a small guest that fits its target, unless a test says otherwise.

use std::time::Duration;

use limosa_compat::{CpuidEntry, CpuidTable, GuestCpu, HostCpu, TscScaling};
use limosa_pages::{MemoryMap, PageIndex, PageRange};
use limosa_session::{SessionConfig, Source, Target, TargetPolicy, Timestamp};
use limosa_wire::{EncodingSet, MigrationId, Offer, SectionKind, StateSection, StreamSecret};

/// Pages of the guest.
pub(crate) const PAGES: u64 = 2048;
/// What the guest and its target are.
pub(crate) const MACHINE: &str = "test";
/// The migration's id.
pub(crate) const ID: MigrationId = MigrationId::new([7; 16]);
/// What the target hands out.
pub(crate) const SECRET: StreamSecret = StreamSecret::new([9; 16]);

/// Everything that two machines are made of.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) source: SessionConfig,
    pub(crate) target: SessionConfig,
    pub(crate) offer: Offer,
    pub(crate) policy: TargetPolicy,
    pub(crate) dirty: Vec<u64>,
    pub(crate) seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            source: SessionConfig::default(),
            target: SessionConfig::default(),
            offer: offer(),
            policy: policy(),
            dirty: Vec::new(),
            seed: 0,
        }
    }
}

impl Plan {
    /// The same migration with its events in another order; 0 is the plain one.
    pub(crate) fn with_seed(seed: u64) -> Self {
        Self {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ..Self::default()
        }
    }

    pub(crate) fn source(&self) -> Source {
        let now = Timestamp::new(Duration::ZERO);
        Source::new(
            self.source.clone(),
            ID,
            self.offer.clone(),
            "source".into(),
            now,
        )
    }

    pub(crate) fn target(&self) -> Target {
        let now = Timestamp::new(Duration::ZERO);
        Target::new(
            self.target.clone(),
            self.policy.clone(),
            SECRET,
            "target".into(),
            now,
        )
    }
}

/// A processor with its vendor's name and, in leaf 7, the features `ebx`.
pub(crate) fn table(vendor: [u8; 12], ebx: u32) -> CpuidTable {
    let register = |at: usize| u32::from_le_bytes(vendor[at..at + 4].try_into().expect("four"));
    let leaf = |leaf, ebx, ecx, edx| CpuidEntry {
        leaf,
        subleaf: 0,
        eax: if leaf == 0 { 7 } else { 0 },
        ebx,
        ecx,
        edx,
    };
    let leaf_0 = leaf(0, register(0), register(8), register(4));
    CpuidTable::new(vec![leaf_0, leaf(7, ebx, 0, 0)]).expect("a table")
}

pub(crate) const INTEL: [u8; 12] = *b"GenuineIntel";
pub(crate) const AMD: [u8; 12] = *b"AuthenticAMD";
/// AVX2, which the guest sees and its target has.
pub(crate) const AVX2: u32 = 1 << 5;

pub(crate) fn cpu(table: CpuidTable, vcpu_count: u16) -> Vec<u8> {
    let guest = GuestCpu {
        processor: table.into(),
        tsc_khz: 0,
        vcpu_count,
        baseline: "off".into(),
    };
    guest.encode()
}

/// The digest of the guest's processor.
pub(crate) fn digest() -> u64 {
    GuestCpu::decode(&offer().cpu)
        .expect("a processor")
        .digest()
}

/// A host of this vendor with, in leaf 7, the features `ebx`.
pub(crate) fn host(vendor: [u8; 12], ebx: u32) -> HostCpu {
    HostCpu::plain(table(vendor, ebx).into(), 0, TscScaling::No)
}

pub(crate) fn section(name: &str, version: u16) -> SectionKind {
    let name = name.into();
    SectionKind { name, version }
}

/// The guest's state, as its source exports it.
pub(crate) fn state() -> Vec<StateSection> {
    let kind = section("cpu", 1);
    vec![StateSection {
        kind,
        bytes: vec![1, 2, 3],
    }]
}

pub(crate) fn offer() -> Offer {
    let all = PageRange::new(PageIndex::new(0), PageIndex::new(PAGES)).expect("a range");
    Offer {
        cpu: cpu(table(INTEL, AVX2), 2),
        map: MemoryMap::new(vec![all]).expect("a map"),
        vcpu_count: 2,
        sections: vec![section("cpu", 1)],
        stream_count: 2,
        encodings: EncodingSet::ALL,
        machine: MACHINE.into(),
    }
}

pub(crate) fn policy() -> TargetPolicy {
    TargetPolicy {
        host: host(INTEL, AVX2),
        machine: MACHINE.into(),
        memory_bytes_max: PAGES * 4096,
        vcpu_count_max: 2,
        stream_count_max: 64,
        sections: vec![section("cpu", 1)],
    }
}
