"""What one text value of the settings has to look like, beyond its type.

Each check returns what is wrong and how to mend it, or "" where the value is fine. None quotes the value: addresses and
keys are secrets.
"""

import difflib
import re
import zoneinfo
from collections.abc import Iterable
from ipaddress import ip_network
from urllib.parse import SplitResult, parse_qsl, urlsplit

SANDBOX = "sandbox"
"""In place of an upstream's address: the upstream that is built in."""

_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_ROUTE = re.compile(r"(/[A-Za-z0-9._~!$&'()+,;=:@-]+)*(/|/\*)?")
_ENCODINGS = ("o200k_base", "cl100k_base", "o200k_harmony", "p50k_base", "p50k_edit", "r50k_base", "gpt2")
_SECRET_CHARACTERS = 32
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_LONGEST_WORD = 64
_CREDENTIAL_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"}
)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A tail for an error text: the known word nearest to this one, else all of them."""
    words = [str(one) for one in known]
    near = difflib.get_close_matches(word, words, n=1) if len(word) <= _LONGEST_WORD else []
    if near:
        return f'; did you mean "{near[0]}"?'
    return "; known are " + ", ".join(one or "nothing" for one in words) if words else ""


def upstream_url(text: str) -> str:
    """`sandbox`, or what `target_url` takes."""
    wrong = "" if text == SANDBOX else target_url(text)
    return wrong.replace("if need be", "if need be, or sandbox")


def target_url(text: str) -> str:
    """An http(s) origin with at most a base path."""
    url = _split(text)
    if url is None or url.scheme not in {"http", "https"} or not _host_is_fine(url):
        return 'is not an address; write "http://host:port" or "https://host", with a base path if need be'
    if "@" in url.netloc:
        return "has a user or password in it; put the credential into api_key"
    if "?" in text or "#" in text:
        return "has a query or fragment; an upstream's address is scheme, host, port and base path"
    return ""


def network(text: str) -> str:
    """An address, or a network in CIDR form."""
    try:
        ip_network(text)
    except ValueError:
        return "is not a network; write it like 10.0.0.0/8, 2001:db8::/32 or 192.0.2.7"
    return ""


def jwks_url(text: str) -> str:
    """Nothing, or an address that nobody in between can answer for."""
    if not text:
        return ""
    url = _split(text)
    if url is None or url.scheme not in {"http", "https"} or not _host_is_fine(url) or "@" in url.netloc:
        return 'is not an address; write "https://host/path"'
    if url.scheme == "http" and url.hostname not in {"localhost", "127.0.0.1", "::1"}:
        return "has to be https, unless it is on this machine: who answers in its place could sign tokens"
    return ""


def proxy_url(text: str) -> str:
    """Nothing, or an http(s) forward proxy."""
    if not text:
        return ""
    url = _split(text)
    if url is None or url.scheme not in {"http", "https"} or not _host_is_fine(url):
        return 'is not a proxy\'s address; write "http://host:port"'
    return ""


def redis_url(text: str) -> str:
    """Nothing, one server's address, or those of some sentinels or nodes of a Cluster."""
    if not text:
        return ""
    scheme, _, kind = text.partition("://")[0].partition("+")
    if kind and scheme in {"redis", "rediss"} and kind in {"sentinel", "cluster"}:
        return _many_hosts(text, kind)
    url = _split(text)
    if url is not None and url.scheme == "unix" and not url.hostname and len(url.path) > 1:
        return ""
    if url is None or url.scheme not in {"redis", "rediss"} or not _host_is_fine(url):
        return (
            'is not a Redis address; write "redis://host:6379/0", "rediss://…", "unix:///path",'
            ' "redis+sentinel://host,host/service" or "redis+cluster://host,host", or leave it empty'
        )
    return ""


def _many_hosts(text: str, kind: str) -> str:
    """What is wrong with the URL of sentinels or of a Cluster."""
    before, _, query = text.partition("://")[2].partition("?")
    place, _, path = before.partition("/")
    credentials, at, hosts = place.rpartition("@")
    urls = [_split(f"redis://{credentials}{at}{host}/?{query}") for host in hosts.split(",")]
    if not all(url is not None and _host_is_fine(url) for url in urls):
        return f'has a host that is none; write "redis+{kind}://host:port,host:port", IPv6 addresses in brackets'
    service, _, database = path.partition("/")
    if kind == "cluster":
        return "names a database, of which a Cluster has but one" if path.strip("/") else ""
    if not service:
        return 'names no service; write "redis+sentinel://host:26379,host:26379/service"'
    return "" if database.isdecimal() or not database else "has a database that is no number"


def database_url(text: str) -> str:
    """Nothing, `postgresql://…` or `sqlite:///path`."""
    if not text:
        return ""
    scheme = text.partition(":")[0]
    if scheme in {"postgres", "postgresql"}:
        return _postgres_url(text)
    if scheme.startswith("postgresql+"):
        return "names a driver; write postgresql://user:password@host/database"
    if not text.startswith("sqlite:///") or len(text) == len("sqlite:///"):
        return (
            "is not a database's address; write postgresql://user:password@host/database or sqlite:///path, or leave "
            "it empty for SQLite in data_dir"
        )
    return ""


def _postgres_url(text: str) -> str:
    url = _split(text)
    if url is None or not (_host_is_fine(url) or ("host=" in url.query and not url.hostname)):
        return (
            "is not a PostgreSQL address; write postgresql://user:password@host:5432/database, and percent-encode what "
            "is special in the password"
        )
    if not url.path.strip("/") and "dbname=" not in url.query:
        return "names no database; write postgresql://user:password@host/database"
    modes = [value for name, value in parse_qsl(url.query) if name == "sslmode"]
    if modes and modes[-1] not in _SSL_MODES:
        return "has an sslmode that is not known" + did_you_mean(modes[-1], _SSL_MODES)
    return ""


def credential(text: str) -> str:
    """Nothing, or what can stand in a header field."""
    if all("!" <= letter <= "~" for letter in text):
        return ""
    return "has a space, a line end or a letter outside ASCII in it, which no header can carry"


def digest_secret(text: str) -> str:
    """Nothing, or a secret too long to guess."""
    if not text or len(text) >= _SECRET_CHARACTERS:
        return ""
    return f"is too short to be safe: {_SECRET_CHARACTERS} characters at least, for example of `openssl rand -hex 32`"


def stripe_key(text: str) -> str:
    """Nothing, or a key that Stripe lets a server read with."""
    if not text or (text.startswith(("sk_", "rk_")) and not credential(text)):
        return ""
    return "is not a secret key of Stripe's; it begins with sk_ or rk_ (pk_ is the one for browsers)"


def stripe_secret(text: str) -> str:
    """Nothing, or a webhook's signing secret."""
    if not text or (text.startswith("whsec_") and not credential(text)):
        return ""
    return "is not a webhook's signing secret; it begins with whsec_ (Stripe shows it beside the webhook's address)"


def api_base(text: str) -> str:
    """An http(s) origin."""
    url = _split(text)
    if url is None or url.scheme not in {"http", "https"} or not _host_is_fine(url) or url.path.strip("/"):
        return 'is not an address; write "https://host" or "http://host:port", without a path'
    return ""


def prefix_path(text: str) -> str:
    """A path that Tollway's own endpoints can sit under."""
    if _PREFIX.fullmatch(text) and not _has_dots(text):
        return ""
    return "has to be a plain path like /_tollway: a slash in front, none at the end"


def route_path(text: str) -> str:
    """An exact path, or a prefix that ends in `/*`."""
    if not text.startswith("/"):
        return "has to begin with a slash"
    if "*" in text and not (text.endswith("/*") and text.count("*") == 1):
        return "may have one *, at its end, after a slash: /v1/*"
    if _ROUTE.fullmatch(text) and not _has_dots(text):
        return ""
    return "is not a plain path: no query, no empty or dotted parts, nothing percent-encoded"


def plain_path(text: str) -> str:
    """A path to be asked for, with a query if need be."""
    if text.startswith("/") and all("!" <= letter <= "~" for letter in text) and "#" not in text:
        return ""
    return "has to be a path like /health: a slash in front, no spaces"


def time_zone(text: str) -> str:
    """A name of the IANA time zone database."""
    try:
        zoneinfo.ZoneInfo(text)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        hint = did_you_mean(text, zoneinfo.available_timezones())
        return "is not a time zone" + (hint if "did you mean" in hint else "; write a name like UTC or Europe/Berlin")
    return ""


def encoding(text: str) -> str:
    """A vocabulary that tiktoken knows."""
    return "" if text in _ENCODINGS else "is not an encoding" + did_you_mean(text, _ENCODINGS)


def id_header(text: str) -> str:
    """Nothing, or a header whose values may be written down."""
    return "carries credentials; name a header that holds an id" if text in _CREDENTIAL_HEADERS else ""


def _split(text: str) -> SplitResult | None:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return None
    plain = all("!" <= letter <= "~" for letter in text)
    return url if plain and port != 0 else None


def _host_is_fine(url: SplitResult) -> bool:
    return bool(url.hostname and _HOST.fullmatch(url.hostname))


def _has_dots(path: str) -> bool:
    return any(part in {".", ".."} for part in path.split("/"))
