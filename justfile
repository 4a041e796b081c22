# The daily commands; `just` lists them. https://just.systems

_default:
    @just --list

# Build the program for this machine.
build:
    cargo build --locked --release

# Run the tests, or those whose names contain FILTER.
test *FILTER:
    cargo test --locked {{FILTER}}

# Run the histories of membership that take minutes: a thousand nodes, and half an hour of stalls.
long:
    CARGO_PROFILE_TEST_OPT_LEVEL=2 cargo test --locked --lib membership::swim -- --include-ignored

# Chaos with all faults, as root: some twenty minutes; SEED repeats a run. TABLE is where the table is written to.
chaos SEED='' TABLE='target/chaos.md':
    CHAOS=long CHAOS_SEED={{SEED}} CHAOS_TABLE={{TABLE}} cargo test --locked --test chaos

# Everything that a change must pass.
ci:
    .ci/run

# Format the code, also that of the programs beside the node.
fmt:
    cargo fmt --all
    cargo fmt --manifest-path functions/fn-face/Cargo.toml
    cargo fmt --manifest-path fuzz/Cargo.toml

# Lint, with warnings as errors, and check the licences of dependencies.
lint:
    cargo clippy --locked --all-targets -- -D warnings
    cargo metadata --locked --format-version 1 | .ci/licences

# Make the documentation of the code, with warnings as errors.
doc:
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

# Measure the learner; benches/README.md has the other benchmarks.
bench:
    cargo bench --locked --bench learner

# Fuzz TARGET for some SECONDS; needs cargo-fuzz. `cargo fuzz list` names the targets.
fuzz TARGET SECONDS='600':
    mkdir -p fuzz/corpus/{{TARGET}}
    RUSTC_BOOTSTRAP=1 cargo fuzz run -s none {{TARGET}} fuzz/corpus/{{TARGET}} fuzz/seeds/{{TARGET}} -- \
        -max_total_time={{SECONDS}} -max_len=4096 -malloc_limit_mb=64 -rss_limit_mb=1024

# Make a Debian package of the release build.
deb: build
    deploy/deb.sh target/release/p2pfaas
