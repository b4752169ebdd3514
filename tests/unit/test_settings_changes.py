"""What differs between two readings of gateway.yaml, and how the newer one reaches the workers."""

from pathlib import Path

import pytest

from gateway.settings.changes import Reach, changes, touched_tiers
from gateway.settings.handout import Handout, pack, unpack
from gateway.settings.load import load
from gateway.settings.model import Settings

SHIPPED = Path(__file__).parents[2] / "gateway.yaml"
WHOLE = """
upstreams:
  one: { url: "https://one.test", api_key: "sk-first", timeouts: { total_s: 9 } }
  two: { url: "https://two.test" }
routes:
  - { path: /v1/a, methods: [GET, POST], upstream: one, dialect: openai }
  - { path: /v1/*, upstream: two, dialect: plain }
tiers:
  free: { limits: { tokens: { day: 5, month: { maximum: 6, remedy: pay } } }, features: { sync: true } }
  gold: { concurrency: 3, numbers: { max_banks: 2.5 }, prices: { month: { cents: 5 } } }
default_tier: free
subscriptions: { statuses: { past_due: grace }, grace_days: 5 }
"""


def read(directory: Path, *pairs: tuple[str, str]) -> Settings:
    """The settings above, with other text in some places."""
    text = WHOLE
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    file = directory / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    return load(file, {})


@pytest.mark.parametrize(
    ("pair", "told", "reach"),
    [
        (("day: 5", "day: 7"), "~ tiers.free.limits.tokens.day: 5 -> 7", Reach.LIVE),
        (("sync: true", "sync: false"), "~ tiers.free.features.sync: true -> false", Reach.LIVE),
        (("concurrency: 3, ", ""), "- tiers.gold.concurrency: 3", Reach.LIVE),
        (("sk-first", "sk-second"), "~ upstreams.one.api_key: (a secret) -> (a secret)", Reach.LIVE),
        (
            ('two: { url: "https://two.test" }', 'two: { targets: [{ url: "https://b.test", api_key: sk-b }] }'),
            '~ upstreams.two.url: https://two.test -> ""',
            "",
        ),
        (("two.test", "three.test"), "~ upstreams.two.url: https://two.test -> https://three.test", Reach.LIVE),
        (("default_tier: free", "default_tier: gold"), "~ default_tier: free -> gold", Reach.WORKERS),
        (("methods: [GET, POST], ", ""), "- routes.GET,POST /v1/a: ", Reach.LIVE),
        (("\nroutes:", "\n  new: { url: sandbox, idle_s: 5 }\nroutes:"), "+ upstreams.new: url sandbox, idle_s 5", ""),
        (("default_tier", "redis: { url: 'redis://u:pw@h' }\ndefault_tier"), '~ redis.url: "" -> (a secret)', ""),
        (("default_tier", "listen: { port: 9 }\ndefault_tier"), "~ listen.port: 8080 -> 9", Reach.RESTART),
        (
            (
                "default_tier",
                "jwt: [{ issuer: 'https://a.test', audience: b, jwks_url: 'https://a.test/k' }]\ndefault_tier",
            ),
            "+ jwt.https://a.test: issuer https://a.test, audience b, jwks_url https://a.test/k",
            Reach.WORKERS,
        ),
        (("default_tier", "guesses: { failures: 0 }\ndefault_tier"), "~ guesses.failures: 60 -> 0", Reach.WORKERS),
        (
            ("default_tier", "listen: { trusted_proxies: [10.0.0.0/8] }\ndefault_tier"),
            "+ listen.trusted_proxies: [10.0.0.0/8]",
            Reach.WORKERS,
        ),
        (
            ("default_tier", "keys: { secret: sk-of-the-digests-of-a-test-that-is-long }\ndefault_tier"),
            '~ keys.secret: "" -> (a secret)',
            Reach.RESTART,
        ),
        (("default_tier", "metering: { drain_s: 9 }\ndefault_tier"), "~ metering.drain_s: 300 -> 9", Reach.WORKERS),
    ],
)
def test_each_key_is_told_with_what_it_held(tmp_path: Path, pair: tuple[str, str], told: str, reach: str) -> None:
    """Whoever changes a plan reads what it was and will be; no secret is in it."""
    found = changes(read(tmp_path), read(tmp_path, pair))

    assert str(found[0]).startswith(told)
    assert reach in {"", found[0].reach}
    assert not any(secret in str(found) for secret in ("sk-", "pw@"))
    assert changes(read(tmp_path, pair), read(tmp_path, pair)) == ()


def test_the_order_of_routes_is_a_change(tmp_path: Path) -> None:
    """The first match wins, so that another order means other routes."""
    narrow = ("path: /v1/*", "path: /v1/b")
    first, second = WHOLE.replace(*narrow).partition("routes:\n")[2].splitlines()[:2]
    other = read(tmp_path, narrow, (f"{first}\n{second}", f"{second}\n{first}"))

    found = changes(read(tmp_path, narrow), other)
    assert [str(change) for change in found] == ["~ routes: their order -> another"]


def test_tiers_that_change_are_named(tmp_path: Path) -> None:
    """Whose accounts are counted: those of tiers that came, went or changed, each once."""
    new = read(tmp_path, ("day: 5", "day: 7"), ("sync: true", "sync: false"), ("gold: {", "silver: {"))

    assert touched_tiers(changes(read(tmp_path), new)) == ("free", "gold", "silver")


@pytest.mark.parametrize("shipped", [True, False])
def test_a_handout_arrives_as_it_was(tmp_path: Path, shipped: bool) -> None:
    """Every worker serves by exactly what the supervisor has read, whatever the file says by then."""
    settings = load(SHIPPED, {}) if shipped else read(tmp_path)
    handout = Handout(7, settings, ("free",), 3)

    assert unpack(pack(handout)) == handout
