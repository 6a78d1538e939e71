//! Which way to the kernel page streams take, and why. The choice is data, for reports.

use std::fmt;
use std::io;

use crate::config::IoChoice;
use crate::uring::Ring;

/// A way to the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageIo {
    /// One io_uring for each stream.
    Uring,
    /// Blocking system calls.
    Blocking,
}

impl fmt::Display for PageIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "io_uring",
            Self::Blocking => "blocking",
        })
    }
}

/// A way to the kernel, and why it is taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IoPlan {
    /// The way.
    pub io: PageIo,
    /// Why.
    pub reason: IoReason,
}

/// Why a way to the kernel is taken, or io_uring can't be.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum IoReason {
    /// The configuration says so.
    Configured,
    /// The kernel has all that is needed.
    Available,
    /// The kernel was built without io_uring, or a sandbox hides it.
    Missing,
    /// This process may not use io_uring: a seccomp filter, or the `kernel.io_uring_disabled`
    /// sysctl, forbids it.
    Forbidden,
    /// The kernel's io_uring lacks something that page streams need.
    TooOld {
        /// What it lacks.
        lacks: &'static str,
    },
    /// The kernel refuses for another reason.
    Refused {
        /// The kernel's word.
        text: String,
    },
}

impl IoReason {
    /// Why a ring could not be made.
    pub(crate) fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EPERM | libc::EACCES) => Self::Forbidden,
            _ => Self::Refused {
                text: error.to_string(),
            },
        }
    }
}

impl fmt::Display for IoReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configured => f.write_str("the configuration says so"),
            Self::Available => f.write_str("the kernel has all that is needed"),
            Self::Missing => f.write_str("this kernel or sandbox has no io_uring"),
            Self::Forbidden => {
                f.write_str("seccomp or the kernel.io_uring_disabled sysctl forbids io_uring")
            }
            Self::TooOld { lacks } => write!(f, "this kernel's io_uring lacks {lacks}"),
            Self::Refused { text } => write!(f, "the kernel refuses an io_uring: {text}"),
        }
    }
}

/// The way that page streams will take here under `choice`.
///
/// # Errors
///
/// Why io_uring can't be had, where `choice` demands it.
pub fn probe_io(choice: IoChoice) -> Result<IoPlan, IoReason> {
    let plan = |io, reason| IoPlan { io, reason };
    match choice {
        IoChoice::Blocking => Ok(plan(PageIo::Blocking, IoReason::Configured)),
        IoChoice::Uring => Ring::new().map(|_| plan(PageIo::Uring, IoReason::Configured)),
        IoChoice::Auto => Ok(match Ring::new() {
            Ok(_) => plan(PageIo::Uring, IoReason::Available),
            Err(reason) => plan(PageIo::Blocking, reason),
        }),
    }
}
