//! CPU time of another process, with its vCPU threads apart.

use std::fs;

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;

/// CPU time so far, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTimes {
    /// Threads that have ended included.
    all: f64,
    vcpus: f64,
}

impl CpuTimes {
    /// Of process `id`, of which `vcpus` are the threads that run a guest. The whole is known to
    /// 0.02 s.
    pub(crate) fn of(id: u32, vcpus: &[u64]) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).context("QEMU's CPU time")?;
        let mut vcpu_ns = 0;
        for thread in vcpus {
            vcpu_ns += thread_ns(id, *thread).context("CPU time of QEMU's vCPU")?;
        }
        Ok(Self {
            all: ticks(&text).context("QEMU's CPU time")? as f64 / clock_ticks_per_second() as f64,
            vcpus: vcpu_ns as f64 / 1e9,
        })
    }

    /// Seconds since `earlier` of everything but the vCPUs, and of the vCPUs.
    pub(crate) fn since(self, earlier: Self) -> (f64, f64) {
        let vcpus = self.vcpus - earlier.vcpus;
        ((self.all - earlier.all - vcpus).max(0.0), vcpus)
    }
}

/// User and system time of a line of `/proc/PID/stat`.
/// Source: proc(5), fields 14 and 15; the second may hold spaces and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

/// Time of a thread on a processor.
/// Source: Linux `Documentation/scheduler/sched-stats.rst`, `/proc/<pid>/schedstat`.
fn thread_ns(id: u32, thread: u64) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/task/{thread}/schedstat"))?;
    let first = text.split(' ').next().unwrap_or_default();
    first.parse().with_context(|| format!("`{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processes_do_not_confuse() {
        let line = "7 (CPU 0/KVM) x) S 1 2 3 4 5 6 7 8 9 10 130 41 0 0 20";
        assert_eq!(ticks(line), Some(171));
        assert_eq!(ticks("7 (cut) S 1"), None);
    }

    #[test]
    fn our_own_time_grows() {
        let id = std::process::id();
        let before = CpuTimes::of(id, &[id.into()]).unwrap();
        let begin = std::time::Instant::now();
        while begin.elapsed() < std::time::Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        let (rest, vcpus) = CpuTimes::of(id, &[]).unwrap().since(CpuTimes {
            vcpus: 0.0,
            ..before
        });
        assert!(rest > 0.0 && vcpus == 0.0, "{rest} {vcpus}");
    }
}
