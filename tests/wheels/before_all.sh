#!/bin/sh
# Headers to build with and tools to test with, inside the image that cibuildwheel starts.
set -eu
if command -v dnf >/dev/null; then
    # AlmaLinux keeps -devel packages of this kind in a repository that is off by default: powertools in 8, crb from 9 on.
    extra=$(dnf repolist --all -q | awk '$1 == "powertools" || $1 == "crb" { print $1 }')
    dnf -y -q install ${extra:+--enablerepo="$extra"} \
        libnetfilter_conntrack-devel libnfnetlink-devel libmnl-devel pkgconf-pkg-config iproute nftables conntrack-tools strace procps-ng
fi
pkg-config --print-errors --exists libnetfilter_conntrack libnfnetlink libmnl
