//! What can fail when writes are recorded, and why a mechanism is not to be had. It decides
//! nothing.

use std::io;

use limosa_pages::PageRange;

/// Why writes could not be recorded or reported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HarvestError {
    /// The source was asked for writes while it recorded none.
    #[error("the dirty source is not recording: start it first")]
    NotRecording,
    /// The kernel refused a call.
    #[error("{call} failed for pages {pages}: {error}")]
    Kernel {
        /// The system call or ioctl, by its name in the kernel's headers.
        call: &'static str,
        /// The pages it was about.
        pages: PageRange,
        /// The kernel's answer.
        error: io::Error,
    },
    /// The VM uses KVM's dirty ring, which excludes its dirty log.
    #[error("the VM records writes in a dirty ring, so its dirty log cannot be used")]
    DirtyRingInUse,
    /// Another [`KvmRing`](crate::KvmRing) has the VM's dirty rings.
    #[error("another source has the VM's dirty rings: let go of it first")]
    DirtyRingsTaken,
    /// The VM has no such memory slot any more.
    #[error("memory slot {slot} no longer records writes: it was changed while being watched")]
    SlotChanged {
        /// The slot's number.
        slot: u32,
    },
    /// Two of the ranges to be watched share a page, or one has none.
    #[error("pages {pages} are empty, or watched twice")]
    BadRange {
        /// The range at fault.
        pages: PageRange,
    },
    /// The kernel made no progress: it cannot protect a part of a huge page.
    #[error("pages {pages} end within a huge page of the host: align the mapping to huge pages")]
    WithinHugePage {
        /// The pages that were to be protected.
        pages: PageRange,
    },
    /// A [`Script`](crate::Script) was told to fail.
    #[error("the script lets this harvest fail")]
    Scripted,
    /// This host cannot record writes in this way.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl HarvestError {
    pub(crate) fn kernel(call: &'static str, pages: PageRange, error: io::Error) -> Self {
        Self::Kernel { call, pages, error }
    }
}

/// Why this host has not got a mechanism, and what would help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// A device or file is not there or may not be opened.
    #[error("{path} cannot be opened ({error}): {remedy}")]
    NoFile {
        /// The file's path.
        path: &'static str,
        /// The kernel's answer.
        error: io::Error,
        /// What an operator can do.
        remedy: &'static str,
    },
    /// A system call is not there or not allowed.
    #[error("{call} is refused ({error}): {remedy}")]
    NoCall {
        /// The system call.
        call: &'static str,
        /// The kernel's answer.
        error: io::Error,
        /// What an operator can do.
        remedy: &'static str,
    },
    /// The kernel is too old, or was built without this.
    #[error("this kernel has no {feature}: it needs Linux {since} or later")]
    NoFeature {
        /// What is missing, by its name in the kernel's headers.
        feature: &'static str,
        /// The first release that has it.
        since: &'static str,
    },
}
