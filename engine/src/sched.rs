//! How the kernel schedules a thread: asked and set. What is to be set is not decided here.
//!
//! Safety rules: the one structure that goes to the kernel is borrowed for the call, with its own
//! size; the kernel reads or writes no more than that. A thread is named by number, so that no
//! pointer can outlive it.
#![expect(
    unsafe_code,
    reason = "the C library has no door to these system calls"
)]

use std::io;

/// A thread of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread(libc::pid_t);

impl Thread {
    /// The one that calls.
    pub(crate) fn current() -> Self {
        // SAFETY: it takes nothing and can't fail.
        Self(unsafe { libc::gettid() })
    }
}

/// How a thread is scheduled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scheduling(libc::sched_attr);

impl Scheduling {
    /// How `thread` is scheduled now.
    pub(crate) fn of(thread: Thread) -> io::Result<Self> {
        let mut attr = empty();
        let (size, no_flags) = (attr.size, 0_u32);
        // SAFETY: `attr` lives through the call and is as large as is said.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_sched_getattr,
                thread.0,
                &raw mut attr,
                size,
                no_flags,
            )
        };
        checked(answer)?;
        Ok(Self(attr))
    }

    /// Schedules `thread` so.
    pub(crate) fn set(&self, thread: Thread) -> io::Result<()> {
        let no_flags = 0_u32;
        // SAFETY: the structure lives through the call, and states its own size.
        checked(unsafe {
            libc::syscall(
                libc::SYS_sched_setattr,
                thread.0,
                &raw const self.0,
                no_flags,
            )
        })
    }

    /// Whether it shares processors with all ordinary threads: it is no real-time thread, nor one
    /// that only takes what is left.
    pub(crate) const fn is_ordinary(&self) -> bool {
        self.0.sched_policy == libc::SCHED_OTHER as u32
    }

    /// As a real-time thread of the least priority, which takes a processor from every ordinary
    /// one. What it starts is ordinary.
    pub(crate) const fn real_time(self) -> Self {
        Self(libc::sched_attr {
            sched_policy: libc::SCHED_FIFO as u32,
            sched_priority: 1,
            sched_flags: RESET_ON_FORK,
            ..empty()
        })
    }

    /// The same, and what the thread starts is ordinary: who may become a real-time thread may not
    /// always undo that part.
    pub(crate) const fn reset_on_fork(mut self) -> Self {
        self.0.sched_flags |= RESET_ON_FORK;
        self
    }

    /// The nice value, -20 to 19.
    #[cfg(test)]
    pub(crate) const fn nice(&self) -> i32 {
        self.0.sched_nice
    }

    /// The same with another nice value.
    pub(crate) const fn with_nice(mut self, nice: i32) -> Self {
        self.0.sched_nice = nice;
        self
    }

    /// The same with another slice in nanoseconds: how long the thread runs before others are
    /// looked at. Ignored before Linux 6.12.
    pub(crate) const fn with_slice(mut self, nanoseconds: u64) -> Self {
        self.0.sched_runtime = nanoseconds;
        self
    }
}

/// Source: Linux include/uapi/linux/sched.h, `SCHED_FLAG_RESET_ON_FORK`.
const RESET_ON_FORK: u64 = 1;

fn checked(answer: libc::c_long) -> io::Result<()> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

const fn empty() -> libc::sched_attr {
    libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    }
}
