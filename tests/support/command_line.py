"""`tollway …` in this process, in a directory with a settings file that names a real server."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.__main__ import main
from tests.support.valkey import ValkeyServer

SETTINGS = """
data_dir: {folder}
redis: {{url: "{redis}", partitions: 1, timeout_ms: 10000}}
upstreams: {{openai: {{url: sandbox}}}}
routes: [{{path: /v1/*, upstream: openai, dialect: openai}}]
tiers:
  free:
    limits: {{requests: {{hour: 50}}, tokens: {{day: 1000}}}}
    concurrency: 5
  premium:
    limits: {{requests: {{hour: 500}}}}
default_tier: free
"""

Tollway = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a settings file that names a real server."""
    (tmp_path / "gateway.yaml").write_text(SETTINGS.format(folder=tmp_path / "data", redis=valkey.url))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def without_redis(home: Path) -> Path:
    """The same, but no server answers."""
    redis = f"unix://{home}/nobody.sock"
    (home / "gateway.yaml").write_text(SETTINGS.format(folder=home / "data", redis=redis))
    return home


@pytest.fixture
def tollway(home: Path, capsys: pytest.CaptureFixture[str]) -> Tollway:
    """Run `tollway …` in the directory: exit status, standard output, standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        try:
            status = main(words)
        except SystemExit as end:  # argparse's way out
            status = int(end.code or 0)
        out, err = capsys.readouterr()
        return status, out, err

    return run
