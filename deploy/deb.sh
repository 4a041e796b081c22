#!/usr/bin/env bash
# Makes a Debian package of a program that is built already.
#
#   deploy/deb.sh PROGRAM [FOLDER [TOOL]]
#
# The package is written to FOLDER (this one), and its name is printed. Version, manual pages and
# completions come from TOOL, which has to run on this machine; it is PROGRAM itself unless that was
# built for another one. Needs dpkg-deb and gzip, and readelf for a program that is linked dynamically.
set -euo pipefail
umask 022

fail() { printf 'deb.sh: %s\n' "$1" >&2; exit 1; }

case $# in
    1 | 2 | 3) ;;
    *) fail 'usage: deploy/deb.sh PROGRAM [FOLDER [TOOL]]' ;;
esac
program=$(realpath -- "$1")
out=$(realpath -- "${2:-.}")
tool=$(realpath -- "${3:-$1}")
cd "$(dirname "$0")/.."

for needed in dpkg-deb gzip od; do
    command -v "$needed" >/dev/null || fail "the program $needed is missing"
done
[ -x "$program" ] || fail "$program is no program"

# The machine that an ELF program is for stands in its head.
case $(od -An -j18 -N2 -tu2 "$program" | tr -d ' ') in
    62) architecture=amd64 ;;
    183) architecture=arm64 ;;
    40) architecture=armhf ;;
    243) architecture=riscv64 ;;
    *) fail "$program is for a machine that this script does not know" ;;
esac

# "p2pfaas 1.0.0 (0123456789ab)"
version=$("$tool" --version | cut -d ' ' -f 2)
[ -n "$version" ] || fail "$tool does not say its version"

# The same sources give the same package.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y Cargo.toml)}
export SOURCE_DATE_EPOCH

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
put() { install -D -m "$1" "$2" "$root/$3"; }

put 755 "$program" usr/bin/p2pfaas
# A strip for another machine's programs may not be there; the package is larger without.
strip "$root/usr/bin/p2pfaas" 2>/dev/null || true

put 644 deploy/systemd/p2pfaas.service usr/lib/systemd/system/p2pfaas.service
put 644 deploy/systemd/p2pfaas.env etc/p2pfaas/p2pfaas.env

"$tool" man --out "$root/usr/share/man/man1" >/dev/null
gzip -n9 "$root"/usr/share/man/man1/*.1
for shell in bash zsh fish; do
    case $shell in
        bash) script=bash-completion/completions/p2pfaas ;;
        zsh) script=zsh/vendor-completions/_p2pfaas ;;
        fish) script=fish/vendor_completions.d/p2pfaas.fish ;;
    esac
    "$tool" completions "$shell" >"$root/completions"
    put 644 "$root/completions" "usr/share/$script"
    rm "$root/completions"
done

documents=usr/share/doc/p2pfaas
put 644 CHANGELOG.md "$documents/changelog"
gzip -n9 "$root/$documents/changelog"
{
    printf 'Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n'
    printf 'Upstream-Name: p2pfaas\n\nFiles: *\n%s\n' "$(sed -n 's/^Copyright (c) /Copyright: /p' LICENSE-MIT)"
    printf 'License: MIT or Apache-2.0\n\nLicense: MIT\n'
    # Paragraphs are indented, and a dot stands for an empty line.
    sed '1,4d; s/^$/./; s/^/ /' LICENSE-MIT
    printf '\nLicense: Apache-2.0\n On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.\n'
} >"$root/copyright"
put 644 "$root/copyright" "$documents/copyright"
rm "$root/copyright"

# What the program needs at run time: nothing if it is static, else the C library that it was linked with.
if ! command -v readelf >/dev/null; then
    fail 'the program readelf is missing. Install it: apt-get install binutils'
fi
depends=
if readelf -d "$root/usr/bin/p2pfaas" | grep -q NEEDED; then
    libc=$(readelf -V "$root/usr/bin/p2pfaas" | grep -o 'GLIBC_[0-9.]*' | sort -V | tail -n 1)
    depends="libc6 (>= ${libc#GLIBC_}), libgcc-s1"
fi

mkdir "$root/DEBIAN"
{
    cat <<CONTROL
Package: p2pfaas
Version: $version
Architecture: $architecture
Maintainer: The p2pfaas authors
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f 1)
CONTROL
    [ -z "$depends" ] || printf 'Depends: %s\n' "$depends"
    cat <<'CONTROL'
Section: net
Priority: optional
Description: Functions-as-a-Service on edge machines that share their work as peers
 A node takes calls of functions and decides by itself, with a scheduling algorithm
 of the operator's choice, whether to run a call, to hand it to another machine or
 to reject it. There is no central orchestrator.
CONTROL
} >"$root/DEBIAN/control"
echo /etc/p2pfaas/p2pfaas.env >"$root/DEBIAN/conffiles"

# With systemd running: a new unit is read, a node that runs is restarted, and a removed one is stopped. No key
# is made here: each machine would have another one, and they would never find each other.
cat >"$root/DEBIAN/postinst" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    for name in cluster-key admin-token; do
        if [ ! -s "/etc/p2pfaas/$name" ]; then
            echo "p2pfaas: /etc/p2pfaas/$name is missing. On the first machine of a cluster make it by"
            echo "    p2pfaas key new | install -m 600 /dev/stdin /etc/p2pfaas/$name"
            echo "as root; copy it from there to all others."
        fi
    done
fi
if [ "$1" = configure ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart p2pfaas.service
fi
SCRIPT
cat >"$root/DEBIAN/prerm" <<'SCRIPT'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now p2pfaas.service
fi
SCRIPT
cat >"$root/DEBIAN/postrm" <<'SCRIPT'
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if [ "$1" = purge ]; then
    rm -rf /var/lib/p2pfaas /var/lib/private/p2pfaas
    rm -f /etc/p2pfaas/cluster-key /etc/p2pfaas/admin-token
    [ ! -d /etc/p2pfaas ] || rmdir --ignore-fail-on-non-empty /etc/p2pfaas
fi
SCRIPT
chmod 755 "$root"/DEBIAN/postinst "$root"/DEBIAN/prerm "$root"/DEBIAN/postrm

package="$out/p2pfaas_${version}_$architecture.deb"
dpkg-deb --root-owner-group -Zxz --build "$root" "$package" >/dev/null
echo "$package"
