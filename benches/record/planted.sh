#!/bin/sh
# Plants a slow-down in a copy of the tree (the corridor copies and tests every second page twice, about a tenth more
# instructions for a page), builds it, and shows that the gate fails because of it.
set -eu
cd "$(dirname "$0")/../.."
copy=$(mktemp -d)
trap 'git worktree remove --force "$copy/tree"; rm -rf "$copy"' EXIT
git worktree add --quiet --detach "$copy/tree"
git -C "$copy/tree" apply "$PWD/benches/record/planted.patch"
target=${CARGO_TARGET_DIR:-$PWD/target}
cd "$copy/tree"
CARGO_TARGET_DIR=$target/planted cargo build --release --quiet -p migrate-bench
if "$target/planted/release/migrate-bench" gate --baseline benches/record/gate.json --no-ratios > "$copy/said"; then
    echo "the gate did not see it" >&2
    exit 1
fi
grep REGRESSION "$copy/said"
