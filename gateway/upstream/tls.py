"""TLS towards upstreams: always verified. There is no switch to turn that off; a private authority is a `ca_file`."""

import ssl


def verifying_context(ca_file: str = "") -> ssl.SSLContext:
    """A context that checks chain and host name, against the system's roots or against those in `ca_file` alone.

    Each transport needs its own: it sets the protocols that it offers (ALPN) on it. Raises OSError (ssl.SSLError
    included) for a file that can't be read or holds no certificate.
    """
    return ssl.create_default_context(cafile=ca_file or None)
