# Worker and trainer: the whole package with torch, on a GPU where the engine gives one (`--gpus all`), else on CPUs.
# `docker build -f deploy/images/trainer.Dockerfile .`; run in a clone of the repository at /work.
#
# Root file system read-only: /tmp as tmpfs; /work (the clone: DVC's cache, models, reports) and /var/cache/finsight (backbones,
# versions) as volumes that uid 10001 may write, and /metrics where FINSIGHT_METRICS_DIR names it. docs/deploy.md.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS build
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /src
RUN python3 -m venv /opt/finsight
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
# torch's wheels bring cuBLAS, cuDNN and NCCL: of CUDA's images the smallest is enough.
RUN /opt/finsight/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt . \
    && /opt/finsight/bin/python -m compileall -q /opt/finsight/lib

FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS trainer
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends git python3 && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /work \
    && git config --system --add safe.directory /repository && git config --system --add safe.directory /repository/.git \
    && git config --system user.name finsight && git config --system user.email worker@finsight.invalid \
    && useradd --no-log-init --no-create-home --uid 10001 --home-dir /tmp finsight \
    && mkdir -p /work /bundle /metrics /var/cache/finsight && chown finsight:finsight /work /metrics /var/cache/finsight
COPY --from=build /opt/finsight /opt/finsight
# DVC would keep its site cache below /var/tmp otherwise.
ENV PATH=/opt/finsight/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp FINSIGHT_CACHE=/var/cache/finsight \
    DVC_SITE_CACHE_DIR=/tmp/dvc
WORKDIR /work
USER 10001:10001
STOPSIGNAL SIGTERM
# Of a worker in /work; a training by hand has none, and says --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 \
    CMD ["finsight", "worker", "--health", "live"]
ENTRYPOINT ["finsight"]
CMD ["worker"]
ARG VERSION=0.0.0 REVISION=unknown
LABEL org.opencontainers.image.title="FinSight worker and trainer" \
    org.opencontainers.image.description="Runs the pipeline and the jobs of the service" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
