# The server, from this repository, as an unprivileged user: `docker build --tag kvasir .`

FROM python:3.12-slim AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY clients/python/src clients/python/src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels pip install --no-cache-dir /wheels/*.whl \
    && useradd --system --uid 10001 kvasir \
    && install -d -o kvasir -m 0700 /data
USER kvasir
WORKDIR /data
VOLUME /data
ENV KVASIR_DATA_DIR=/data KVASIR_HTTP=0.0.0.0:8901 KVASIR_NEMESIS=off KVASIR_LOG_FORMAT=json
EXPOSE 8901
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8901/readyz', timeout=2)"]
ENTRYPOINT ["kvasir"]
CMD ["serve"]
