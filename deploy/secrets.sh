#!/usr/bin/env bash
# Makes the two secrets of a cluster, once: the cluster key, by which its nodes know each other, and the
# admin token, by which its operators change them.
#
#   deploy/secrets.sh [FOLDER]
#
# They are the files cluster-key and admin-token in FOLDER (deploy/secrets). What is there stays as it is.
# All machines of a cluster need the same two files: make them on one machine, and copy them to the others.
set -euo pipefail

folder=${1:-$(dirname "$0")/secrets}
# Only their owner comes into the folder. The files themselves can be read by all: a node in a container is
# another user, and sees the files alone.
mkdir -p -m 700 "$folder"
for name in cluster-key admin-token; do
    file=$folder/$name
    if [ -s "$file" ] && [ -f "$file" ]; then
        echo "$file is there already"
        continue
    fi
    secret=$(od -An -v -tx1 -N32 /dev/urandom | tr -d ' \n')
    [ "${#secret}" = 64 ] || { echo 'secrets.sh: /dev/urandom cannot be read' >&2; exit 1; }
    printf '%s\n' "$secret" >"$file"
    chmod 644 "$file"
    echo "made $file"
done
