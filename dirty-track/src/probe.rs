//! What this host's kernel can record, and which source follows from that. It reports; the embedder
//! makes the source.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;

use crate::Unavailable;
use crate::sys::kvm;
use crate::sys::pagemap::Pagemap;
use crate::sys::uffd::{AsyncWriteProtection, OpenError};

/// How a VM's dirty log is turned on, read and cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogMode {
    /// Reading and clearing are apart, and the log begins with every page: Linux 5.7.
    InitiallySet,
    /// Reading and clearing are apart: Linux 5.2.
    Manual,
    /// Reading clears, and protects every page that it reports.
    ReadClears,
}

impl LogMode {
    /// The bits of `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2` that make this mode.
    pub(crate) fn options(self) -> u64 {
        match self {
            Self::InitiallySet => 0b11,
            Self::Manual => 0b01,
            Self::ReadClears => 0,
        }
    }

    /// The best of what `KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2` offers.
    pub(crate) fn from_options(options: u64) -> Self {
        match options & 0b11 {
            0b11 => Self::InitiallySet,
            0b01 => Self::Manual,
            _ => Self::ReadClears,
        }
    }
}

impl fmt::Display for LogMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InitiallySet => "manual, initially set",
            Self::Manual => "manual",
            Self::ReadClears => "reading clears",
        })
    }
}

/// What this host can record. Made by [`probe`].
#[derive(Debug)]
pub struct KernelReport {
    /// KVM's dirty log.
    pub kvm_log: Result<LogMode, Unavailable>,
    /// KVM's dirty rings: the largest that a vCPU can have, in bytes.
    pub kvm_ring: Result<u64, Unavailable>,
    /// userfaultfd's asynchronous write protection with `PAGEMAP_SCAN`.
    pub pagemap_scan: Result<(), Unavailable>,
}

/// What writes to a guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestKind {
    /// vCPUs of KVM, besides the VMM.
    Kvm,
    /// Threads of this process only.
    Process,
}

/// A source by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// [`KvmLog`](crate::KvmLog), together with [`VmmWrites`](crate::VmmWrites).
    KvmLog,
    /// [`KvmRing`](crate::KvmRing), together with [`VmmWrites`](crate::VmmWrites).
    KvmRing,
    /// [`PagemapScan`](crate::PagemapScan).
    PagemapScan,
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KvmLog => "KVM's log",
            Self::KvmRing => "KVM's dirty rings",
            Self::PagemapScan => "page table scans",
        })
    }
}

/// Which source to use, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The source.
    pub source: SourceKind,
    /// Why this one, for a report.
    pub reason: &'static str,
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.source, self.reason)
    }
}

/// This host cannot record the writes of such a guest.
#[derive(Debug, thiserror::Error)]
pub enum NoSource {
    /// In no way.
    #[error("no way to record the guest's writes: {}", Reasons(.kvm_log, .pagemap_scan))]
    None {
        /// Why not with KVM's log; `None` where that could not serve this kind of guest.
        kvm_log: Option<Unavailable>,
        /// Why not with `PAGEMAP_SCAN`.
        pagemap_scan: Unavailable,
    },
    /// Not in the way that was asked for.
    #[error("the guest's writes can't be recorded by {wanted}: {unavailable}")]
    NotThisOne {
        /// What was asked for.
        wanted: SourceKind,
        /// Why not.
        unavailable: Unavailable,
    },
    /// KVM was asked for, and the guest has no vCPU of KVM.
    #[error(
        "{wanted} see nothing of a guest that is threads of a process: record its writes by {}",
        SourceKind::PagemapScan
    )]
    NoVcpus {
        /// What was asked for.
        wanted: SourceKind,
    },
}

struct Reasons<'a>(&'a Option<Unavailable>, &'a Unavailable);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kvm_log) = self.0 {
            write!(f, "{kvm_log}; ")?;
        }
        self.1.fmt(f)
    }
}

impl KernelReport {
    /// The source for a guest of this kind.
    ///
    /// # Errors
    /// When there is none, with the reason for each that would have served.
    pub fn choose(self, guest: GuestKind) -> Result<Choice, NoSource> {
        let kvm_log = match (guest, self.kvm_log) {
            (GuestKind::Kvm, Ok(_)) => {
                return Ok(Choice {
                    source: SourceKind::KvmLog,
                    reason: "it starts without protecting memory, where rings must; reading it \
                             costs 10 µs/GiB; and a vCPU's first write costs less than with page \
                             table scans",
                });
            }
            (GuestKind::Kvm, Err(unavailable)) => Some(unavailable),
            (GuestKind::Process, _) => None,
        };
        match (self.pagemap_scan, guest) {
            (Ok(()), GuestKind::Kvm) => Ok(Choice {
                source: SourceKind::PagemapScan,
                reason: "KVM has no log here; they see a vCPU's writes too",
            }),
            (Ok(()), GuestKind::Process) => Ok(Choice {
                source: SourceKind::PagemapScan,
                reason: "the guest's writers are threads of this process",
            }),
            (Err(pagemap_scan), _) => Err(NoSource::None {
                kvm_log,
                pagemap_scan,
            }),
        }
    }

    /// The source that was asked for, if it serves a guest of this kind here.
    ///
    /// # Errors
    /// When it does not, with what to do.
    pub fn choose_named(self, wanted: SourceKind, guest: GuestKind) -> Result<Choice, NoSource> {
        let found = match (wanted, guest) {
            (SourceKind::PagemapScan, _) => self.pagemap_scan,
            (_, GuestKind::Process) => return Err(NoSource::NoVcpus { wanted }),
            (SourceKind::KvmLog, GuestKind::Kvm) => self.kvm_log.map(drop),
            (SourceKind::KvmRing, GuestKind::Kvm) => self.kvm_ring.map(drop),
        };
        match found {
            Ok(()) => Ok(Choice {
                source: wanted,
                reason: "as asked for",
            }),
            Err(unavailable) => Err(NoSource::NotThisOne {
                wanted,
                unavailable,
            }),
        }
    }
}

/// Asks the kernel what it can do. Takes well under a millisecond and changes nothing.
pub fn probe() -> KernelReport {
    KernelReport {
        kvm_log: open_kvm().and_then(|kvm| {
            let options = kvm::manual_protect_options(kvm.as_fd());
            options.map(LogMode::from_options).map_err(no_kvm)
        }),
        kvm_ring: open_kvm().and_then(|kvm| {
            let offer = kvm::ring_offer(kvm.as_fd()).map_err(no_kvm)?;
            offer.map(|offer| offer.bytes_max).ok_or(NO_RING)
        }),
        pagemap_scan: open_pagemap_scan().map(drop),
    }
}

/// What is missing where KVM has no dirty rings.
pub(crate) const NO_RING: Unavailable = Unavailable::NoFeature {
    feature: "KVM_CAP_DIRTY_LOG_RING_ACQ_REL",
    since: "5.11 on x86, 6.1 elsewhere",
};

const KVM_PATH: &str = "/dev/kvm";

fn no_kvm(error: io::Error) -> Unavailable {
    Unavailable::NoFile {
        path: KVM_PATH,
        error,
        remedy: "load kvm_intel or kvm_amd, turn on virtualisation, join the group of the device",
    }
}

fn open_kvm() -> Result<File, Unavailable> {
    let mut options = OpenOptions::new();
    let kvm = options.read(true).write(true).open(KVM_PATH);
    kvm.map_err(no_kvm)
}

/// Opens what [`PagemapScan`](crate::PagemapScan) works with.
pub(crate) fn open_pagemap_scan() -> Result<(AsyncWriteProtection, Pagemap), Unavailable> {
    let protection = AsyncWriteProtection::open().map_err(|error| match error {
        OpenError::Call(error) => Unavailable::NoCall {
            call: "userfaultfd",
            error,
            remedy: "needs CONFIG_USERFAULTFD, and a seccomp filter that allows the call",
        },
        OpenError::Feature => Unavailable::NoFeature {
            feature: "UFFD_FEATURE_WP_ASYNC",
            since: "6.7",
        },
    })?;
    Ok((protection, Pagemap::open_scanning()?))
}
