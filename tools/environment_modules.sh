#!/bin/sh
# Puts Environment Modules into a folder, from Debian's package, for tests: it cannot be installed beside Lmod.
#
#   tools/environment_modules.sh FOLDER
#
# Exit code 0: FOLDER/usr/lib/ARCHITECTURE/modulecmd.tcl is there. 1: it is not, and standard error says why.
set -eu
folder=$1
command -v apt-get >/dev/null && command -v dpkg >/dev/null || {
    echo "This is no Debian or Ubuntu: Environment Modules are not fetched." >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# apt-get fetches into the folder that it stands in.
(cd "$work" && { apt-get download -qq environment-modules || { apt-get update -qq && apt-get download -qq environment-modules; }; }) >&2
dpkg -x "$work"/environment-modules_*.deb "$work/files"
mkdir -p "$(dirname "$folder")"
rm -rf "$folder"
mv "$work/files" "$folder"
