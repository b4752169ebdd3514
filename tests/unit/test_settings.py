"""What a sound gateway.yaml becomes: values, defaults, placeholders, tiers."""

import ast
import runpy
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.domain.limits import Limit, Remedy, Tier, Unit, WhenUnavailable, Window
from gateway.settings import data_files
from gateway.settings.data_files import data_file
from gateway.settings.load import SettingsError, load
from gateway.settings.model import Keys, Redis, Settings
from gateway.settings.plans import LimitSettings, TierSettings
from gateway.settings.tiers import tier_of
from gateway.settings.upstreams import Upstream

SHIPPED = Path(__file__).parents[2] / "gateway.yaml"
MINIMAL = """\
upstreams: { one: { url: sandbox } }
routes: [{ path: /v1/*, upstream: one, dialect: plain }]
tiers: { free: {} }
default_tier: free
"""


class Reader:
    """Loads `MINIMAL` with more text after it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, more: str = "", **environ: str) -> Settings:
        """The settings of the text, with these variables set."""
        self._path.write_text(MINIMAL + more, encoding="utf-8")
        return load(self._path, environ)


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    """Reads settings from a text."""
    return Reader(tmp_path / "gateway.yaml")


def test_the_shipped_file_works_with_nothing_set() -> None:
    """Guarantee (D1): a newcomer's first start needs no key, no server and no edit; plans allow what is promised."""
    settings = load(SHIPPED, {})

    assert settings.listen.port == 8080
    assert settings.redis.url == settings.database.url == settings.keys.secret == ""
    assert settings.upstreams["openai"].uses_sandbox
    assert [(route.path, route.dialect) for route in settings.routes] == [
        ("/v1/chat/completions", "openai"),
        ("/v1/responses", "openai-responses"),
        ("/v1/responses/compact", "openai-responses"),
        ("/v1/completions", "openai"),
        ("/v1/embeddings", "openai-embeddings"),
        ("/v1/images/generations", "openai-images"),
        ("/v1/images/edits", "openai-images"),
        ("/v1/images/variations", "openai-images"),
        ("/v1/audio/speech", "openai-speech"),
        ("/v1/audio/transcriptions", "openai-transcriptions"),
        ("/v1/audio/translations", "openai-transcriptions"),
        ("/v1/models", "plain"),
        ("/v1/*", "plain"),
    ]
    hourly = {name: tier.limits[Unit.REQUESTS][Window.HOUR] for name, tier in settings.tiers.items()}
    assert hourly == {"free": 50, "premium": 500, "ultra": 2000}
    assert tier_of("free", settings.tiers["free"]) == Tier(
        "free",
        (
            Limit(Unit.REQUESTS, Window.HOUR, 50),
            Limit(Unit.TOKENS, Window.DAY, 100_000),
            Limit(Unit.TOKENS, Window.MONTH, 1_000_000, Remedy.PAY),
        ),
        concurrency=5,
    )


def test_the_shipped_file_goes_to_the_provider_once_a_key_is_there() -> None:
    """Guarantee: the same file serves the first try and production; setting the key is the only step."""
    upstream = load(SHIPPED, {"OPENAI_API_KEY": "sk-1"}).upstreams["openai"]

    assert (upstream.url, upstream.api_key, upstream.uses_sandbox) == ("https://api.openai.com", "sk-1", False)


def test_what_the_file_leaves_out_has_its_default(read: Reader) -> None:
    """Guarantee: a short file is a whole one; defaults in code and in a file read are the same."""
    settings = read()

    assert settings == Settings(
        upstreams={"one": Upstream(url="sandbox")},
        routes=settings.routes,
        tiers={"free": TierSettings()},
        default_tier="free",
    )
    assert settings.routes[0].methods == ()


def test_placeholders_are_filled_in_texts_numbers_and_choices(read: Reader) -> None:
    """Guarantee: one file serves many deployments; quoted or not, a placeholder is what its variable holds."""
    settings = read(
        "listen: { port: '${PORT}', workers: '${WORKERS:-3}', host: '${A}.${B:-local}' }\n"
        "log: { requests: '${QUIET:-false}', level: '${LEVEL}' }\n"
        "data_dir: $${A}/${EMPTY:-fallback}\n",
        PORT="9000",
        LEVEL="error",
        A="a",
        EMPTY="",
    )

    assert (settings.listen.port, settings.listen.workers, settings.listen.host) == (9000, 3, "a.local")
    assert (settings.log.requests, settings.log.level) == (False, "error")
    assert settings.data_dir == "${A}/fallback"


def test_what_a_variable_holds_is_taken_as_it_is(read: Reader) -> None:
    """Guarantee: a secret with YAML or placeholder signs in it arrives whole, and can't inject settings."""
    secret = "${PORT}: {x} # 'y' \"z\" & *a - 0123456789"

    assert read("keys: { secret: '${SECRET}' }\n", SECRET=secret).keys.secret == secret


def test_texts_are_never_read_as_numbers_or_truth(read: Reader) -> None:
    """Guarantee: a key of digits or a tier called `no` is what the operator typed, not what YAML makes of it."""
    more = read("data_dir: 0123\nredis: { namespace: no }\n")

    assert (more.data_dir, more.redis.namespace) == ("0123", "no")


def test_numbers_may_be_grouped_and_seconds_be_fractions(tmp_path: Path) -> None:
    """Guarantee: 100_000 is readable and exact; half a second is half a second."""
    path = tmp_path / "gateway.yaml"
    text = MINIMAL.replace("url: sandbox", "url: sandbox, idle_s: .5, timeouts: { connect_s: 2, total_s: 1.5e3 }")
    path.write_text(text.replace("free: {}", "free: { limits: { tokens: { day: 9_007_199_254_740_991 } } }"))

    settings = load(path, {})

    upstream = settings.upstreams["one"]
    assert (upstream.idle_s, upstream.timeouts.connect_s, upstream.timeouts.total_s) == (0.5, 2.0, 1500.0)
    assert settings.tiers["free"].limits == {Unit.TOKENS: {Window.DAY: 2**53 - 1}}


@pytest.mark.parametrize(
    ("window", "asked", "remedy"),
    [
        (Window.HOUR, 5, Remedy.WAIT),
        (Window.MONTH, 5, Remedy.PAY),
        (Window.MONTH, LimitSettings(maximum=5), Remedy.PAY),
        (Window.MONTH, LimitSettings(maximum=5, remedy=Remedy.WAIT), Remedy.WAIT),
        (Window.DAY, LimitSettings(maximum=5, remedy=Remedy.PAY), Remedy.PAY),
    ],
)
def test_a_limit_says_whether_to_wait_or_to_pay(window: Window, asked: int | LimitSettings, remedy: Remedy) -> None:
    """Guarantee: SDKs retry what waiting mends, and only that; a month's quota sends people to the till."""
    tier = tier_of("free", TierSettings(limits={Unit.TOKENS: {window: asked}}))

    assert tier.limits == (Limit(Unit.TOKENS, window, 5, remedy),)


def test_a_tier_keeps_its_order_concurrency_and_time_zone(read: Reader) -> None:
    """Guarantee: days end at midnight where the plan says so."""
    settings = read().tiers["free"]
    assert tier_of("free", settings) == Tier("free", (), when_unavailable=WhenUnavailable.ALLOW)

    berlin = TierSettings(limits={}, concurrency=0, time_zone="Europe/Berlin")

    zone = ZoneInfo("Europe/Berlin")
    assert tier_of("berlin", berlin) == Tier("berlin", (), 0, zone, when_unavailable=WhenUnavailable.ALLOW)


@pytest.mark.parametrize(
    ("window", "asked", "said", "kept"),
    [
        (Window.DAY, 5, None, WhenUnavailable.ALLOW),
        (Window.MONTH, 5, None, WhenUnavailable.DENY),
        (Window.MONTH, 5, WhenUnavailable.ALLOW, WhenUnavailable.ALLOW),
        (Window.MONTH, LimitSettings(maximum=5, remedy=Remedy.WAIT), None, WhenUnavailable.ALLOW),
        (Window.DAY, 5, WhenUnavailable.DENY, WhenUnavailable.DENY),
    ],
)
def test_what_is_paid_for_is_not_given_away_unchecked(
    window: Window, asked: int | LimitSettings, said: WhenUnavailable | None, kept: WhenUnavailable
) -> None:
    """D6: while Redis is silent, free tiers go on and paid quotas don't, unless the file says otherwise."""
    tier = tier_of("free", TierSettings(limits={Unit.TOKENS: {window: asked}}, when_unavailable=said))

    assert tier.when_unavailable is kept


def test_a_route_after_another_is_no_mistake_while_something_is_left_for_it(read: Reader) -> None:
    """Guarantee: the check for routes never reached refuses no order that works."""
    routes = (
        "routes:\n"
        "- { path: /a/*, methods: [GET], upstream: one, dialect: plain }\n"
        "- { path: /a/b, upstream: one, dialect: plain }\n"
        "- { path: /c/*, upstream: one, dialect: plain }\n"
        "- { path: /c, upstream: one, dialect: plain }\n"
        "- { path: /*, upstream: one, dialect: plain }\n"
    )
    read._path.write_text(MINIMAL.replace("routes: [{ path: /v1/*, upstream: one, dialect: plain }]\n", routes))

    assert [route.path for route in load(read._path, {}).routes] == ["/a/*", "/a/b", "/c/*", "/c", "/*"]


@pytest.mark.parametrize(
    ("section", "good"),
    [
        (
            "redis: {{ url: '{}' }}",
            "redis://localhost redis://:p%40ss@[::1]:6379/0 rediss://u:p@h:1 unix:///tmp/v.sock unix://u:p@/v.sock",
        ),
        (
            "redis: {{ url: '{}' }}",
            "redis+sentinel://:p@a:1,[::1]:2/main/1 rediss+sentinel://a,b/main redis+cluster://a:1,b:2 rediss+cluster://a/",
        ),
        ("database: {{ url: '{}' }}", "sqlite:///relative.db sqlite:////absolute.db"),
        ("listen: {{ host: '{}' }}", "0.0.0.0 :: ::1 localhost fe80::1%eth0"),
        ("listen: {{ prefix: '{}' }}", "/_tollway /a/b"),
        ("keys: {{ secret: '{}' }}", f"{'x' * 32} {'y' * 64}"),
        ("metering: {{ encoding: '{}' }}", "o200k_base cl100k_base"),
    ],
)
def test_addresses_of_every_kind_are_taken(read: Reader, section: str, good: str) -> None:
    """Guarantee: the checks refuse mistakes, not deployments."""
    for value in good.split(" "):
        read(section.format(value) + "\n")


@pytest.mark.parametrize("url", ["http://localhost:11434", "https://h/base/path", "http://[::1]:80", "http://a_b:1"])
def test_upstream_addresses_of_every_kind_are_taken(tmp_path: Path, url: str) -> None:
    """Guarantee: container names with an underscore, IPv6 and base paths are addresses like any other."""
    path = tmp_path / "gateway.yaml"
    path.write_text(MINIMAL.replace("sandbox", f"'{url}'"), encoding="utf-8")

    assert load(path, {}).upstreams["one"].url == url


def test_the_text_of_settings_hides_secrets() -> None:
    """Guarantee: settings in a log line or traceback give no key or password away."""
    hidden = [
        Upstream(url="http://x", api_key="hunter2", proxy="http://hunter2@x"),
        Keys(secret="hunter2"),
        Redis(url="redis://:hunter2@x"),
    ]

    assert "hunter2" not in repr(hidden)
    assert "namespace='tw'" in repr(hidden)


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Guarantee: a file saved on Windows is a file like any other."""
    path = tmp_path / "gateway.yaml"
    path.write_text(MINIMAL, encoding="utf-8-sig")

    assert load(path, {}).default_tier == "free"


def test_a_variable_that_is_not_set_is_told_by_name(read: Reader) -> None:
    """Guarantee: an operator learns which variable is missing from the first start, not from the first request."""
    with pytest.raises(SettingsError, match=r"gateway\.yaml:5: data_dir: the environment variable NOWHERE is not set"):
        read("data_dir: ${NOWHERE}\n")


def test_data_files_are_found_or_told() -> None:
    """Guarantee: schema, scripts and the shipped settings are found from any working directory."""
    assert data_file("config", "gateway.yaml").is_file()
    assert data_file("config", "gateway.schema.json").is_file()
    assert data_file("lua", "README.md").is_file()
    with pytest.raises(FileNotFoundError, match=r"no lua/nothing\.lua in this installation"):
        data_file("lua", "nothing.lua")


def test_data_files_are_found_in_an_installed_wheel(tmp_path: Path) -> None:
    """Guarantee: a gateway installed from a wheel, with the data inside the package, starts like a checkout."""
    module = tmp_path / "gateway" / "settings" / "data_files.py"
    module.parent.mkdir(parents=True)
    module.write_text(Path(data_files.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    installed = tmp_path / "gateway" / "config" / "gateway.yaml"
    installed.parent.mkdir()
    installed.write_text(MINIMAL, encoding="utf-8")

    found = runpy.run_path(str(module))["data_file"]("config", "gateway.yaml")

    assert found == installed


def test_loading_settings_imports_nothing_heavy() -> None:
    """Guarantee: `tollway check` and every start read the file at once; no server or database library comes with it."""
    folder = Path(__file__).parents[2] / "gateway" / "settings"
    names = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for file in folder.glob("*.py")
        if file.name != "deployment.py"
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }

    foreign = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert foreign == {"gateway", "msgspec", "yaml"}
