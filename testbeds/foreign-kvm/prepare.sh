#!/bin/sh
# Installs what the emulated hosts need (Debian or Ubuntu, as root) and unpacks a distribution kernel for them. Run again, it does
# only what is missing. Usage: testbeds/foreign-kvm/prepare.sh [FOLDER FOR THE KERNEL]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
kernel="${1:-${CARGO_TARGET_DIR:-$root/target}/foreign-kvm}"

missing=
for tool in qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio; do
    command -v "${tool%%:*}" > /dev/null || missing="$missing ${tool#*:}"
done
[ -e /bin/busybox ] && [ -z "$(ldd /bin/busybox 2> /dev/null | grep '=>')" ] || missing="$missing busybox-static"
if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing > /dev/null
fi

if ! ls "$kernel"/boot/vmlinuz-* > /dev/null 2>&1; then
    mkdir -p "$kernel/packages"
    cd "$kernel/packages"
    apt-get update -qq
    # The package of that name only depends on the newest kernel's own.
    package=$(apt-cache depends linux-image-cloud-amd64 linux-image-amd64 linux-image-virtual 2> /dev/null |
        sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
    [ -n "$package" ] || { echo "no kernel package found: is this Debian or Ubuntu?" >&2; exit 1; }
    modules=$(echo "$package" | sed 's/linux-image-/linux-modules-/')
    apt-get download -qq "$package"
    # Ubuntu has them apart.
    apt-get download -qq "$modules" 2> /dev/null || true
    for file in ./*.deb; do dpkg -x "$file" "$kernel"; done
fi
ls "$kernel"/boot/vmlinuz-*
