#!/usr/bin/env bash
# What is lost when a peer is started again while calls are forwarded to it. See benches/README.md.
#
# Needs nginx and wrk (Debian: apt-get install nginx-light wrk procps), and cargo for the node. Listens on
# 127.0.0.1:18991 and on 127.0.0.41-42 at 18080 and 19000; traffic stays on loopback.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=30  # restarts
. benches/common.sh
need nginx wrk awk curl

chmod 755 "$work"
cat > "$work/function.conf" <<CONF
worker_processes 1;
daemon off;
pid $work/function.pid;
error_log $work/function.log;
events { worker_connections 4096; }
http {
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path $work/body; proxy_temp_path $work/proxy;
    fastcgi_temp_path $work/fastcgi; uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
    server { listen 127.0.0.1:18991 backlog=1024; location / { return 200 "hello\n"; } }
}
CONF
# A POST may never run twice, so it is not simply sent again.
cat > "$work/post.lua" <<'LUA'
wrk.method = "POST"
wrk.body = "hello"
LUA

node() { # address, the other's address
    "$binary" node --host "$1" --data-path "$work/$1" --init-server "$2" --workers 2 \
        --scheduler 'NoScheduler false' --k 100000 --route fn=http://127.0.0.1:18991/ >>"$work/out.log" 2>&1 &
}
entry=127.0.0.41 peer=127.0.0.42
start nginx -p "$work" -c "$work/function.conf"
node "$entry" "$peer"; pids+=($!)
node "$peer" "$entry"; peer_pid=$!; pids+=($peer_pid)
url=http://$entry:18080/function/fn
forward='X-P2pfaas-Scheduler-Forward: 1'
forwarded() { curl -s -H "$forward" -D - -o /dev/null "$url" | grep -qi externally-executed; }
listed() { for _ in $(seq 100); do forwarded && return; sleep 0.1; done; echo "$0: the peer is not seen" >&2; exit 1; }
listed
sleep 3

ran() { curl -s "http://$peer:18080/metrics" | awk '/^p2pfaas_requests_total.*outcome="executed"/ { n += $2 } END { printf "%d", n }'; }
total=0 begun=$(date +%s)
# wrk ends by itself; the restarts are done long before.
seconds=$((rounds * 8))
wrk -t1 -c8 -d"${seconds}s" -H "$forward" "$url" > "$work/get.txt" & get=$!; pids+=($get)
wrk -t1 -c8 -d"${seconds}s" -H "$forward" -s "$work/post.lua" "$url" > "$work/post.txt" & post=$!; pids+=($post)
for round in $(seq "$rounds"); do
    sleep 1
    total=$((total + $(ran)))
    kill -TERM "$peer_pid"; wait "$peer_pid" || true
    node "$peer" "$entry"; peer_pid=$!; pids+=($peer_pid)
    listed
done
took=$(($(date +%s) - begun))
kill -INT "$get" "$post"; wait "$get" "$post" || true
cat "$work/get.txt" "$work/post.txt" > "$work/all.txt"
awk -v rounds="$rounds" -v took="$took" -v ran="$total" '
    /requests in/ { calls += $1 }
    /Non-2xx/ { lost += $NF }
    /Socket errors/ { gsub(/,/, ""); lost += $4 + $6 + $8 + $10 }
    END { printf "%d restarts in %d s, %d calls, %d of them at the peer (%d a second): %d lost (bar: 0)\n",
          rounds, took, calls, ran, ran / took, lost }' "$work/all.txt"
