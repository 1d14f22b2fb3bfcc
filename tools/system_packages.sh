#!/bin/sh
# Installs Debian packages that are missing, where that may be done without asking: as root, with apt-get.
#
#   tools/system_packages.sh PACKAGE...
#
# Exit code 0: all are there. 1: some are not; standard error has the command to type.
set -eu

absent() {
    for package in "$@"; do
        dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' ||
            printf '%s ' "$package"
    done
}

command -v dpkg-query >/dev/null && command -v apt-get >/dev/null || {
    echo "This is no Debian or Ubuntu. What is wanted, by Debian's names: $*" >&2
    exit 1
}
missing=$(absent "$@")
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then
    echo "Installing system packages: $missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086  # names of packages, without spaces
    if apt-get update -qq >&2 && apt-get install -qq -y --no-install-recommends $missing >/dev/null; then
        exit 0
    fi
fi
echo "Not installed: $missing" >&2
echo "  what to do: sudo apt-get install $missing" >&2
exit 1
