# The API. `docker build -f deploy/images/serving.Dockerfile .`; with `--target serving-openvino` a second runtime for the same bundles.
#
# Root file system read-only: /tmp (uploads, up to FINSIGHT_MAX_UPLOAD each) as tmpfs or volume, and /var/cache/finsight (versions of the
# registry, which format is the fastest) as a volume. /bundle and /work are only read; the worker's image makes /work the same user's, too,
# since an empty volume takes its owner from whichever image is there last. docs/deploy.md.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/finsight
COPY constraints.txt deploy/images/serving.txt ./
RUN /opt/finsight/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt -r serving.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
# The package declares what the pipeline needs; serving.txt is the part of it that serving imports.
RUN /opt/finsight/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps . \
    && /opt/finsight/bin/python -m compileall -q /opt/finsight/lib \
    && /opt/finsight/bin/pip uninstall -q -y setuptools pip

FROM build AS build-openvino
RUN python -m pip --python /opt/finsight/bin/python install --no-cache-dir --disable-pip-version-check -c constraints.txt openvino

FROM python:3.11.14-slim-bookworm AS base
# git reads what is committed in /work, for orders of jobs. Its version is the distribution's, which the tag of the base names.
# The base's own Python brings what installs and builds packages, which nobody does here.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/* \
    && python -m pip uninstall -q -y --root-user-action=ignore wheel setuptools pip \
    && git config --system --add safe.directory /work \
    && useradd --no-log-init --no-create-home --uid 10001 --home-dir /tmp finsight \
    && mkdir -p /work /bundle /var/cache/finsight && chown finsight:finsight /work /var/cache/finsight
ENV PATH=/opt/finsight/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp FINSIGHT_CACHE=/var/cache/finsight
WORKDIR /work
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=90s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["finsight"]
CMD ["serve", "--host", "0.0.0.0", "--bundle", "/bundle"]
ARG VERSION=0.0.0 REVISION=unknown
LABEL org.opencontainers.image.title="FinSight" \
    org.opencontainers.image.description="Predictions and jobs over REST and WebSocket" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"

FROM base AS serving-openvino
COPY --from=build-openvino /opt/finsight /opt/finsight

FROM base AS serving
COPY --from=build /opt/finsight /opt/finsight
