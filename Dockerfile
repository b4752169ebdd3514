# Two stages: the first builds a virtual environment, the second holds that and nothing that builds.
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/tollway
ENV PATH=/opt/tollway/bin:$PATH
COPY requirements.lock ./
RUN pip install --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE gateway.yaml ./
COPY config config
COPY lua lua
COPY gateway gateway
# The vocabulary is fetched here, so that a running gateway never reaches out for it.
RUN pip install --no-deps --no-build-isolation . \
    && tollway tokenizer install --encoding o200k_base --directory /opt/tollway/tokenizer

FROM python:3.11.14-slim-bookworm
RUN groupadd --system --gid 10001 tollway \
    && useradd --system --uid 10001 --gid tollway --home-dir /data --shell /usr/sbin/nologin tollway \
    && install --directory --owner=tollway --group=tollway --mode=700 /data /etc/tollway
COPY --from=build /opt/tollway /opt/tollway
# hadolint ignore=DL3064  # a directory, no token
ENV PATH=/opt/tollway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TOLLWAY_HOST=0.0.0.0 \
    TOLLWAY_PORT=8080 \
    TOLLWAY_DATA_DIR=/data \
    TOLLWAY_TOKENIZER_DIR=/opt/tollway/tokenizer
# A gateway.yaml mounted here is used in place of the one that is shipped.
WORKDIR /etc/tollway
USER 10001:10001
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["python", "-c", "import http.client, os; link = http.client.HTTPConnection('127.0.0.1', int(os.environ['TOLLWAY_PORT']), timeout=3); link.request('GET', '/_tollway/health/live'); raise SystemExit(link.getresponse().status != 200)"]
ENTRYPOINT ["tollway"]
CMD ["serve"]
