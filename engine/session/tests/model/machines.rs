//! The two machines of the model: a guest that fits its target, and time-outs that keep the number
//! of states small.

use std::time::Duration;

use limosa_compat::{CpuidEntry, CpuidTable, GuestCpu, HostCpu, TscScaling};
use limosa_pages::{MemoryMap, PageIndex, PageRange};
use limosa_session::{SessionConfig, Source, Target, TargetPolicy, Timestamp};
use limosa_wire::{EncodingSet, MigrationId, Offer, StreamSecret};

fn config() -> SessionConfig {
    // Keep-alives change nothing here, and would make the number of states endless.
    SessionConfig {
        keep_alive_every: Duration::from_secs(60 * 60),
        peer_silence_max: Duration::from_secs(4 * 60 * 60),
        stream_count: 1,
        ..SessionConfig::default()
    }
}

fn table() -> CpuidTable {
    let vendor = CpuidEntry {
        leaf: 0,
        subleaf: 0,
        eax: 1,
        ebx: u32::from_le_bytes(*b"Genu"),
        edx: u32::from_le_bytes(*b"ineI"),
        ecx: u32::from_le_bytes(*b"ntel"),
    };
    CpuidTable::new(vec![vendor]).unwrap()
}

/// The guest's processor, sealed.
pub(crate) fn offered_cpu() -> Vec<u8> {
    let cpu = GuestCpu {
        processor: table().into(),
        tsc_khz: 1_000_000,
        vcpu_count: 1,
        baseline: "off".into(),
    };
    cpu.encode()
}

/// A host on which it can live.
pub(crate) fn fitting_host() -> HostCpu {
    HostCpu::plain(table().into(), 1_000_000, TscScaling::No)
}

/// A host on which it can't: its counter runs at another rate.
pub(crate) fn unfit_host() -> HostCpu {
    HostCpu::plain(table().into(), 2_000_000, TscScaling::No)
}

pub(crate) fn source() -> Source {
    let memory = PageRange::new(PageIndex::new(0), PageIndex::new(512)).unwrap();
    let offer = Offer {
        cpu: offered_cpu(),
        map: MemoryMap::new(vec![memory]).unwrap(),
        vcpu_count: 1,
        sections: Vec::new(),
        stream_count: 1,
        encodings: EncodingSet::ALL,
        machine: "model".into(),
    };
    let id = MigrationId::new([1; 16]);
    Source::new(config(), id, offer, "model".into(), Timestamp::default())
}

/// A target that takes `host` for its own.
pub(crate) fn target(host: HostCpu) -> Target {
    let policy = TargetPolicy {
        host,
        machine: "model".into(),
        memory_bytes_max: u64::MAX,
        vcpu_count_max: 1,
        stream_count_max: 1,
        sections: Vec::new(),
    };
    let secret = StreamSecret::new([2; 16]);
    Target::new(
        config(),
        policy,
        secret,
        "model".into(),
        Timestamp::default(),
    )
}
