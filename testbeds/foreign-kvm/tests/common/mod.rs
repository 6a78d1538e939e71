//! What the tests on emulated hosts share: the program under test, and hosts that run a script.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use limosa_foreign_kvm::{Cable, Initramfs, Machine, Model, Tools, target_folder};

/// Boot and a few moves, in software emulation on a busy computer.
pub(crate) const LONG: Duration = Duration::from_secs(400);

/// AMD's Zen: AVX2, XSAVE, SMAP.
pub(crate) const ZEN: Model = Model {
    name: "EPYC",
    lps: 2,
    memory_mib: 1024,
};

/// AMD's K10: none of these, and CPUID ends at leaf 5.
pub(crate) const K10: Model = Model {
    name: "Opteron_G3",
    lps: 2,
    memory_mib: 1024,
};

/// Emulated hosts take all of a computer: one test at a time.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `migrate-bench` as users build it, without what debuggers need.
pub(crate) fn migrate_bench() -> PathBuf {
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--release",
            "--quiet",
            "--package",
            "migrate-bench",
        ])
        .status()
        .expect("cargo runs");
    assert!(built.success(), "migrate-bench does not build");
    let program = target_folder().join("release/migrate-bench");
    let folder = target_folder().join("foreign-kvm/bin");
    std::fs::create_dir_all(&folder).expect("a folder");
    let small = folder.join("migrate-bench");
    let mut strip = Command::new("strip");
    let stripped = strip.arg("-o").arg(&small).arg(&program).status();
    if stripped.is_ok_and(|status| status.success()) {
        small
    } else {
        program
    }
}

/// Switches a host on that runs `script`.
pub(crate) fn host(
    tools: &Tools,
    (model, cable): (Model, Cable),
    files: &Initramfs,
    script: &str,
    archive: &Path,
) -> Machine {
    files.pack(script, archive).expect("an archive");
    Machine::start(tools, model, cable, archive).expect("QEMU starts")
}

/// A port that is free now.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
