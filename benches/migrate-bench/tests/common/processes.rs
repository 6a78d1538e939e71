//! Other processes as `/proc` shows them.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A process for a signal.
pub(crate) fn pid(id: u32) -> Pid {
    Pid::from_raw(id.cast_signed()).unwrap()
}

/// Sends SIGINT to process `id`.
pub(crate) fn interrupt(id: u32) {
    kill_process(pid(id), Signal::INT).unwrap();
}

/// The processes whose parent is `id`.
pub(crate) fn children_of(id: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let ids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|child| state_and_parent(*child).is_some_and(|(_, parent)| parent == id))
        .collect()
}

/// Whether process `id` still does anything: one that has ended and that nobody has waited for
/// does not.
pub(crate) fn is_alive(id: u32) -> bool {
    state_and_parent(id).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// Resident memory of process `id`.
pub(crate) fn resident_bytes(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.unwrap().parse::<u64>().unwrap() << 10
}

/// Waits until `happened`, and says how long that took.
pub(crate) fn wait_until(
    what: &str,
    longest: Duration,
    mut happened: impl FnMut() -> bool,
) -> Duration {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < longest, "not within {longest:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

fn state_and_parent(id: u32) -> Option<(char, u32)> {
    let line = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let mut rest = line.rsplit_once(") ")?.1.split(' ');
    let state = rest.next()?.chars().next()?;
    Some((state, rest.next()?.parse().ok()?))
}
