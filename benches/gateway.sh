#!/usr/bin/env bash
# The gateway's cost per call, against nginx in the same run. See benches/README.md.
#
# Needs nginx and wrk (Debian: apt-get install nginx-light wrk procps), and cargo for the node.
# Listens on 127.0.0.1:18991-18992 and on 127.0.0.1-4 at 18080 and 19000; traffic stays on loopback.
# With BEFORE set to an earlier build's binary, that one is measured in the same rounds.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=5
seconds=${SECONDS_EACH:-4}  # each measurement's length, after one second of warm-up
. benches/common.sh
need nginx wrk awk curl taskset

# A worker process serves any number of requests per connection, on both sides of the comparison.
nginx_common() { # pid file, worker processes
    cat <<CONF
worker_processes $2;
daemon off;
pid $work/$1.pid;
error_log $work/$1.log;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path $work/$1-body; proxy_temp_path $work/$1-proxy;
    fastcgi_temp_path $work/$1-fastcgi; uwsgi_temp_path $work/$1-uwsgi; scgi_temp_path $work/$1-scgi;
CONF
}
{ nginx_common function 1; cat <<'CONF'
    server { listen 127.0.0.1:18991 backlog=1024; location / { return 200 "hello\n"; } }
}
CONF
} > "$work/function.conf"
{ nginx_common proxy 2; cat <<'CONF'
    upstream function { server 127.0.0.1:18991; keepalive 64; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:18992 backlog=1024;
        location / { proxy_pass http://function; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
}
CONF
} > "$work/proxy.conf"

start nginx -p "$work" -c "$work/function.conf"
start nginx -p "$work" -c "$work/proxy.conf"
node() { # address, the other's address, binary
    start "${3:-$binary}" node --host "$1" --data-path "$work/$1" --init-server "$2" --workers 2 \
        --scheduler 'NoScheduler false' --k 100000 --route fn=http://127.0.0.1:18991/
}
node 127.0.0.1 127.0.0.2
node 127.0.0.2 127.0.0.1
before=http://127.0.0.3:18080/function/fn
# With a peer of its own, as the other has.
[ -z "${BEFORE:-}" ] || { node 127.0.0.3 127.0.0.4 "$BEFORE"; node 127.0.0.4 127.0.0.3 "$BEFORE"; }

direct=http://127.0.0.1:18991/
proxy=http://127.0.0.1:18992/
local=http://127.0.0.1:18080/function/fn
for url in $direct $proxy $local http://127.0.0.2:18080/function/fn ${BEFORE:+"$before"}; do
    for _ in $(seq 100); do curl -fsS -o /dev/null "$url" 2>/dev/null && break; sleep 0.1; done
    [ "$(curl -fsS "$url")" = hello ] || { echo "$0: $url does not answer" >&2; cat "$work/out.log" >&2; exit 1; }
done
for _ in $(seq 100); do curl -fsS http://127.0.0.1:19000/list | grep -q 127.0.0.2 && break; sleep 0.1; done

resident() { awk '/VmRSS/ { print $2 }' "/proc/$1/status"; }
sleep 3
idle=$(resident "${pids[2]}")

measure() { # name, connections, wrk arguments …
    local name=$1 connections=$2; shift 2
    $load_on wrk -t1 -c"$connections" -d1s "$@" >/dev/null
    $load_on wrk -t1 -c"$connections" -d"${seconds}s" --latency "$@" > "$work/wrk.txt"
    if grep -qE 'Non-2xx|Socket errors' "$work/wrk.txt"; then
        echo "$0: $name had errors:" >&2; cat "$work/wrk.txt" >&2; exit 1
    fi
    # Requests per second and the median in microseconds.
    awk -v name="$name" '
        /50%/ { v = $2; u = v; gsub(/[0-9.]/, "", u); gsub(/[a-z]/, "", v)
                p50 = v * (u == "ms" ? 1000 : u == "s" ? 1000000 : 1) }
        /Requests\/sec/ { rate = $2 }
        END { printf "%s %s %s\n", name, rate, p50 }' "$work/wrk.txt" | tee -a "$work/results"
}

# The node, and the earlier build if there is one; which goes first changes from round to round.
both() { # round, connections
    [ -z "${BEFORE:-}" ] || [ $(($1 % 2)) = 0 ] || measure "before-$2" "$2" "$before"
    measure "node-$2" "$2" "$local"
    [ -z "${BEFORE:-}" ] || [ $(($1 % 2)) = 1 ] || measure "before-$2" "$2" "$before"
}

load_on=
for round in $(seq "$rounds"); do
    echo "round $round of $rounds: name, requests per second, median in microseconds"
    measure direct-32 32 "$direct"
    measure proxy-32 32 "$proxy"
    both "$round" 32
    measure direct-1 1 "$direct"
    measure proxy-1 1 "$proxy"
    both "$round" 1
    measure forwarded-1 1 -H 'X-P2pfaas-Scheduler-Forward: 1' "$local"
done

# At one connection the scheduler's choice of cores weighs more than the gateway: each step from one
# core to an idle other one costs a wake-up. So once more with the same places for both: the load and
# the function on one core, the gateway under test on another.
pin() { for pid in "$1" $(pgrep -P "$1"); do taskset -a -cp "$2" "$pid" >/dev/null; done; }
if [ "$(nproc)" -ge 2 ]; then
    pin "${pids[0]}" 0; pin "${pids[1]}" 1; pin "${pids[2]}" 1
    load_on='taskset -c 0'
    for round in $(seq "$rounds"); do
        echo "round $round of $rounds, the gateway on a core of its own"
        measure proxy-pinned 1 "$proxy"
        measure node-pinned 1 "$local"
    done
fi

median() { # name, column
    awk -v name="$1" -v column="$2" '$1 == name { print $column }' "$work/results" | sort -g |
        awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

echo
echo "medians of $rounds alternating rounds of ${seconds} s"
printf '%-46s %8.0f requests/s\n' 'function server directly, 32 connections' "$(median direct-32 2)"
printf '%-46s %8.0f requests/s\n' 'through nginx, 32 connections' "$(median proxy-32 2)"
printf '%-46s %8.0f requests/s  %s x nginx (bar: at least 0.8)\n' 'through the node, 32 connections' \
    "$(median node-32 2)" "$(ratio "$(median node-32 2)" "$(median proxy-32 2)")"
printf '%-46s %8.0f us\n' 'function server directly, 1 connection' "$(median direct-1 3)"
printf '%-46s %8.0f us\n' 'through nginx, 1 connection' "$(median proxy-1 3)"
printf '%-46s %8.0f us          %s x nginx (bar: at most 1.5)\n' 'through the node, 1 connection' \
    "$(median node-1 3)" "$(ratio "$(median node-1 3)" "$(median proxy-1 3)")"
if [ "$(nproc)" -ge 2 ]; then
    printf '%-46s %8.0f us\n' 'through nginx on its own core, 1 connection' "$(median proxy-pinned 3)"
    printf '%-46s %8.0f us          %s x nginx (bar: at most 1.5)\n' 'through the node on its own core, 1 connection' \
        "$(median node-pinned 3)" "$(ratio "$(median node-pinned 3)" "$(median proxy-pinned 3)")"
fi
printf '%-46s %8.0f us          %s x local (bar: at most 2.2)\n' 'forwarded once, 1 connection' \
    "$(median forwarded-1 3)" "$(ratio "$(median forwarded-1 3)" "$(median node-1 3)")"
if [ -n "${BEFORE:-}" ]; then
    printf '%-46s %8.0f requests/s  the node now: %s x\n' 'through the earlier build, 32 connections' \
        "$(median before-32 2)" "$(ratio "$(median node-32 2)" "$(median before-32 2)")"
    printf '%-46s %8.0f us          the node now: %s x\n' 'through the earlier build, 1 connection' \
        "$(median before-1 3)" "$(ratio "$(median node-1 3)" "$(median before-1 3)")"
fi
echo "resident memory of the node: idle, before the load, $idle KiB (bar: at most 15360); after it, $(resident "${pids[2]}") KiB"
