//! What a test migration is of: a small guest that fits its target, unless a test says otherwise.

use std::time::Duration;

use limosa_compat::{CpuidEntry, CpuidTable, GuestCpu, HostCpu, MsrTable, TscScaling};
use limosa_pages::{MemoryMap, PageIndex, PageRange};
use limosa_session::{SessionConfig, Source, Target, TargetPolicy, Timestamp};
use limosa_wire::{EncodingSet, MigrationId, Offer, SectionKind, StateSection, StreamSecret};

/// Pages of the guest.
pub const PAGES: u64 = 2048;
/// What the guest and its target are.
pub const MACHINE: &str = "test";
/// The migration's id.
pub const ID: MigrationId = MigrationId::new([7; 16]);
/// What the target hands out.
pub const SECRET: StreamSecret = StreamSecret::new([9; 16]);

/// Everything that two machines are made of.
#[derive(Clone)]
pub struct Plan {
    pub source: SessionConfig,
    pub target: SessionConfig,
    pub offer: Offer,
    pub policy: TargetPolicy,
    pub dirty: Vec<u64>,
    pub seed: u64,
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
    pub fn with_seed(seed: u64) -> Self {
        Self {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            ..Self::default()
        }
    }

    pub fn source(&self) -> Source {
        let now = Timestamp::new(Duration::ZERO);
        Source::new(
            self.source.clone(),
            ID,
            self.offer.clone(),
            "source".into(),
            now,
        )
    }

    pub fn target(&self) -> Target {
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
pub fn table(vendor: [u8; 12], ebx: u32) -> CpuidTable {
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

pub const INTEL: [u8; 12] = *b"GenuineIntel";
/// AVX2, which the guest sees and its target has.
pub const AVX2: u32 = 1 << 5;

pub fn cpu(table: CpuidTable, vcpu_count: u16) -> Vec<u8> {
    let guest = GuestCpu {
        table,
        feature_msrs: MsrTable::default(),
        tsc_khz: 0,
        vcpu_count,
    };
    guest.encode()
}

pub fn section(name: &str, version: u16) -> SectionKind {
    let name = name.into();
    SectionKind { name, version }
}

/// The guest's state, as its source exports it.
pub fn state() -> Vec<StateSection> {
    let kind = section("cpu", 1);
    vec![StateSection {
        kind,
        bytes: vec![1, 2, 3],
    }]
}

pub fn offer() -> Offer {
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

pub fn policy() -> TargetPolicy {
    TargetPolicy {
        host: HostCpu {
            accept: table(INTEL, AVX2),
            feature_msrs: MsrTable::default(),
            tsc_khz: 0,
            tsc_scaling: TscScaling::No,
        },
        machine: MACHINE.into(),
        memory_bytes_max: PAGES * 4096,
        vcpu_count_max: 2,
        stream_count_max: 64,
        sections: vec![section("cpu", 1)],
    }
}
