#!/bin/sh
# Writes X.Y.json beside this script from the headers of Xen X.Y.
#   make-layouts.sh X.Y DIRECTORY
# DIRECTORY holds Xen's public headers (xen.h, domctl.h, ...): /usr/include/xen of Debian's package libxen-dev, or
# xen/include/public of Xen's sources at a tag RELEASE-X.Y.Z.
set -eu
here=$(dirname "$(readlink -f "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$(readlink -f "$2")" "$work/xen"
cc -std=gnu11 -I "$work" -o "$work/layouts" "$here/layouts.c"
"$work/layouts" >"$here/$1.json"
