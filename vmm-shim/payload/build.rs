//! Builds the program that runs inside the guest with the same compiler, without any library.

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rustc-check-cfg=cfg(limosa_guest)");
    for watched in [
        "guest",
        "src/protocol.rs",
        "src/stats.rs",
        "src/plan.rs",
        "src/content.rs",
    ] {
        println!("cargo::rerun-if-changed={watched}");
    }
    let package = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let elf = PathBuf::from(env::var("OUT_DIR")?).join("payload.elf");
    let script = package.join("guest/link.ld");
    let mut rustc = Command::new(env::var("RUSTC")?);
    // The guest is an x86-64 machine whatever the host is, and any CPU model must run it: baseline
    // instructions only.
    rustc
        .args([
            "--edition=2024",
            "--crate-name=payload",
            "--crate-type=bin",
            "--cfg=limosa_guest",
        ])
        .args(["--target=x86_64-unknown-linux-gnu", "-Ctarget-cpu=x86-64"])
        .args([
            "-Copt-level=3",
            "-Cpanic=abort",
            "-Crelocation-model=static",
        ])
        .args([
            "-Cforce-unwind-tables=no",
            "-Ccodegen-units=1",
            "-Crelro-level=off",
            "-Cstrip=debuginfo",
        ])
        .args([
            "-Clink-arg=-nostartfiles",
            "-Clink-arg=-nostdlib",
            "-Clink-arg=-static",
        ])
        .args([
            "-Clink-arg=-no-pie",
            "-Clink-arg=-Wl,--build-id=none",
            "-Clink-arg=-Wl,-n",
        ])
        .arg(format!("-Clink-arg=-Wl,-T,{}", script.display()))
        .arg("-o")
        .arg(&elf)
        .arg(package.join("guest/main.rs"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={}", linker.display()));
    }
    let status = rustc.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("building the guest: {status}").into())
    }
}
