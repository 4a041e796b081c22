# What the benchmarks here share; to be sourced from the repository's folder. Sets: rounds, binary, work
# (a folder that goes at the end), start (a process that is ended then, its id in pids).

rounds=${ROUNDS:-$rounds}  # alternating rounds; the figures are medians over them
binary=${P2PFAAS:-target/release/p2pfaas}  # what to measure

need() { # programs
    for tool in "$@"; do
        command -v "$tool" >/dev/null || { echo "$0: $tool is missing" >&2; exit 1; }
    done
    [ -n "${P2PFAAS:-}" ] || cargo build --release
}

work=$(mktemp -d)
pids=()
cleanup() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

start() { "$@" >>"$work/out.log" 2>&1 & pids+=($!); }
