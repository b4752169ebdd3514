"""The upstream over TLS: an nginx that ends TLS before the mock, with a certificate of the bench's own authority.

On the core of the mock. Its part in a figure is the same for all targets.
"""

import trustme

from tests.bench.nginx import nginx
from tests.bench.processes import free_port, running, wait_until_listening
from tests.bench.target import Ground, TlsUpstream

CONFIG = """
worker_processes 1; daemon off; pid {scratch}/pid; error_log {scratch}/errors;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  upstream mock {{ server 127.0.0.1:{mock_port}; keepalive 1024; keepalive_requests 10000000; }}
  client_max_body_size 8m; client_body_buffer_size 256k;
  client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy; fastcgi_temp_path {scratch}/fastcgi;
  uwsgi_temp_path {scratch}/uwsgi; scgi_temp_path {scratch}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl backlog=4096; keepalive_requests 10000000; keepalive_timeout 600s;
    ssl_certificate {scratch}/certificate.pem; ssl_certificate_key {scratch}/certificate.pem;
    location / {{ proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


def start_tls_front(ground: Ground) -> TlsUpstream:
    """Start it, for as long as the ground's stack. Raises BenchError."""
    port, scratch = free_port(), ground.directory("tls")
    authority = trustme.CA()
    ca_file = scratch / "authority.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        str(scratch / "certificate.pem")
    )
    config = scratch / "nginx.conf"
    config.write_text(CONFIG.format(scratch=scratch, port=port, mock_port=ground.mock_port))
    log = ground.scratch / "tls.log"
    process = ground.stack.enter_context(running([nginx(), "-c", config, "-p", scratch], ground.cores.others, log))
    wait_until_listening(process, log, port)
    return TlsUpstream(port, ca_file)
