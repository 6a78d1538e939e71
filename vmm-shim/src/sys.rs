//! System calls that no safe crate covers: memory advice, memory files, the kick signal, a thread's
//! CPU time. It keeps no state and knows no KVM.
//!
//! Safety rules: every pointer that goes to the kernel comes from a borrow that lives through the
//! call; nothing here frees, maps over or keeps memory; the signal handler touches nothing.
#![expect(
    unsafe_code,
    reason = "thin wrappers around system calls, each with its own safety note"
)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::thread::JoinHandleExt;
use std::thread::JoinHandle;
use std::time::Duration;

use vm_memory::VolatileSlice;

/// What the kernel is told about a piece of memory. None of these changes what the memory holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advice {
    HugePages,
    SmallPages,
    NotInChildren,
    NotInCoreDumps,
    PopulateForWriting,
}

impl Advice {
    const fn number(self) -> libc::c_int {
        match self {
            Self::HugePages => libc::MADV_HUGEPAGE,
            Self::SmallPages => libc::MADV_NOHUGEPAGE,
            Self::NotInChildren => libc::MADV_DONTFORK,
            Self::NotInCoreDumps => libc::MADV_DONTDUMP,
            Self::PopulateForWriting => libc::MADV_POPULATE_WRITE,
        }
    }
}

fn checked(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer)
    }
}

/// Gives advice about mapped memory, which must begin at a page.
pub(crate) fn advise(memory: &VolatileSlice<'_>, advice: Advice) -> io::Result<()> {
    let guard = memory.ptr_guard_mut();
    // SAFETY: the slice is mapped memory that lives through the call, and no `Advice` discards or
    // replaces what is mapped there.
    let answer = unsafe { libc::madvise(guard.as_ptr().cast(), guard.len(), advice.number()) };
    checked(answer).map(drop)
}

/// A file in memory of `bytes` zeros, closed on exec.
pub(crate) fn memory_file(bytes: u64) -> io::Result<File> {
    // SAFETY: the name is a constant C string; the call takes no other pointer.
    let fd = checked(unsafe { libc::memfd_create(c"guest".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the descriptor was just made, and nobody else owns it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.set_len(bytes)?;
    Ok(file)
}

extern "C" fn ignore(_: libc::c_int) {}

/// The signal that takes a vCPU thread out of `KVM_RUN`: a real-time one, because those that
/// libraries and shells use for themselves lie below.
fn kick_signal() -> libc::c_int {
    libc::SIGRTMIN() + 4
}

/// Lets the kick interrupt system calls and do nothing else. Process-wide; repeating it is
/// harmless.
pub(crate) fn install_kick() -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: all zeros is a valid `sigaction`: the default action without flags or mask.
    let action = unsafe { action.assume_init_mut() };
    // Without SA_RESTART: the interrupted call must return.
    action.sa_sigaction = ignore as *const () as libc::sighandler_t;
    // SAFETY: `action` is initialised and lives through the call; the handler touches nothing, so
    // it may run at any point of any thread.
    checked(unsafe { libc::sigaction(kick_signal(), action, std::ptr::null_mut()) }).map(drop)
}

/// Interrupts the system call in which the thread is, if any.
pub(crate) fn kick<T>(thread: &JoinHandle<T>) -> io::Result<()> {
    // SAFETY: a `JoinHandle` that was not joined keeps its `pthread_t` valid, even if the thread
    // has ended. The signal has a handler, see `install_kick`.
    match unsafe { libc::pthread_kill(thread.as_pthread_t(), kick_signal()) } {
        0 | libc::ESRCH => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The CPU time that a thread has used.
pub(crate) fn cpu_time<T>(thread: &JoinHandle<T>) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: as in `kick` the handle keeps the `pthread_t` valid; `clock` lives through the call.
    let error = unsafe { libc::pthread_getcpuclockid(thread.as_pthread_t(), &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives through the call, and the clock was just given out by the C library.
    checked(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Ok(Duration::new(seconds, nanoseconds))
}
