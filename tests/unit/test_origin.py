"""An upstream's URL is understood or refused at start, never at the first request."""

import pytest

from gateway.upstream.origin import host_field, origin_of
from gateway.upstream.transport import Origin


@pytest.mark.parametrize(
    ("url", "origin", "host"),
    [
        ("http://a.example", Origin("http", "a.example", 80), b"a.example"),
        ("https://a.example/", Origin("https", "a.example", 443), b"a.example"),
        ("HTTPS://A.Example:443/v1/", Origin("https", "a.example", 443, "/v1"), b"a.example"),
        ("http://a.example:443/v1/x", Origin("http", "a.example", 443, "/v1/x"), b"a.example:443"),
        ("http://127.0.0.1:8000", Origin("http", "127.0.0.1", 8000), b"127.0.0.1:8000"),
        ("http://[::1]:8000/a", Origin("http", "::1", 8000, "/a"), b"[::1]:8000"),
        ("https://[2001:db8::1]", Origin("https", "2001:db8::1", 443), b"[2001:db8::1]"),
        ("http://localhost", Origin("http", "localhost", 80), b"localhost"),
    ],
)
def test_a_url_says_where_to_connect_and_what_host_to_name(url: str, origin: Origin, host: bytes) -> None:
    """RFC 9110 §7.2: a wrong host field reaches another customer's virtual host."""
    assert origin_of(url) == origin
    assert host_field(origin) == host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.example",
        "//a.example",
        "ftp://a.example",
        "http://",
        "http:///v1",
        "http://:80",
        "http://a..example",
        "http://" + "a" * 64 + ".example",
        "http://a.example:0",
        "http://a.example:99999",
        "http://a.example:port",
        "http://user:secret@a.example",
        "http://a.example/?q=1",
        "http://a.example/#f",
        "http://a.example/?",
        "http://a.example/a b",
        "http://a.example/\r\nx: y",
        "http://a.example\\@b.example",
        "http://[::1",
        "http://[nonsense]",
        "http://bücher.example",
    ],
)
def test_a_url_that_cannot_be_honoured_is_refused(url: str) -> None:
    """An operator must learn of a typing error from `check`, not from a caller."""
    with pytest.raises(ValueError, match=r"\w+"):
        origin_of(url)
