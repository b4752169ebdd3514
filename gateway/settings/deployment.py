"""Where this gateway's parts live: settings and a data directory resolved into addresses, and the key file.

Promises: the same settings in the same working directory always give the same addresses, so that `tollway serve` and
every other command meet. The data directory is made with mode 700, the key file once, whole and with mode 600; it is
never replaced, because every API key's digest hangs on it. Fails with DeploymentError, whose text is for the operator.
"""

import os
import secrets
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from gateway.settings.model import Settings

SOCKET_PATH_MAX_BYTES = 100
"""Below sun_path's 104 bytes on macOS and 108 on Linux, with room for the ending zero."""

DIGEST_KEY_BYTES = 32


class DeploymentError(Exception):
    """The data directory or the key file can't be used. The text says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Resolved addresses. `sandbox_url` is empty where the built-in upstream isn't used; `worker` counts from 0."""

    data_dir: Path
    redis_url: str
    database_url: str
    digest_key: bytes
    metrics_dir: Path
    sandbox_url: str = ""
    worker: int = 0


def deployment_of(settings: Settings) -> Deployment:
    """Resolve addresses; makes the data directory and the key file where they are missing."""
    data_dir = Path(settings.data_dir).expanduser().absolute()
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        metrics_dir = data_dir / "metrics"
        metrics_dir.mkdir(mode=0o700, exist_ok=True)
        secret = settings.keys.secret.encode() or _key_file(data_dir / "keys.secret")
    except OSError as error:
        raise DeploymentError(f"the data directory {data_dir} can't be used: {error.strerror or error}") from error
    return Deployment(
        data_dir=data_dir,
        redis_url=settings.redis.url or f"unix://{valkey_socket(data_dir)}",
        database_url=_database_url(settings.database.url, data_dir),
        digest_key=secret,
        metrics_dir=metrics_dir,
    )


def valkey_socket(data_dir: Path) -> Path:
    """The embedded Valkey's socket: in the data directory, or, where that path is too long for a unix socket, in a
    directory of this user's own under the temporary directory, named by the data directory.
    """  # noqa: D205
    inside = data_dir / "valkey.sock"
    if len(os.fsencode(inside)) <= SOCKET_PATH_MAX_BYTES:
        return inside
    name = sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"tollway-{os.getuid()}" / f"{name}.sock"


def _database_url(url: str, data_dir: Path) -> str:
    if not url:
        return f"sqlite+aiosqlite:///{data_dir / 'ledger.db'}"
    return url.replace("sqlite://", "sqlite+aiosqlite://", 1) if url.startswith("sqlite://") else url


def _key_file(path: Path) -> bytes:
    """Read the key, made first where there is none. Two processes that start at once end with one key."""
    if not path.exists():
        _make_key_file(path)
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except ValueError:
        key = b""
    if len(key) != DIGEST_KEY_BYTES:
        raise DeploymentError(
            f"the key file {path} is damaged: restore it from a backup. Only if there is none, remove it; every API "
            "key must then be made again."
        )
    return key


def _make_key_file(path: Path) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(DIGEST_KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A link fails where the name is taken: the first of two makers wins, and no one reads half a key.
        path.hardlink_to(draft)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
