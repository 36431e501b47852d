# Rota in a container: `docker build -t rota .`, or `podman build --format docker -t rota .` (OCI's own format has no
# HEALTHCHECK). Runs as a user without a name, with a read-only root. docs/operation/containers.md says how.
ARG PYTHON_IMAGE=python:3.13-slim

# What the product is made of and built with, as the lock files have it, each file with its hash. A package index other
# than pip's own, its password or its certificate come as the secrets `pip` (a pip.conf) and `ca`, which no layer keeps.
FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ONLY_BINARY=:all:
WORKDIR /src
COPY requirements.lock requirements-dev.lock ./
RUN --mount=type=secret,id=pip,target=/etc/pip.conf --mount=type=secret,id=ca,target=/run/secrets/ca \
    python3 -m venv /tools \
 && python3 -m venv --without-pip /opt/rota \
 && /tools/bin/pip --python /opt/rota/bin/python3 install --no-deps --require-hashes -r requirements.lock \
 && for tool in hatchling packaging pathspec pluggy trove-classifiers; do \
      sed -n "/^$tool==/,/^ *# via/p" requirements-dev.lock; done >/tmp/tools.lock \
 && /tools/bin/pip install --no-deps --require-hashes -r /tmp/tools.lock
COPY pyproject.toml README.md LICENSE alembic.ini ./
COPY app app
COPY migrations migrations
RUN /tools/bin/pip wheel --no-index --no-deps --no-build-isolation -w /wheels . \
 && /tools/bin/pip --python /opt/rota/bin/python3 install --no-index --no-deps /wheels/*.whl

FROM ${PYTHON_IMAGE}
# Nothing here installs further programs. The folder is where a volume for published checkpoints goes: a new volume
# takes over its owner.
RUN rm -rf /usr/local/lib/python3*/site-packages/pip* /usr/local/lib/python3*/ensurepip /usr/local/bin/pip* \
 && install -d -o 10001 -g 10001 /var/lib/rota/checkpoints
COPY --from=build /opt/rota /opt/rota
# Modules come from the installation only, never from the folder that a command runs in.
ENV PATH=/opt/rota/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 ROTA_HOST=0.0.0.0
WORKDIR /opt/rota
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python3", "-m", "app.observability.alive"]
ENTRYPOINT ["rota"]
CMD ["serve"]
