# syntax=docker/dockerfile:1
# roomcast in an image of its own files alone: the program, the libraries it is linked to, and the authorities of TLS.
#   docker build --build-arg REVISION=$(git rev-parse HEAD) -t roomcast:0.1.0 .
# Base images are named by exact versions; give them by digest for a build that must come out the same for ever.
ARG NODE_IMAGE=node:22.21.1-bookworm-slim
ARG RUST_IMAGE=rust:1.95.0-slim-bookworm

# The scripts of the demo's page, which the program embeds: the official Socket.IO client and our helper.
FROM ${NODE_IMAGE} AS client
WORKDIR /build
COPY clients/ts/package.json clients/ts/package-lock.json clients/ts/
RUN --mount=type=cache,target=/root/.npm npm ci --prefix clients/ts --ignore-scripts --no-audit --no-fund
COPY tests/e2e/package.json tests/e2e/package-lock.json tests/e2e/
RUN --mount=type=cache,target=/root/.npm npm ci --prefix tests/e2e --ignore-scripts --no-audit --no-fund
COPY clients/ts/tsconfig.json clients/ts/
COPY clients/ts/src clients/ts/src
RUN npm run build --prefix clients/ts \
 && mkdir -p vendor/roomcast \
 && cp tests/e2e/node_modules/socket.io-client/dist/socket.io.esm.min.js vendor/socket.io.js \
 && cp clients/ts/dist/*.js vendor/roomcast/

FROM ${RUST_IMAGE} AS program
WORKDIR /build
# Without rust-toolchain.toml: the image's own compiler is the one that is pinned.
COPY Cargo.toml Cargo.lock build.rs ./
COPY loadtest loadtest
COPY src src
COPY --from=client /build/vendor src/web/vendor
ENV CARGO_PROFILE_RELEASE_STRIP=symbols
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,sharing=locked \
    cargo build --locked --release --bin roomcast \
 && install -D target/release/roomcast /image/usr/local/bin/roomcast
# What it is linked to, by the paths under which the loader looks; /data is for the reference services' database.
RUN ldd /image/usr/local/bin/roomcast > /tmp/ldd \
 && grep -o '/[^ ]*' /tmp/ldd > /tmp/libraries \
 && xargs --arg-file=/tmp/libraries cp --parents --dereference --target-directory=/image \
 && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
 && install -d -m 0755 -o 65532 -g 65532 /image/data \
 && install -d -m 1777 /image/tmp \
 && chroot --userspec=65532:65532 /image /usr/local/bin/roomcast --version

# The load test, in an image of its own: docker build --target load -t roomcast-load:0.1.0 .
FROM program AS load-program
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target,sharing=locked \
    cargo build --locked --release --package roomcast-load --bin roomcast-load \
 && install -D target/release/roomcast-load /load/usr/local/bin/roomcast-load
RUN ldd /load/usr/local/bin/roomcast-load > /tmp/ldd \
 && grep -o '/[^ ]*' /tmp/ldd > /tmp/libraries \
 && xargs --arg-file=/tmp/libraries cp --parents --dereference --target-directory=/load \
 && install -d -m 1777 /load/tmp \
 && cp -r loadtest/scenarios /load/scenarios \
 && chroot --userspec=65532:65532 /load /usr/local/bin/roomcast-load --version

FROM scratch AS load
COPY --from=load-program /load /
ENV PATH=/usr/local/bin
USER 65532:65532
WORKDIR /tmp
# What an agent listens on.
EXPOSE 7700
ENTRYPOINT ["/usr/local/bin/roomcast-load"]

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="roomcast" \
      org.opencontainers.image.description="A horizontally scalable Socket.IO chat node" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=program /image /
ENV PATH=/usr/local/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# Nobody, by number, so that Kubernetes can tell that it is not root.
USER 65532:65532
WORKDIR /data
# Clients, and operators: health, metrics, administration. Health is asked by whoever runs it, so there is no HEALTHCHECK.
EXPOSE 8080 9090
# A node stops when it is asked to: SIGTERM begins its drain.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/roomcast"]
CMD ["node"]
