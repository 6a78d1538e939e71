//! Tells the command which compiler made it: counts of instructions are only as alike as that is.

use std::process::Command;

fn main() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok();
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok());
    let version = version.as_deref().map_or("unknown", str::trim);
    // Flags and level of optimisation make other code of the same source.
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let flags = flags.split('\u{1f}').filter(|flag| !flag.is_empty());
    let level = std::env::var("OPT_LEVEL").unwrap_or_default();
    let built: Vec<_> = [version, "-O", &level].into_iter().chain(flags).collect();
    println!("cargo:rustc-env=MIGRATE_BENCH_RUSTC={}", built.join(" "));
    let c_compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let version = Command::new(c_compiler).arg("--version").output().ok();
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok());
    let version = version.as_deref().and_then(|text| text.lines().next());
    println!(
        "cargo:rustc-env=MIGRATE_BENCH_CC={}",
        version.unwrap_or("unknown")
    );
    println!("cargo:rerun-if-changed=build.rs");
}
