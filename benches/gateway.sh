#!/usr/bin/env bash
# The gateway's cost per call, against nginx and HAProxy in the same run. See benches/README.md.
#
# Needs nginx, haproxy and wrk (Debian: apt-get install nginx-light haproxy wrk procps), and cargo for the
# node. Listens on 127.0.0.1:18991-18994 and on 127.0.0.1-4 at 18080 and 19000; traffic stays on loopback.
# With BEFORE set to an earlier build's binary, that one is measured in the same rounds.
# With PARTS set, only those of "small large many" are measured; with SCHEDULER, the node has that algorithm.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=5
seconds=${SECONDS_EACH:-4}  # each measurement's length, after one second of warm-up
parts=${PARTS:-small many large}
. benches/common.sh
need nginx haproxy wrk awk curl taskset

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
    client_max_body_size 0; client_body_buffer_size 2m;
    client_body_temp_path $work/$1-body; proxy_temp_path $work/$1-proxy;
    fastcgi_temp_path $work/$1-fastcgi; uwsgi_temp_path $work/$1-uwsgi; scgi_temp_path $work/$1-scgi;
    proxy_buffers 16 64k; proxy_buffer_size 64k; proxy_max_temp_file_size 0;
CONF
}
# Its worker processes may run as another user.
chmod 755 "$work"; mkdir "$work/files"
head -c 1048576 /dev/zero | tr '\0' x > "$work/files/mib"
{ nginx_common function 1; cat <<CONF
    server {
        listen 127.0.0.1:18991 backlog=1024;
        location / { return 200 "hello\n"; }
        location /files/ { root $work; }
    }
}
CONF
} > "$work/function.conf"
proxying() { # pid file, port, the server behind
    nginx_common "$1" 2
    cat <<CONF
    upstream behind { server $3; keepalive 256; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:$2 backlog=1024;
        location / { proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }
}
CONF
}
proxying proxy 18992 127.0.0.1:18991 > "$work/proxy.conf"
proxying second 18993 127.0.0.1:18992 > "$work/second.conf"
cat > "$work/haproxy.conf" <<'CONF'
global
    nbthread 2
    maxconn 4096
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
listen function
    bind 127.0.0.1:18994
    server function 127.0.0.1:18991
CONF
cat > "$work/upload.lua" <<'LUA'
wrk.method = "POST"
wrk.body = string.rep("x", 1048576)
LUA

start nginx -p "$work" -c "$work/function.conf"
start nginx -p "$work" -c "$work/proxy.conf"
node() { # address, the other's address, binary, algorithm
    start "${3:-$binary}" node --host "$1" --data-path "$work/$1" --init-server "$2" --workers 2 \
        --scheduler "${4:-NoScheduler false}" --k 100000 --route fn=http://127.0.0.1:18991/ \
        --route file=http://127.0.0.1:18991/files/mib
}
node 127.0.0.1 127.0.0.2 "$binary" "${SCHEDULER:-}"
start nginx -p "$work" -c "$work/second.conf"
start haproxy -f "$work/haproxy.conf"
node 127.0.0.2 127.0.0.1
before=http://127.0.0.3:18080/function/fn
# With a peer of its own, as the other has.
[ -z "${BEFORE:-}" ] || { node 127.0.0.3 127.0.0.4 "$BEFORE"; node 127.0.0.4 127.0.0.3 "$BEFORE"; }

direct=http://127.0.0.1:18991/
proxy=http://127.0.0.1:18992/
hops=http://127.0.0.1:18993/
haproxy=http://127.0.0.1:18994/
local=http://127.0.0.1:18080/function/fn
forward=(-H 'X-P2pfaas-Scheduler-Forward: 1')
for url in $direct $proxy $hops $haproxy $local http://127.0.0.2:18080/function/fn ${BEFORE:+"$before"}; do
    for _ in $(seq 100); do curl -fsS -o /dev/null "$url" 2>/dev/null && break; sleep 0.1; done
    [ "$(curl -fsS "$url")" = hello ] || { echo "$0: $url does not answer" >&2; cat "$work/out.log" >&2; exit 1; }
done
for _ in $(seq 100); do
    curl -fsS "${forward[@]}" -D - -o /dev/null "$local" | grep -qi externally-executed && break; sleep 0.1
done
# Both know of each other that calls stream between them after the next poll.
sleep 3

resident() { awk '/VmRSS/ { print $2 }' "/proc/$1/status"; }
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
part() { case " $parts " in *" $1 "*) true ;; *) false ;; esac; }

load_on=
for round in $(seq "$rounds"); do
    echo "round $round of $rounds: name, requests per second, median in microseconds"
    if part small; then
        measure direct-32 32 "$direct"
        measure proxy-32 32 "$proxy"
        measure haproxy-32 32 "$haproxy"
        both "$round" 32
        measure hops-32 32 "$hops"
        measure forwarded-32 32 "${forward[@]}" "$local"
        measure direct-1 1 "$direct"
        measure proxy-1 1 "$proxy"
        both "$round" 1
        measure hops-1 1 "$hops"
        measure forwarded-1 1 "${forward[@]}" "$local"
    fi
    if part many; then
        measure proxy-256 256 "$proxy"
        measure haproxy-256 256 "$haproxy"
        both "$round" 256
    fi
    if part large; then
        measure hops-down 8 "${hops}files/mib"
        measure forwarded-down 8 "${forward[@]}" "${local%fn}file"
        measure hops-up 8 -s "$work/upload.lua" "$hops"
        measure forwarded-up 8 -s "$work/upload.lua" "${forward[@]}" "$local"
    fi
done

# At one connection the scheduler's choice of cores weighs more than the gateway: each step from one
# core to an idle other one costs a wake-up. So once more with the same places for both: the load and
# the function on one core, the gateway under test on another.
pin() { for pid in "$1" $(pgrep -P "$1"); do taskset -a -cp "$2" "$pid" >/dev/null; done; }
if part small && [ "$(nproc)" -ge 2 ]; then
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
better() { awk -v a="$1" -v b="$2" 'BEGIN { print (a > b) ? a : b }'; }
rate() { # what, name, against what, name, bar
    local mine; mine=$(median "$2" 2)
    printf '%-46s %8.0f requests/s  %s x %s (bar: at least %s)\n' "$1" "$mine" \
        "$(ratio "$mine" "$4")" "$3" "$5"
}
time_of() { # what, name, against what, name, bar
    local mine; mine=$(median "$2" 3)
    printf '%-46s %8.0f us          %s x %s (bar: at most %s)\n' "$1" "$mine" \
        "$(ratio "$mine" "$(median "$4" 3)")" "$3" "$5"
}
plain() { printf '%-46s %8.0f requests/s  %8.0f us\n' "$1" "$(median "$2" 2)" "$(median "$2" 3)"; }

echo
echo "medians of $rounds alternating rounds of ${seconds} s"
if part small; then
    plain 'function server directly, 32 connections' direct-32
    plain 'through nginx, 32 connections' proxy-32
    plain 'through HAProxy, 32 connections' haproxy-32
    plain 'through nginx twice, 32 connections' hops-32
    plain 'through nginx, 1 connection' proxy-1
    rate 'through the node, 32 connections' node-32 nginx "$(median proxy-32 2)" 1.0
    time_of 'through the node, 1 connection' node-1 nginx proxy-1 1.15
    rate 'forwarded once, 32 connections' forwarded-32 'nginx twice' "$(median hops-32 2)" 0.9
    time_of 'forwarded once, 1 connection' forwarded-1 'nginx twice' hops-1 1.15
    [ "$(nproc)" -lt 2 ] ||
        time_of 'on its own core, 1 connection' node-pinned 'nginx on its own core' proxy-pinned 1.15
fi
if part many; then
    plain 'through nginx, 256 connections' proxy-256
    plain 'through HAProxy, 256 connections' haproxy-256
    rate 'through the node, 256 connections' node-256 'the better of both' \
        "$(better "$(median proxy-256 2)" "$(median haproxy-256 2)")" 1.0
fi
if part large; then
    # A request is a MiB.
    rate 'forwarded once, 1 MiB down (MiB/s)' forwarded-down 'nginx twice' "$(median hops-down 2)" 0.8
    rate 'forwarded once, 1 MiB up (MiB/s)' forwarded-up 'nginx twice' "$(median hops-up 2)" 0.8
fi
if [ -n "${BEFORE:-}" ]; then
    ! part small || rate 'the node, 32 connections' node-32 'the earlier build' "$(median before-32 2)" 0.98
    ! part small || time_of 'the node, 1 connection' node-1 'the earlier build' before-1 1.02
    ! part many || rate 'the node, 256 connections' node-256 'the earlier build' "$(median before-256 2)" 0.98
fi
echo "resident memory of the node: idle, before the load, $idle KiB (bar: at most 15360); after it, $(resident "${pids[2]}") KiB"
