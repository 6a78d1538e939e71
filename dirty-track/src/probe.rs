//! What this host's kernel can record, and which source follows from that. It reports; the embedder
//! makes the source.

use std::fmt;
use std::fs::OpenOptions;
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
    /// [`PagemapScan`](crate::PagemapScan).
    PagemapScan,
}

/// Which source to use, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The source.
    pub source: SourceKind,
    /// Why this one, for a report.
    pub reason: &'static str,
}

/// This host cannot record the writes of such a guest.
#[derive(Debug, thiserror::Error)]
#[error("no way to record the guest's writes: {}", Reasons(.kvm_log, .pagemap_scan))]
pub struct NoSource {
    /// Why not with KVM's log; `None` where that could not serve this kind of guest.
    pub kvm_log: Option<Unavailable>,
    /// Why not with `PAGEMAP_SCAN`.
    pub pagemap_scan: Unavailable,
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
                    reason: "reading KVM's log costs 10 µs/GiB, and a vCPU's first write less than \
                             with page table scans",
                });
            }
            (GuestKind::Kvm, Err(unavailable)) => Some(unavailable),
            (GuestKind::Process, _) => None,
        };
        match (self.pagemap_scan, guest) {
            (Ok(()), GuestKind::Kvm) => Ok(Choice {
                source: SourceKind::PagemapScan,
                reason: "KVM has no log here; page table scans see a vCPU's writes too",
            }),
            (Ok(()), GuestKind::Process) => Ok(Choice {
                source: SourceKind::PagemapScan,
                reason: "the guest's writers are threads of this process",
            }),
            (Err(pagemap_scan), _) => Err(NoSource {
                kvm_log,
                pagemap_scan,
            }),
        }
    }
}

/// Asks the kernel what it can do. Takes well under a millisecond and changes nothing.
pub fn probe() -> KernelReport {
    KernelReport {
        kvm_log: probe_kvm(),
        pagemap_scan: open_pagemap_scan().map(drop),
    }
}

fn probe_kvm() -> Result<LogMode, Unavailable> {
    const PATH: &str = "/dev/kvm";
    let remedy = "load kvm_intel or kvm_amd, turn on virtualisation, join the group of the device";
    let no_file = |error| Unavailable::NoFile {
        path: PATH,
        error,
        remedy,
    };
    let kvm = OpenOptions::new()
        .read(true)
        .write(true)
        .open(PATH)
        .map_err(no_file)?;
    kvm::manual_protect_options(kvm.as_fd())
        .map(LogMode::from_options)
        .map_err(no_file)
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
