"""nginx as a target: what many put before an API today. A map of keys, rate limits, an access log, no tokens."""

import shutil

from tests.bench.processes import free_port
from tests.bench.target import BEARER, SPENT_BEARER, Candidate, Ground, Target, serve

CONFIG = """
worker_processes 1; daemon off; pid {scratch}/pid; error_log {scratch}/errors;
events {{ worker_connections 8192; }}
http {{
  access_log {scratch}/requests combined buffer=64k;
  map $http_authorization $known {{ default 0; "Bearer sk-bench" 1; "Bearer sk-spent" 1; }}
  map $http_authorization $spent {{ default ""; "Bearer sk-spent" 1; }}
  limit_req_zone $http_authorization zone=plans:10m rate=500000r/s;
  limit_req_zone $spent zone=spent:1m rate=1r/m;
  limit_req_status 429;
  upstream mock {{ server 127.0.0.1:{mock_port}; keepalive 1024; keepalive_requests 10000000; }}
  {tls_upstream}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
  client_max_body_size 8m; client_body_buffer_size 256k;
  client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy; fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi; scgi_temp_path {scratch}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096; keepalive_requests 10000000;
    if ($known = 0) {{ return 401; }}
    limit_req zone=plans burst=10000 nodelay; limit_req zone=spent;
    location / {{ proxy_pass http://mock; }}
    {tls_location}
  }}
}}
"""

TLS_UPSTREAM = "upstream tls {{ server 127.0.0.1:{port}; keepalive 1024; keepalive_requests 10000000; }}"
TLS_LOCATION = """location /tls/ {{
      proxy_pass https://tls; proxy_ssl_verify on; proxy_ssl_trusted_certificate {ca_file}; proxy_ssl_name localhost;
    }}"""


def start_nginx(ground: Ground) -> Target:
    """One nginx with one worker and keep-alive to the mock."""
    port, scratch, tls = free_port(), ground.directory("nginx"), ground.tls
    config = scratch / "nginx.conf"
    text = CONFIG.format(
        scratch=scratch,
        port=port,
        mock_port=ground.mock_port,
        tls_upstream=TLS_UPSTREAM.format(port=tls.port) if tls else "",
        tls_location=TLS_LOCATION.format(ca_file=tls.ca_file) if tls else "",
    )
    config.write_text(text)
    pid = serve(ground, "nginx", [nginx(), "-c", config, "-p", scratch], port, BEARER)
    return Target("nginx", port, pid, spent_headers=SPENT_BEARER, tls=tls is not None)


def nginx() -> str:
    """Where nginx is; empty where it is not installed."""
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") or ""


def nginx_missing() -> str:
    """What to install to have it."""
    return "" if nginx() else "apt-get install nginx-light"


NGINX = Candidate("nginx", "map of keys, limit_req, log, proxy_pass", nginx_missing, start_nginx)
