#!/bin/sh
# Fetches the smallest Debian that an image can be made from, for the tests: they have no network.
#
#   tools/rootfs.sh TARGET.tar
#
# Exit code 1: mmdebstrap is missing, or has no network; the tests that need it are skipped.
set -eu

target=${1:?usage: tools/rootfs.sh TARGET.tar}
[ ! -e "$target" ] || exit 0
command -v mmdebstrap >/dev/null || {
    echo "mmdebstrap is not installed: sudo apt-get install mmdebstrap" >&2
    exit 1
}
partial=$target.partial
trap 'rm -f "$partial"' EXIT
# What nobody reads in an image stays out: it halves the time that each build takes.
mmdebstrap --quiet --variant=essential --format=tar \
    --include=ca-certificates,libgomp1,libstdc++6,python3,python3-venv \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    bookworm "$partial"
mv "$partial" "$target"
