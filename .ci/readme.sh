#!/usr/bin/env bash
# Runs the command that README.md gives under the marker `<!-- run -->` or `<!-- test -->`, so that the README can't go stale.
set -euo pipefail
cd "$(dirname "$0")/.."
command=$(awk -v marker="<!-- $1 -->" '$0 == marker {found=1; next} found && /^```/ {if (inside) exit; inside=1; next} found && inside {print}' README.md)
[ -n "$command" ] || { echo "README.md has no command under <!-- $1 -->" >&2; exit 1; }
printf '$ %s\n' "$command"
eval "$command"
