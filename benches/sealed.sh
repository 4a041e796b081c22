#!/usr/bin/env bash
# What TLS between nodes costs: calls that are handed on, and probes, in a cluster with a key and in one without,
# in the same run. See benches/README.md.
#
# Needs nginx, wrk and python3 (Debian: apt-get install nginx-light wrk python3), and cargo for the node. Listens
# on 127.0.0.1:18991 and on 127.0.0.1-4 at the nodes' ports; traffic stays on loopback.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=7
seconds=${SECONDS_EACH:-3}  # each measurement's length, after one second of warm-up
. benches/common.sh
need nginx wrk awk curl python3

chmod 755 "$work"; mkdir "$work/files"
head -c 1048576 /dev/zero | tr '\0' x > "$work/files/mib"
cat > "$work/function.conf" <<CONF
worker_processes 1;
daemon off;
pid $work/function.pid;
error_log $work/function.log;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_max_body_size 0; client_body_buffer_size 2m;
    client_body_temp_path $work/body; proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/fastcgi; uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
    server {
        listen 127.0.0.1:18991 backlog=1024;
        location / { return 200 "hello\n"; }
        location /files/ { root $work; }
    }
}
CONF
cat > "$work/upload.lua" <<'LUA'
wrk.method = "POST"
wrk.body = string.rep("x", 1048576)
LUA
start nginx -p "$work" -c "$work/function.conf"
"$binary" key new > "$work/key"
node() { # address, the other's address, environment …
    local ip=$1 other=$2; shift 2
    start env "$@" "$binary" node --host "$ip" --data-path "$work/$ip" --init-server "$other" --workers 2 \
        --scheduler 'PowerOfNScheduler 1 0 false 1' --k 100000 --route fn=http://127.0.0.1:18991/ \
        --route file=http://127.0.0.1:18991/files/mib
}
node 127.0.0.1 127.0.0.2 LANG=C
node 127.0.0.2 127.0.0.1 LANG=C
node 127.0.0.3 127.0.0.4 P2PFAAS_CLUSTER_KEY_FILE="$work/key"
node 127.0.0.4 127.0.0.3 P2PFAAS_CLUSTER_KEY_FILE="$work/key"
forward=(-H 'X-P2pfaas-Scheduler-Forward: 1')
for ip in 127.0.0.1 127.0.0.3; do
    for _ in $(seq 200); do
        curl -fsS "${forward[@]}" -D - -o /dev/null "http://$ip:18080/function/fn" 2>/dev/null |
            grep -qi externally-executed && break
        sleep 0.1
    done
done
# All know by now of each other how calls go between them.
sleep 3

measure() { # name, connections, wrk arguments …
    local name=$1 connections=$2; shift 2
    wrk -t1 -c"$connections" -d1s "$@" >/dev/null
    wrk -t1 -c"$connections" -d"${seconds}s" --latency "$@" > "$work/wrk.txt"
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
# Calls for which a less loaded peer is looked for, and that run here: what asking took, as the node tells.
probes() { # name, address
    python3 - "$1" "$2" <<'PY' | tee -a "$work/results"
import http.client, json, statistics, sys
name, host = sys.argv[1:]
connection = http.client.HTTPConnection(host, 18080)
times = []
for n in range(2500):
    connection.request("POST", "/function/fn", b"x")
    answer = connection.getresponse()
    answer.read()
    times.append(json.loads(answer.headers["X-P2pfaas-Timing-Probing-Seconds-List"])[0] * 1e6)
print(name, 0, round(statistics.median(times[500:]), 1))
PY
}

for round in $(seq "$rounds"); do
    echo "round $round of $rounds: name, requests per second, median in microseconds"
    # Which goes first changes from round to round.
    pairs=(clear/127.0.0.1 tls/127.0.0.3)
    [ $((round % 2)) = 0 ] || pairs=(tls/127.0.0.3 clear/127.0.0.1)
    for pair in "${pairs[@]}"; do
        name=${pair%/*} url=http://${pair#*/}:18080/function
        measure "$name-1" 1 "${forward[@]}" "$url/fn"
        measure "$name-32" 32 "${forward[@]}" "$url/fn"
        measure "$name-down" 8 "${forward[@]}" "$url/file"
        measure "$name-up" 8 -s "$work/upload.lua" "${forward[@]}" "$url/fn"
        probes "$name-probe" "${pair#*/}"
    done
done
median() { # name, column
    awk -v name="$1" -v column="$2" '$1 == name { print $column }' "$work/results" | sort -g |
        awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
compare() { # what, name, column, unit, bar
    awk -v what="$1" -v tls="$(median "tls-$2" "$3")" -v clear="$(median "clear-$2" "$3")" -v unit="$4" \
        -v bar="$5" 'BEGIN {
            printf "%-28s %8.0f %s by TLS, %8.0f in the clear: %.2f (bar: %s)\n", what, tls, unit, clear, tls / clear, bar
        }'
}
echo
echo "medians of $rounds alternating rounds of ${seconds} s"
compare 'handed on, 1 connection' 1 3 us 'at most 1.10'
compare 'handed on, 32 connections' 32 2 calls/s 'at least 0.90'
compare 'a probe' probe 3 us 'at most 1.10'
compare 'handed on, 1 MiB down' down 2 MiB/s none
compare 'handed on, 1 MiB up' up 2 MiB/s none
