"""From an upstream's URL to its `Origin`, checked once at start so that no request meets a bad address.

Fails with ValueError, whose text says what is wrong with the URL; the settings loader adds where it stands.
"""

from urllib.parse import urlsplit

from gateway.upstream.transport import Origin

_DEFAULT_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> Origin:
    """The origin of an http or https URL such as `https://api.example.com/base`; IPv6 hosts stand in brackets.

    A query, a fragment, credentials, white space and control characters are refused: none of them could be honoured.
    """
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise ValueError("the URL holds white space, control or non-ASCII characters")
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS:
        raise ValueError("the URL must start with http:// or https://")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ValueError("the URL must not have a query or a fragment")
    if "@" in parts.netloc:
        raise ValueError("the URL must not carry credentials")
    host = parts.hostname or ""
    if any(not label or len(label) > 63 for label in host.removesuffix(".").split(".")) or len(host) > 253:
        raise ValueError("the URL has no valid host")
    port = _DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
    if port == 0:
        raise ValueError("the port must be between 1 and 65535")
    return Origin(parts.scheme, host, port, parts.path.rstrip("/"))


def host_field(origin: Origin) -> bytes:
    """The value of the `host` field (RFC 9110 §7.2): the port only where it is not the scheme's own."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return (host if origin.port == _DEFAULT_PORTS[origin.scheme] else f"{host}:{origin.port}").encode()
