//! How long work takes, in processor time: when others take the processors, the clock stands
//! still.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The processor time that all threads of this process take while `work` runs; there should be
/// nothing else for them to do.
pub fn cpu_time_of<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let began = now();
    let done = work();
    (done, now().saturating_sub(began))
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    // Neither is ever negative.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
