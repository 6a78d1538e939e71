#!/bin/sh
# Proves that the pure crates neither use std nor pull it in through a dependency. Does not look at
# what they do with core and alloc.
#
# How: a tiny crate brings its own #[panic_handler] and links one pure crate. A program can have one
# panic handler, and std brings another: as soon as std is anywhere below, rustc refuses with E0152
# (duplicate lang item `panic_impl`). This needs neither nightly nor a target without std.
#
# Everything happens in a scratch copy, so that violations can be planted in it: a check that has
# never been seen to fail proves nothing. Usage: .ci/purity.sh (seconds, once the dependencies are built).
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT INT TERM
export CARGO_TARGET_DIR="${PURITY_TARGET_DIR:-$root/target/purity}"
log="$scratch/log"

# Crate name and folder.
pure="limosa-pages:wire/pages limosa-wire:wire limosa-compat:compat-handshake limosa-session:engine/session"

# A fresh copy of the pure crates and of the workspace's dependency table, with the probe added.
copy() {
    rm -rf "$scratch/copy"
    mkdir -p "$scratch/copy/probe/src" "$scratch/copy/engine"
    cp -R "$root/wire" "$root/compat-handshake" "$scratch/copy/"
    cp -R "$root/engine/session" "$scratch/copy/engine/session"
    cp "$root/Cargo.lock" "$scratch/copy/"
    members='members = ["wire/pages", "wire", "compat-handshake", "engine/session", "probe"]'
    awk -v members="$members" '
        /^members = \[/ { print members; skipping = 1 }
        skipping != 1   { print }
        /^\]/           { skipping = 0 }
    ' "$root/Cargo.toml" > "$scratch/copy/Cargo.toml"
}

# probe CRATE: is CRATE free of std, with all its dependencies?
probe() {
    cat > "$scratch/copy/probe/Cargo.toml" <<EOF
[package]
name = "purity-probe"
version = "0.0.0"
edition = "2024"

[dependencies]
$1 = { workspace = true }
EOF
    cat > "$scratch/copy/probe/src/lib.rs" <<EOF
#![no_std]
use $(echo "$1" | tr - _) as _;

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
EOF
    (cd "$scratch/copy" && cargo check --quiet -p purity-probe) > "$log" 2>&1
}

# planted WHAT CRATE: the probe must refuse, and for the one right reason.
planted() {
    if probe "$2"; then
        echo "FAILED: $2 passes with a planted violation ($1)" >&2
        exit 1
    fi
    if ! grep -q 'E0152.*panic_impl' "$log"; then
        echo "FAILED: $2 with a planted violation ($1) fails for another reason:" >&2
        cat "$log" >&2
        exit 1
    fi
    echo "refused: $2 with $1"
}

copy
for entry in $pure; do
    crate=${entry%%:*}
    if ! probe "$crate"; then
        echo "FAILED: $crate is not free of std, or does not build:" >&2
        cat "$log" >&2
        exit 1
    fi
    echo "pure: $crate"
done

for entry in $pure; do
    crate=${entry%%:*} lib="$scratch/copy/${entry#*:}/src/lib.rs"

    copy
    echo 'extern crate std;' >> "$lib"
    planted 'an extern crate std' "$crate"

    copy
    printf 'extern crate std;\n/// A clock.\npub fn now() -> std::time::Instant {\n    std::time::Instant::now()\n}\n' >> "$lib"
    planted 'a clock of std' "$crate"

    copy
    sed '/^#!\[no_std\]/d' "$lib" > "$lib.new" && mv "$lib.new" "$lib"
    planted 'no #![no_std]' "$crate"
done

# A dependency with its std feature switched on.
copy
manifest="$scratch/copy/wire/Cargo.toml"
sed 's/^crc32fast = .*/crc32fast = { workspace = true, features = ["std"] }/' "$manifest" > "$manifest.new"
mv "$manifest.new" "$manifest"
planted 'the std feature of crc32fast' limosa-wire
planted 'the std feature of crc32fast' limosa-compat

echo "purity: the pure crates are free of std, and each planted violation was found"
