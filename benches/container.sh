#!/usr/bin/env bash
# What a container costs a node, against the same program as a plain process in the same run; how long
# it takes from `docker run` to the first answer; what it holds when idle. See deploy/README.md.
#
# Needs Docker with the image p2pfaas, wrk and curl, root. Nodes listen on 127.0.0.1-2 and in a network
# that this makes.
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=7
seconds=${SECONDS_EACH:-4}  # each measurement's length, after one second of warm-up
. benches/common.sh
P2PFAAS=image need docker wrk curl awk

containers=()
network=p2pfaas-bench-$$
remove() {
    [ ${#containers[@]} = 0 ] || docker rm -f -v "${containers[@]}" >/dev/null
    docker network rm "$network" >/dev/null 2>&1 || true
    cleanup
}
trap remove EXIT
docker network create --internal "$network" >/dev/null

run() { # docker run's arguments … ; sets container
    container=$(docker run -d --read-only --cap-drop ALL "$@")
    containers+=("$container")
}
address() { docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }
answers() { # URL
    for _ in $(seq 2000); do curl -fsS -o /dev/null -d x "$1" 2>/dev/null && return; sleep 0.005; done
    echo "$0: $1 does not answer" >&2
    exit 1
}
path=:18080/function/fn-echo
node=(node --embedded-functions --scheduler 'NoScheduler false' --k 100000)

# The very same program, outside.
container=$(docker create p2pfaas)
containers+=("$container")
docker cp "$container:/p2pfaas" "$work/p2pfaas" >/dev/null
start "$work/p2pfaas" "${node[@]}" --host 127.0.0.1 --data-path "$work/data"
run --network host p2pfaas "${node[@]}" --host 127.0.0.2
in_host=$container
run --network "$network" p2pfaas "${node[@]}"
in_network=$container
urls=("process http://127.0.0.1$path" "host http://127.0.0.2$path" "bridge http://$(address "$in_network")$path")
for line in "${urls[@]}"; do answers "${line#* }"; done
sleep 5
idle=$(awk '/VmRSS/ { print $2 }' "/proc/$(docker inspect -f '{{.State.Pid}}' "$in_network")/status")

echo 'wrk.method = "POST"; wrk.body = "hello"' >"$work/post.lua"
for round in $(seq "$rounds"); do
    for connections in 1 32; do
        for line in "${urls[@]}"; do
            load=(wrk -t1 -c"$connections" -s "$work/post.lua" "${line#* }")
            "${load[@]}" -d1s >/dev/null
            "${load[@]}" -d"${seconds}s" >"$work/wrk.txt"
            if grep -qE 'Non-2xx|Socket errors' "$work/wrk.txt"; then cat "$work/wrk.txt" >&2; exit 1; fi
            awk -v what="${line%% *} $connections $round" '/Requests\/sec/ { print what, $2 }' \
                "$work/wrk.txt" >>"$work/results"
        done
    done
done

for _ in $(seq 10); do
    began=$(date +%s%N)
    run --network "$network" p2pfaas "${node[@]}"
    answers "http://$(address "$container")$path"
    echo $((($(date +%s%N) - began) / 1000000)) >>"$work/starts"
done

median() { sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
for connections in 1 32; do
    rate() { awk -v what="$1" -v c="$connections" '$1 == what && $2 == c { print $4 }' "$work/results"; }
    plain=$(rate process | median)
    for where in host bridge; do
        ratio=$(paste <(rate "$where") <(rate process) | awk '{ print $1 / $2 }' | median)
        printf '%2s connections, %-7s %9s calls/s, process %9s, median of the rounds'\'' ratios %.3f\n' \
            "$connections" "$where" "$(rate "$where" | median)" "$plain" "$ratio"
    done
done
printf 'docker run to the first answer: median %s ms, longest %s ms of 10\n' \
    "$(median <"$work/starts")" "$(sort -n "$work/starts" | tail -n 1)"
printf 'idle in its container: %s KiB resident\n' "$idle"
