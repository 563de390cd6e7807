# An image with the tap and a target, target-postgres. The tap is its entry point, and runs the target.
#
#   podman build --tag streamduo-loader:0.1.0 .
#   podman run --rm --env-file orders.env streamduo-loader:0.1.0 -c ENV -- target-postgres --config ENV
#
# For another target, name a list of pinned packages: --build-arg TARGET_REQUIREMENTS=tests/ecosystem/requirements-jsonl.txt
ARG RUST_IMAGE=rust:1.95-bookworm
ARG DEBIAN_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS tap
WORKDIR /src
COPY . .
RUN cargo build --locked --release --package tap-streamduo --bin tap-streamduo

FROM ${DEBIAN_IMAGE} AS target
RUN apt-get update && apt-get install --yes --no-install-recommends python3-pip
ARG TARGET_REQUIREMENTS=tests/ecosystem/requirements-postgres.txt
COPY ${TARGET_REQUIREMENTS} /requirements.txt
RUN python3 -m venv --without-pip /opt/target \
 && pip --python /opt/target/bin/python install --no-cache-dir --requirement /requirements.txt

FROM ${DEBIAN_IMAGE}
LABEL org.opencontainers.image.title="tap-streamduo with a Singer target" \
      org.opencontainers.image.description="Loads the unread records of a StreamDuo stream" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="MIT"
# The CAs that the tap trusts, and the target's Python.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 \
 && rm -rf /var/cache/apt/* /var/lib/apt/lists/*
COPY --from=target /opt/target /opt/target
COPY --from=tap /src/target/release/tap-streamduo /usr/local/bin/
ENV PATH=/opt/target/bin:/usr/local/bin:/usr/bin:/bin
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
# The tap reads no more, the target commits what it has, and the tap marks that.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tap-streamduo"]
