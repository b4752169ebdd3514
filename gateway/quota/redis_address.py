"""Where a Redis server is and how to greet it, read from a URL.

`redis://[user:password@]host[:port][/db]`, `rediss://…[?ssl_ca_certs=file]` (certificate and host name verified) and
`unix://[user:password@]/path[?db=n]`. A URL that says anything else is a ValueError, whose text holds no part of it
that could be a password.
"""

import ssl
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """One server: a socket path, or a host and port (with TLS where `ssl_context` is set), credentials and database."""

    host: str = ""
    port: int = 6379
    path: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    database: int = 0
    ssl_context: ssl.SSLContext | None = None

    def __str__(self) -> str:
        """The address without its credentials, fit for a log."""
        return self.path or f"{self.host}:{self.port}"


def address_of(url: str) -> RedisAddress:
    """The address that a URL means. Raises ValueError for one that can't be understood."""
    parts, port = _split(url)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("a Redis URL begins with redis://, rediss:// or unix://")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    is_unix = parts.scheme == "unix"
    place = unquote(parts.path)
    database = options.pop("db", "0" if is_unix else place.strip("/") or "0")
    if not database.isdecimal():
        raise ValueError("a Redis URL's database is a number")
    ca_file = options.pop("ssl_ca_certs", None)
    if options:
        raise ValueError(f"a Redis URL has no option {min(options)!r}")
    if not (place if is_unix else parts.hostname):
        raise ValueError("a Redis URL names a socket path" if is_unix else "a Redis URL names a host")
    return RedisAddress(
        host="" if is_unix else parts.hostname or "",
        port=port or 6379,
        path=place if is_unix else "",
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=int(database),
        ssl_context=_trusting(ca_file) if parts.scheme == "rediss" else None,
    )


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:
        # Raised anew: urlsplit's own text may quote a password that was not percent-encoded.
        raise ValueError("a Redis URL is scheme://user:password@host:port/db, percent-encoded") from None
    return parts, port


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"ssl_ca_certs {ca_file!r} can't be read: {error}") from error
