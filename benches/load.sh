#!/usr/bin/env bash
# What `p2pfaas bench run` can send from one core, and whether its latencies are those that another
# open-loop tool measures on the same server. See benches/README.md.
#
# Needs nginx, sqlite3 and taskset (Debian: apt-get install nginx-light sqlite3 util-linux), oha
# (cargo install --locked oha), and cargo for the node. Listens on 127.0.3.1-2 at 18080; traffic
# stays on loopback. The tool has the first core, the server the second.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=3
seconds=${SECONDS_EACH:-5}  # each measurement's length
. benches/common.sh
need nginx sqlite3 taskset oha awk

cat > "$work/nginx.conf" <<CONF
worker_processes 1; daemon off; pid $work/pid; error_log $work/log;
events { worker_connections 8192; }
http {
    access_log off; keepalive_requests 1000000000; client_body_temp_path $work/body;
    proxy_temp_path $work/proxy; fastcgi_temp_path $work/fastcgi;
    uwsgi_temp_path $work/uwsgi; scgi_temp_path $work/scgi;
    server { listen 127.0.3.1:18080 backlog=4096; location / { return 200 "ok"; } }
}
CONF
start taskset -c 1 nginx -p "$work" -c "$work/nginx.conf"
start taskset -c 1 "$binary" function fn-sleep --listen 127.0.3.2:18080
sleep 1

# Each prints: sent per second, p50, p90, p99 in milliseconds, and for the bench the share of the
# planned calls sent before the end.
of_bench() { # address, rate, query
    local out="$work/run-$RANDOM$RANDOM" db
    echo "$1" > "$work/hosts"
    taskset -c 0 "$binary" bench run --checks false --fleet "$work/hosts" --output "$out" \
        --duration-s "$seconds" --rates "$2" --payloads "[{query=\"$3\"}]" >/dev/null 2>&1
    db="$out/run-01.db"
    quantile() {
        sqlite3 "$db" "SELECT 1000 * time_total FROM jobs ORDER BY time_total
            LIMIT 1 OFFSET (SELECT CAST($1 * (COUNT(*) - 1) AS INTEGER) FROM jobs)"
    }
    echo "$(sqlite3 "$db" "SELECT COUNT(*) / $seconds.0 FROM jobs WHERE res_status_code = 200")" \
        "$(quantile .5) $(quantile .9) $(quantile .99)" \
        "$(sqlite3 "$db" "SELECT json_extract(value, '$.sent_in_time') * 100.0 /
            json_extract(value, '$.planned') FROM scenario WHERE key = 'kept'")"
}
of_oha() { # address, rate, query
    taskset -c 0 oha --no-tui --no-color --latency-correction --disable-compression --redirect 0 \
        -m POST -c 400 -q "$2" -z "${seconds}s" "http://$1:18080/function/fn-echo?$3" |
        awk '/Requests\/sec/ { rate = $2 } /50.00%/ { p50 = $3 } /90.00%/ { p90 = $3 }
             /99.00%/ { p99 = $3 } END { print rate, p50, p90, p99 }'
}
median() { # column; rows on standard input
    awk -v c="$1" '{ print $c }' | sort -g | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'
}
compare() { # words, address, rate, query
    : > "$work/a"; : > "$work/b"
    for _ in $(seq "$rounds"); do
        of_bench "$2" "$3" "$4" >> "$work/a"
        of_oha "$2" "$3" "$4" >> "$work/b"
    done
    for tool in a:bench b:oha; do
        local rows="$work/${tool%%:*}"
        printf '%-44s %6s/s  %-5s %9.0f/s  p50 %8.3f  p90 %8.3f  p99 %8.3f ms' "$1" "$3" \
            "${tool##*:}" "$(median 1 < "$rows")" "$(median 2 < "$rows")" \
            "$(median 3 < "$rows")" "$(median 4 < "$rows")"
        [ "$tool" = a:bench ] && printf '  sent in time %.2f %%' "$(median 5 < "$rows")"
        echo
    done
}

compare 'nginx, return 200' 127.0.3.1 1000 x=1
compare 'nginx, return 200' 127.0.3.1 20000 x=1
compare 'function server, 5 ms' 127.0.3.2 500 mean_ms=5
compare 'function server, 5 ms' 127.0.3.2 3000 mean_ms=5
compare 'function server, exponential, 20 ms' 127.0.3.2 500 'dist=exponential&mean_ms=20'
compare 'function server, exponential, 20 ms' 127.0.3.2 3000 'dist=exponential&mean_ms=20'
for rate in 25000 30000 40000; do
    : > "$work/a"
    for _ in $(seq "$rounds"); do of_bench 127.0.3.1 "$rate" x=1 >> "$work/a"; done
    printf '%-44s %6s/s  bench %9.0f/s  sent in time %.2f %%\n' 'nginx, return 200' "$rate" \
        "$(median 1 < "$work/a")" "$(median 5 < "$work/a")"
done
