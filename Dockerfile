FROM python:3.12-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/packmule

# The dependencies before the source: a change of code then reuses this layer.
COPY requirements-image.lock /src/
RUN pip --python /opt/packmule/bin/python install --require-hashes --only-binary :all: --requirement /src/requirements-image.lock

WORKDIR /src
COPY . ./
RUN pip --python /opt/packmule/bin/python install --no-deps --no-build-isolation . \
 && pip --python /opt/packmule/bin/python uninstall --yes setuptools

FROM python:3.12-slim
RUN useradd --uid 10001 --create-home packmule \
 && install --directory --owner packmule --group packmule /data
COPY --from=build /opt/packmule /opt/packmule
ENV PATH=/opt/packmule/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PACKMULE_ENV=production \
    PACKMULE_DATA_DIR=/data \
    PACKMULE_HEALTH=127.0.0.1:9465
VOLUME /data
# Users' job modules go here. It is not writable at run time, so no job can plant code for the next one.
WORKDIR /app
# By number, so that a cluster can tell that it is not root.
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s --retries=3 CMD ["packmule", "health"]
ENTRYPOINT ["packmule"]
CMD ["worker"]
