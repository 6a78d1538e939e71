//! userfaultfd in the one mode that needs no handler: the kernel itself lifts a write protection
//! and remembers that it did. What was written is read from `pagemap.rs`.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use super::{Direction, ioctl, request};

// Source for all below: Linux include/uapi/linux/userfaultfd.h.
const UFFDIO: u8 = 0xAA;
const UFFD_API: u64 = 0xAA;
const UFFD_USER_MODE_ONLY: libc::c_int = 1;
const UFFD_FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
const UFFD_FEATURE_WP_UNPOPULATED: u64 = 1 << 13;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_REGISTER_MODE_WP: u64 = 1 << 1;

/// `struct uffdio_api`
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`
#[repr(C)]
struct Register {
    start: u64,
    bytes: u64,
    mode: u64,
    ioctls: u64,
}

/// A userfaultfd whose write faults the kernel resolves. Dropping it ends all protection.
pub(crate) struct AsyncWriteProtection(OwnedFd);

/// Why there is none.
pub(crate) enum OpenError {
    /// The system call itself was refused.
    Call(io::Error),
    /// The kernel lacks `UFFD_FEATURE_WP_ASYNC`.
    Feature,
}

impl AsyncWriteProtection {
    pub(crate) fn open() -> Result<Self, OpenError> {
        // User mode only, since that needs no privilege. Faults taken in the kernel (by KVM, by
        // read(2)) are served all the same: an asynchronous fault never reaches a handler.
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | UFFD_USER_MODE_ONLY;
        // SAFETY: the call takes a number and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        if fd < 0 {
            return Err(OpenError::Call(io::Error::last_os_error()));
        }
        // SAFETY: the kernel just made this descriptor for us, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
        let mut argument = Api {
            api: UFFD_API,
            features: UFFD_FEATURE_WP_ASYNC
                | UFFD_FEATURE_WP_UNPOPULATED
                | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
            ioctls: 0,
        };
        const UFFDIO_API: u64 = request::<Api>(Direction::Both, UFFDIO, 0x3f);
        // SAFETY: the argument is of the request's type and holds no pointer.
        unsafe { ioctl(fd.as_fd(), UFFDIO_API, &mut argument) }.map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EINVAL) => OpenError::Feature,
                _ => OpenError::Call(error),
            }
        })?;
        Ok(Self(fd))
    }

    /// Makes the memory at `start` able to be write-protected. It protects nothing yet.
    pub(crate) fn register(&self, start: u64, bytes: u64) -> io::Result<()> {
        let mut argument = Register {
            start,
            bytes,
            mode: UFFDIO_REGISTER_MODE_WP,
            ioctls: 0,
        };
        const UFFDIO_REGISTER: u64 = request::<Register>(Direction::Both, UFFDIO, 0x00);
        // SAFETY: the argument is of the request's type. The addresses in it are not accessed: in
        // this mode the kernel only marks page table entries, and resolves each fault itself.
        unsafe { ioctl(self.0.as_fd(), UFFDIO_REGISTER, &mut argument) }.map(drop)
    }
}
