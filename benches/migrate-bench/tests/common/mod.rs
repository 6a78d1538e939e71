//! What the end-to-end tests share: the command, its workers, a slow link, and a look at processes.

#![allow(
    dead_code,
    unused_imports,
    reason = "each test file is a crate of its own and uses a part"
)]

mod command;
mod hosts;
mod link;
mod processes;
mod worker;

use std::fs::File;
use std::path::Path;

pub(crate) use self::command::{
    Done, MIGRATE_BENCH, Started, bench, bench_reading, finish, run, start,
};
pub(crate) use self::hosts::{Hosts, SMALL};
pub(crate) use self::link::SlowLink;
pub(crate) use self::processes::{
    children_of, interrupt, is_alive, pid, resident_bytes, wait_until,
};
pub(crate) use self::worker::{Guest, Sending, Worker};

/// Bytes of a MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// Held by the test whose turn it is: guests that share two processors can't keep time.
#[must_use]
pub(crate) fn turn() -> File {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("migrate-bench-turn");
    let file = File::create(path).unwrap();
    file.lock().unwrap();
    file
}

/// The file of a processor that the tests bring along: `milan`, `genoa` or `ice-lake`.
pub(crate) fn processor(name: &str) -> String {
    format!("{}/tests/fixtures/{name}.cpuid", env!("CARGO_MANIFEST_DIR"))
}

/// Whether guests on KVM can be tested here; says so where they can't.
pub(crate) fn kvm_works() -> bool {
    match limosa_shim::open_kvm() {
        Ok(_) => true,
        Err(error) => {
            eprintln!("SKIPPED: {error}");
            false
        }
    }
}

/// The kinds of guest that this host can have.
pub(crate) fn kinds() -> Vec<&'static str> {
    let kvm = kvm_works().then_some("kvm");
    kvm.into_iter().chain(["process"]).collect()
}
