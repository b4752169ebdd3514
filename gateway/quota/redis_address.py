"""Where Redis is and how to greet it, read from a URL.

`redis://[user:password@]host[:port][/db]`, `unix://[user:password@]/path[?db=n]`,
`redis+sentinel://[user:password@]host[:port],…/service[/db][?sentinel_username=…&sentinel_password=…]` and
`redis+cluster://[user:password@]host[:port],…`. With `rediss` for `redis`, all connections are TLS (certificate and
host name verified), with the options `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile`, each a file. A URL that says
anything else is a ValueError, whose text holds no part of it that could be a password.
"""

import ssl
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

SENTINEL_PORT = 26379


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


@dataclass(frozen=True, slots=True)
class SentinelPlace:
    """Where to ask for the master of `service`. `server` is that master but for its host and port."""

    sentinels: tuple[RedisAddress, ...]
    service: str
    server: RedisAddress


@dataclass(frozen=True, slots=True)
class ClusterPlace:
    """Some nodes of a Cluster, from which the others are learned."""

    seeds: tuple[RedisAddress, ...]


Place = RedisAddress | SentinelPlace | ClusterPlace


def place_of(url: str) -> Place:
    """The place that a URL means. Raises ValueError for one that can't be understood."""
    scheme, _, kind = url.partition("://")[0].partition("+")
    if kind == "sentinel":
        return _sentinel_place(url, scheme)
    if kind == "cluster":
        seeds = _each_host(url, scheme)
        if seeds[0].database:
            raise ValueError("a Redis Cluster has no database but 0: its URL is redis+cluster://host:port,host:port")
        return ClusterPlace(seeds)
    return address_of(url)


def address_of(url: str) -> RedisAddress:
    """The address of the one server that a URL means. Raises ValueError for one that can't be understood."""
    parts, port = _split(url)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError(
            "a Redis URL begins with redis://, rediss:// or unix://, or redis+sentinel://, rediss+sentinel://,"
            " redis+cluster:// or rediss+cluster://"
        )
    options = _options(parts.query)
    is_unix = parts.scheme == "unix"
    place = unquote(parts.path)
    database = options.pop("db", "0" if is_unix else place.strip("/") or "0")
    if not database.isdecimal():
        raise ValueError("a Redis URL's database is a number")
    trusted = [options.pop(name, None) for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")]
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
        ssl_context=_trusting(*trusted) if parts.scheme == "rediss" else None,
    )


def _sentinel_place(url: str, scheme: str) -> SentinelPlace:
    _, _, rest = url.partition("://")
    before, mark, query = rest.partition("?")
    hosts, _, path = before.partition("/")
    service, _, database = path.partition("/")
    if not service:
        raise ValueError("a Sentinel URL names a service: redis+sentinel://host:26379,host:26379/service/0")
    options = _options(query)
    username, password = (options.get(f"sentinel_{name}", "") for name in ("username", "password"))
    kept = "&".join(one for one in query.split("&") if not one.startswith(("sentinel_username=", "sentinel_password=")))
    servers = _each_host(f"{scheme}://{hosts}/{database}{mark}{kept}", scheme, SENTINEL_PORT)
    sentinels = tuple(replace(one, username=username, password=password, database=0) for one in servers)
    return SentinelPlace(sentinels, unquote(service), servers[0])


def _each_host(url: str, scheme: str, port: int = 6379) -> tuple[RedisAddress, ...]:
    """One address for each of the hosts between commas, all with the URL's credentials, path and options."""
    if scheme not in {"redis", "rediss"}:
        raise ValueError("a Redis URL of many hosts begins with redis+ or rediss+")
    rest = url.partition("://")[2]
    ends = min(at for at in (rest.find("/"), rest.find("?"), len(rest)) if at >= 0)
    credentials, at, hosts = rest[:ends].rpartition("@")
    addresses = []
    for host in hosts.split(","):
        address = address_of(f"{scheme}://{credentials}{at}{host}{rest[ends:]}")
        addresses.append(address if _split(f"redis://{host}")[1] else replace(address, port=port))
    return tuple(addresses)


def _options(query: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(query).items()}


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:
        # Raised anew: urlsplit's own text may quote a password that was not percent-encoded.
        raise ValueError("a Redis URL is scheme://user:password@host:port/db, percent-encoded") from None
    return parts, port


def _trusting(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ValueError(f"ssl_ca_certs {ca_file!r} can't be read: {error}") from error
    if cert_file or key_file:
        try:
            context.load_cert_chain(cert_file or "", key_file)
        except OSError as error:
            raise ValueError(
                f"ssl_certfile {cert_file!r} and ssl_keyfile {key_file!r} can't be used: {error}"
            ) from error
    return context
