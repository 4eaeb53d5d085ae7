# The tracking server and model registry, in the version that the package is pinned to. `docker build -f deploy/images/mlflow.Dockerfile .`
#
# Root file system read-only: /tmp as tmpfs, and /var/lib/mlflow (its SQLite database) as a volume.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/mlflow
COPY constraints.txt ./
RUN /opt/mlflow/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt mlflow boto3 \
    && /opt/mlflow/bin/python -m compileall -q /opt/mlflow/lib

FROM python:3.11.14-slim-bookworm AS mlflow
RUN useradd --no-log-init --no-create-home --uid 10001 --home-dir /tmp mlflow \
    && mkdir -p /var/lib/mlflow && chown mlflow:mlflow /var/lib/mlflow
COPY --from=build /opt/mlflow /opt/mlflow
ENV PATH=/opt/mlflow/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=1 MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
WORKDIR /var/lib/mlflow
USER 10001:10001
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:5000/health', timeout=4)"]
ENTRYPOINT ["mlflow"]
CMD ["server", "--host", "0.0.0.0", "--backend-store-uri", "sqlite:////var/lib/mlflow/mlflow.db", "--artifacts-destination", "/var/lib/mlflow/artifacts"]
ARG VERSION=0.0.0 REVISION=unknown
LABEL org.opencontainers.image.title="FinSight's MLflow" \
    org.opencontainers.image.description="MLflow's server as FinSight's constraints pin it" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
