"""Configuration files of the compared proxies, each set up as its manual advises for speed. Pure.

All keep connections to the upstream open, write no access log and use one worker. Whoever tells an identity strips the
client's Authorization field and what the client claims to be. `/socket` leads to an echo server for websockets.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IDENTITY = ("X-Actor-Id", "X-Actor-Role", "X-Actor-Auth", "X-Organization-Id", "X-Organization-Role")
_NGINX = """
daemon off; worker_processes 1; worker_rlimit_nofile {files}; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections {connections}; }}
http {{
  access_log off; keepalive_requests 100000000; default_type application/json; sendfile on; tcp_nopush on;
  client_max_body_size 0; client_body_buffer_size 64k;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  {around}
  server {{ listen 127.0.0.1:{port} backlog=4096; {inside} }}
}}
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a proxy listens and what stands behind it, all on 127.0.0.1.

    Attributes:
        decider: A gateway that is asked before each request; 0 where nobody asks.
    """

    own: int
    origin: int
    echo: int
    decider: int = 0


def nginx(folder: Path, port: int, inside: str, files: int, around: str = "") -> str:
    """Write an nginx of one server."""
    return _NGINX.format(
        folder=folder, port=port, inside=inside, around=around, files=files, connections=min(files, 20_000)
    )


def origin(folder: Path, port: int, small: int, files: int) -> str:
    """Write the upstream of all: small and large answers, the key set, and what it saw of the caller."""
    answer = '{"items":"' + "x" * (small - 12) + '"}'
    seen = '{"actor":"$http_x_actor_id","organization":"$http_x_organization_id","authorization":"$http_authorization"}'
    inside = f"""
    location = /jwks.json {{ root {folder}; }}
    location = /large {{ root {folder}; }}
    location = /seen {{ return 200 '{seen}'; }}
    location = /decide {{
      add_header X-Decided-Actor $http_x_actor_id; add_header X-Decided-Organization $http_x_organization_id;
      return 204;
    }}
    location / {{ return 200 '{answer}'; }}"""
    return nginx(folder, port, inside, files)


def nginx_proxy(folder: Path, ports: Ports, files: int) -> str:
    """Write nginx as a proxy; with a decider it asks that one by `auth_request`."""
    around = f"upstream origin {{ server 127.0.0.1:{ports.origin}; keepalive 1024; keepalive_requests 100000000; }}"
    passed = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;'
    asks = told = ""
    if ports.decider:
        around += f"upstream decider {{ server 127.0.0.1:{ports.decider}; keepalive 1024; "
        around += "keepalive_requests 100000000; }"
        asks = f"""
        location = /decide {{
          internal; {passed} proxy_pass http://decider; proxy_pass_request_body off;
          proxy_set_header Content-Length "";
        }}"""
        told = """auth_request /decide; auth_request_set $actor $upstream_http_x_decided_actor;
        auth_request_set $organization $upstream_http_x_decided_organization;
        proxy_set_header X-Actor-Id $actor; proxy_set_header X-Organization-Id $organization;
        proxy_set_header Authorization "";"""
    inside = f"""{asks}
    location = /socket {{
      {told} proxy_pass http://127.0.0.1:{ports.echo}; proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_read_timeout 1h;
    }}
    location / {{
      {told} {passed} proxy_pass http://origin; proxy_request_buffering off; proxy_max_temp_file_size 0;
    }}"""
    return nginx(folder, ports.own, inside, files, around)


def haproxy(ports: Ports, public_key: Path, issuer: str, files: int) -> str:
    """Write HAProxy with `jwt_verify`: signature, issuer and expiry are checked on each request."""
    stripped = "\n".join(f"  http-request del-header {name}" for name in IDENTITY)
    return f"""
global
  nbthread 1
  maxconn {min(files, 20_000) // 2 - 200}
defaults
  mode http
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  http-reuse always
frontend clients
  bind 127.0.0.1:{ports.own} backlog 4096
  http-request set-var(txn.bearer) http_auth_bearer
  http-request deny deny_status 401 unless {{ var(txn.bearer) -m found }}
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str RS256 }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{public_key}") 1 }}
  http-request set-var(txn.iss) var(txn.bearer),jwt_payload_query('$.iss')
  http-request deny deny_status 401 unless {{ var(txn.iss) -m str {issuer} }}
  http-request set-var(txn.now) date()
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request deny deny_status 401 unless {{ var(txn.exp),sub(txn.now) -m int gt 0 }}
{stripped}
  http-request set-header X-Actor-Id %[var(txn.bearer),jwt_payload_query('$.sub')]
  http-request del-header Authorization
  use_backend sockets if {{ path /socket }}
  default_backend origin
backend origin
  server origin 127.0.0.1:{ports.origin}
backend sockets
  server echo 127.0.0.1:{ports.echo}
"""


def caddy(ports: Ports) -> str:
    """Write a Caddyfile; with a decider it asks that one by `forward_auth`."""
    kept = "transport http {\n keepalive_idle_conns 2048\n keepalive_idle_conns_per_host 2048\n }"
    asks = ""
    if ports.decider:
        copied = "X-Decided-Actor>X-Actor-Id X-Decided-Organization>X-Organization-Id"
        asks = f"forward_auth 127.0.0.1:{ports.decider} {{\n uri /decide\n copy_headers {copied}\n {kept}\n }}\n"
        asks += "request_header -Authorization"
    return f"""
{{
  admin off
  auto_https off
  persist_config off
}}
http://:{ports.own} {{
  bind 127.0.0.1
  route {{
    {asks}
    reverse_proxy /socket 127.0.0.1:{ports.echo}
    reverse_proxy 127.0.0.1:{ports.origin} {{
      {kept}
    }}
  }}
}}
"""


def envoy(ports: Ports, jwks: str, issuer: str, *, cached: bool) -> str:
    """Write Envoy with `jwt_authn`; `cached` turns on its cache of verified tokens, which it leaves off by default."""
    provider: dict[str, Any] = {
        "issuer": issuer,
        "local_jwks": {"inline_string": jwks},
        "forward": False,
        "claim_to_headers": [{"header_name": "x-actor-id", "claim_name": "sub"}],
    }
    if cached:
        provider["jwt_cache_config"] = {"jwt_cache_size": 10_000, "jwt_max_token_size": 8192}
    filters = [
        _typed(
            "envoy.filters.http.jwt_authn",
            "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            providers={"clerk": provider},
            rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "clerk"}}],
        ),
        _typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router"),
    ]
    manager = _typed(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="clients",
        route_config={"virtual_hosts": [_envoy_routes()]},
        http_filters=filters,
        upgrade_configs=[{"upgrade_type": "websocket"}],
        stream_idle_timeout="0s",
    )
    listener = {"name": "clients", "address": _address(ports.own), "filter_chains": [{"filters": [manager]}]}
    clusters = [_envoy_cluster("origin", ports.origin), _envoy_cluster("echo", ports.echo)]
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}})


def _typed(name: str, kind: str, **settings: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/{kind}", **settings}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _envoy_routes() -> dict[str, Any]:
    return {
        "name": "all",
        "domains": ["*"],
        # Not x-actor-id: jwt_authn has set it by then, over whatever the client sent.
        "request_headers_to_remove": [name.lower() for name in IDENTITY[1:]],
        "routes": [
            {"match": {"path": "/socket"}, "route": {"cluster": "echo", "timeout": "0s"}},
            {"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "0s"}},
        ],
    }


def _envoy_cluster(name: str, port: int) -> dict[str, Any]:
    limit = {"max_connections": 20_000, "max_pending_requests": 20_000, "max_requests": 20_000}
    return {
        "name": name,
        "connect_timeout": "5s",
        "type": "STATIC",
        "circuit_breakers": {"thresholds": [limit]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
        },
    }
