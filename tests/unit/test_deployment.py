"""Addresses and the key file: what `tollway serve` and every other command agree on."""

import multiprocessing
import os
import stat
from pathlib import Path

import msgspec
import pytest

from gateway.settings.deployment import DeploymentError, deployment_of, valkey_socket
from gateway.settings.model import Database, Keys, Redis, Route, Settings
from gateway.settings.plans import TierSettings
from gateway.settings.upstreams import Upstream


def settings(data_dir: Path) -> Settings:
    """The least that settings need, on a data directory."""
    return Settings(
        data_dir=str(data_dir),
        upstreams={"up": Upstream(url="sandbox")},
        routes=(Route(path="/*", upstream="up", dialect="plain"),),
        tiers={"free": TierSettings()},
        default_tier="free",
    )


def test_everything_is_kept_in_the_data_directory(tmp_path: Path) -> None:
    """An operator who backs up data_dir has it all."""
    found = deployment_of(settings(tmp_path / "data"))

    assert found.redis_url == f"unix://{tmp_path}/data/valkey.sock"
    assert found.database_url == f"sqlite+aiosqlite:///{tmp_path}/data/ledger.db"
    assert found.metrics_dir.is_dir()
    assert (found.sandbox_url, found.worker) == ("", 0)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "data/keys.secret").stat().st_mode) == 0o600


def test_what_the_settings_name_wins(tmp_path: Path) -> None:
    """Production's own Redis, database and secret are used as they are, and no key file is made."""
    given = msgspec.structs.replace(
        settings(tmp_path),
        redis=Redis(url="redis://cache:6379/1"),
        database=Database(url="sqlite:////srv/ledger.db"),
        keys=Keys(secret="s" * 40),
    )
    found = deployment_of(given)

    assert found.redis_url == "redis://cache:6379/1"
    assert found.database_url == "sqlite+aiosqlite:////srv/ledger.db"
    assert found.digest_key == b"s" * 40
    assert not (tmp_path / "keys.secret").exists()


def test_a_relative_data_directory_is_resolved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite and Valkey get absolute paths, so that no later change of directory moves the ledger."""
    monkeypatch.chdir(tmp_path)
    assert deployment_of(settings(Path("./data"))).data_dir == tmp_path / "data"


def _digest_key(data_dir: Path) -> bytes:
    return deployment_of(settings(data_dir)).digest_key


def test_processes_that_start_at_once_end_with_one_key(tmp_path: Path) -> None:
    """Two keys would make half of the API keys unknown (E12)."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        keys = set(pool.map(_digest_key, [tmp_path] * 16))

    assert len(keys) == 1
    assert len(keys.pop()) == 32
    assert [file.name for file in tmp_path.iterdir() if "secret" in file.name] == ["keys.secret"]


@pytest.mark.parametrize("content", ["", "abcd", "not hex at all", "é" * 64])
def test_a_damaged_key_file_is_told_and_never_replaced(tmp_path: Path, content: str) -> None:
    """A fresh key in its place would lock every caller out for good."""
    file = tmp_path / "keys.secret"
    file.write_text(content)

    with pytest.raises(DeploymentError, match="restore it from a backup"):
        deployment_of(settings(tmp_path))
    assert file.read_text() == content


def test_a_data_directory_that_is_a_file_is_told(tmp_path: Path) -> None:
    """The operator reads which path is wrong, not a traceback."""
    (tmp_path / "data").write_text("")
    with pytest.raises(DeploymentError, match=f"{tmp_path}/data can't be used: File exists"):
        deployment_of(settings(tmp_path / "data"))


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    """A unix socket's path ends at 107 bytes; deep checkouts are common in CI. The same directory, the same socket."""
    deep = tmp_path / ("d" * 60) / ("é" * 30)

    short = valkey_socket(deep)
    assert short == valkey_socket(deep)
    assert short != valkey_socket(deep / "other")
    assert len(os.fsencode(short)) <= 100
    assert short.parent.name == f"tollway-{os.getuid()}"
    assert valkey_socket(Path("/srv/data")) == Path("/srv/data/valkey.sock")
