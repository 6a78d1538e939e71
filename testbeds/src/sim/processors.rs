//! The processors of a simulated migration: the guest's, a host's that can give it, and one's that
//! can't. This is not about what processors can do: they differ in their maker.

use limosa_compat::{CpuidEntry, CpuidTable, GuestCpu, HostCpu, TableError, TscScaling};

fn made_by(maker: [&[u8; 4]; 3]) -> Result<CpuidTable, TableError> {
    let [ebx, edx, ecx] = maker.map(|letters| u32::from_le_bytes(*letters));
    CpuidTable::new(vec![CpuidEntry {
        ebx,
        edx,
        ecx,
        ..CpuidEntry::default()
    }])
}

/// The hosts' processors, and the guest's.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Processors {
    /// What the guest sees, sealed.
    pub(crate) guest: Vec<u8>,
    /// What the guest would see if it changed.
    pub(crate) other_guest: Vec<u8>,
    /// A host on which it can live.
    pub(crate) host: HostCpu,
    /// A host on which it can't.
    pub(crate) other_host: HostCpu,
}

impl Processors {
    /// The same ones in every run.
    pub(crate) fn new() -> Result<Self, TableError> {
        let (intel, amd) = (
            made_by([b"Genu", b"ineI", b"ntel"])?,
            made_by([b"Auth", b"enti", b"cAMD"])?,
        );
        let guest = |table: &CpuidTable| GuestCpu {
            processor: table.clone().into(),
            tsc_khz: 0,
            vcpu_count: 1,
            baseline: "off".into(),
        };
        let host = |table: &CpuidTable| HostCpu::plain(table.clone().into(), 0, TscScaling::Yes);
        Ok(Self {
            guest: guest(&intel).encode(),
            other_guest: guest(&amd).encode(),
            host: host(&intel),
            other_host: host(&amd),
        })
    }
}
