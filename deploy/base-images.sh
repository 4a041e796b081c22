#!/usr/bin/env bash
# For machines that reach no image registry: makes the images that the Dockerfiles begin with, under
# the names that they ask for, from Debian's packages and the Rust toolchain of this machine. The
# Dockerfiles are then built unchanged. Images that are there already are left alone.
#
#   deploy/base-images.sh            what Dockerfile and functions/ need
#   deploy/base-images.sh aarch64    what Dockerfile.aarch64 needs
#
# Needs a Debian host, root, Docker, debootstrap, and for the first rustup's toolchain on root's PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { printf 'base-images.sh: %s\n' "$1" >&2; exit 1; }

# needs PROGRAM HOW: ends with what is missing and how to get it.
needs() { command -v "$1" >/dev/null || fail "the program $1 is missing. $2"; }

needs docker "Install Docker: apt-get install docker.io"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# debian SUITE PACKAGES: a small Debian in $folder/root.
debian() {
    needs apt-get 'This script works on Debian and what is made from it.'
    needs debootstrap 'Install it as root: apt-get install debootstrap'
    [ "$(id -u)" = 0 ] || fail 'debootstrap needs root. Run this script as root.'
    # Debian's packages come from where this machine has its own from.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' |
        grep -v security | head -n 1 || true)
    [ -n "$mirror" ] || fail 'apt knows no mirror of Debian. Add one to /etc/apt/sources.list.'
    rm -rf "$folder/root"
    # All suites are made alike; this machine may not know the name of a newer one.
    debootstrap --variant=minbase --include="$2" "$1" "$folder/root" "$mirror" \
        /usr/share/debootstrap/scripts/sid >"$folder/log" ||
        { tail -n 20 "$folder/log" >&2; exit 1; }
    # The mirror may be one of an earlier day.
    echo 'Acquire::Check-Valid-Until "false";' >"$folder/root/etc/apt/apt.conf.d/frozen-mirror"
    # Networks that look into connections have certificates of their own.
    if compgen -G '/usr/local/share/ca-certificates/*.crt' >/dev/null; then
        cp /usr/local/share/ca-certificates/*.crt "$folder/root/usr/local/share/ca-certificates/"
        chroot "$folder/root" update-ca-certificates >/dev/null 2>&1
    fi
    rm -rf "$folder"/root/var/cache/apt/archives/*.deb "$folder"/root/usr/share/{doc,man,locale}
}

# image NAME [DOCKER IMPORT'S FLAGS]: $folder/root as an image.
image() {
    local name=$1
    shift
    tar --numeric-owner -C "$folder/root" -c . | docker import "$@" - "$name" >/dev/null
    echo "made $name"
}

# The image that a Dockerfile's first stage begins with.
first_from() { awk 'toupper($1) == "FROM" { print $2; exit }' "$1"; }

has() { docker image inspect "$1" >/dev/null 2>&1; }

if [ "${1:-}" = aarch64 ]; then
    name=$(first_from Dockerfile.aarch64)
    has "$name" && exit
    # debian:forky-slim
    suite=${name#debian:}
    debian "${suite%-slim}" ca-certificates
    image "$name" --change 'CMD ["bash"]'
else
    name=$(first_from Dockerfile)
    has "$name" && exit
    needs rustc 'Install Rust with rustup, https://rustup.rs, and put it on the PATH of root.'
    toolchain=$(rustc --print sysroot)
    # rust:VERSION-slim-bookworm
    debian "${name##*-}" gcc,libc6-dev,ca-certificates
    mkdir -p "$folder/root/usr/local/lib/rustlib"
    cp -a "$toolchain"/bin/{cargo,rustc} "$folder/root/usr/local/bin/"
    cp -a "$toolchain"/lib/*.so* "$folder/root/usr/local/lib/"
    cp -a "$toolchain"/lib/rustlib/*-linux-* "$folder/root/usr/local/lib/rustlib/"
    image "$name" --change 'ENV CARGO_HOME=/usr/local/cargo' --change 'CMD ["bash"]'
    echo "it holds $(rustc --version)"
fi
