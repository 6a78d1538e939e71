//! What a test is told by an emulated host that does what it is told, or can't.

use std::path::Path;
use std::time::Duration;

use limosa_foreign_kvm::{Initramfs, Machine, Model, Tools};

const PATIENCE: Duration = Duration::from_secs(120);

const MODEL: Model = Model {
    name: "EPYC",
    lps: 1,
    memory_mib: 512,
};

/// A file system whose program under test is a shell that the host doesn't use.
fn initramfs(tools: &Tools, archive: &Path) {
    let files = Initramfs::new(tools, Path::new("/bin/sh")).expect("files");
    files.pack(archive).expect("an archive");
}

#[test]
fn a_step_tells_its_status_and_what_it_printed() {
    let Some(tools) = Tools::find_or_skip() else {
        return;
    };
    let scratch = tempfile::tempdir().expect("a folder");
    let archive = scratch.path().join("initramfs.gz");
    initramfs(&tools, &archive);
    let mut host = Machine::boot(&tools, MODEL, &archive, PATIENCE).expect("a host");
    let done = host.run("[ -c /dev/kvm ] && echo kvm; (exit 3)", PATIENCE);
    let done = done.expect("a step");
    assert_eq!((done.status, done.text.as_str()), (3, "kvm"));
    // What the first step printed is not said of the second one, nor is a lack of a newline missed.
    let done = host
        .run("printf a >&2; printf b", PATIENCE)
        .expect("a step");
    assert_eq!((done.status, done.text.as_str()), (0, "ab"));

    host.begin("echo first; sleep 1; echo second; sleep 600")
        .expect("a step");
    host.wait_for("second", PATIENCE).expect("a line");
    let error = host
        .end(Duration::from_secs(1))
        .expect_err("it sleeps")
        .to_string();
    assert!(
        error.contains("EPYC: no line with") && error.contains("first"),
        "{error}"
    );
}

#[test]
fn a_host_that_does_not_start_says_why() {
    let Some(tools) = Tools::find_or_skip() else {
        return;
    };
    let unknown = Model {
        name: "Z80",
        ..MODEL
    };
    let error = Machine::boot(&tools, unknown, Path::new("/dev/null"), PATIENCE);
    let error = error.expect_err("there is no such processor").to_string();
    assert!(error.contains("before the host ended"), "{error}");
    assert!(error.contains("unable to find CPU model"), "{error}");
}
