# The node as an image: one static program on nothing. Builds for the machine that it is built on;
# Dockerfile.aarch64 cross-compiles.
#
#   docker build -t p2pfaas .
#   docker build -t p2pfaas --build-arg COMMIT=$(git rev-parse --short=12 HEAD) .

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
# A 64-bit kernel can run 32-bit programs: the compiler knows what it compiles for.
RUN rustc -vV | sed -n 's/^host: //p' > /target

# Dependencies first, as a layer that only Cargo.toml, Cargo.lock and our crates change.
COPY Cargo.toml Cargo.lock ./
COPY crates crates
# Empty programs stand for the node and for each benchmark that Cargo.toml names.
RUN mkdir src benches && touch src/lib.rs \
    && benches=$(sed -n '/^\[\[bench\]\]/,/^$/s|^name = "\(.*\)"|benches/\1.rs|p' Cargo.toml) \
    && echo 'fn main() {}' | tee src/main.rs $benches > /dev/null \
    && RUSTFLAGS='-C target-feature=+crt-static' \
       cargo build --release --locked --target "$(cat /target)"

# What `p2pfaas --version` says it was built from.
ARG COMMIT=unknown
COPY build.rs ./
COPY src src
# Cargo goes by times, and those of the empty program are later.
RUN touch src/main.rs src/lib.rs \
    && BUILD_COMMIT="$COMMIT" RUSTFLAGS='-C target-feature=+crt-static' \
       cargo build --release --locked --target "$(cat /target)"

# The image's files. Any user may write to /data, and replace what another one has written.
RUN mkdir -p /image/etc/ssl/certs /image/data && chmod 777 /image/data \
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && cp "target/$(cat /target)/release/p2pfaas" /image/ \
    && strip /image/p2pfaas

FROM scratch
COPY --from=build /image/ /
LABEL org.opencontainers.image.title="p2pfaas" \
      org.opencontainers.image.description="A node runtime for Functions-as-a-Service on edge and fog machines that share their work as peers" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
USER 65532:65532
VOLUME /data
# Scheduler, members of the cluster, discovery, learner, the learner's WebSocket.
EXPOSE 18080 18443 19000 19000/udp 19020 8765
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/p2pfaas", "health"]
ENTRYPOINT ["/p2pfaas"]
CMD ["node"]
