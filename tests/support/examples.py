"""`tollway serve` with a file of `config/examples/` as it is, and what its people do: operators, Stripe, callers.

A process tree of its own over a data directory of its own; commands run in this process, on the same settings.
"""

import asyncio
import functools
import io
import itertools
import json
import shlex
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import httpx
import pytest

from gateway.__main__ import main
from gateway.settings.data_files import data_file
from gateway.settings.environment import variables
from tests.support.sdk_upstream import Upstream, said, sdk_upstream
from tests.support.serving import Serving
from tests.support.stripe_objects import SECRET, event, signed

EXAMPLES = data_file("config", "examples")
CHAT = "/v1/chat/completions"
_ADMIN_TOKEN = "operators-only"

_HOUR_S = 3_600

_Made = TypeVar("_Made")
_Given = ParamSpec("_Given")


class Example(Serving):
    """An example that is served, with what listens on `upstream_port` behind it; None: what the file names."""

    def __init__(self, name: str, directory: Path, upstream_port: int | None) -> None:
        super().__init__(directory, "--port", "0")
        self._file = EXAMPLES / f"{name}.yaml"
        upstream = "" if upstream_port is None else f"http://127.0.0.1:{upstream_port}"
        self.ending = "See what it used:"
        self.environment = dict.fromkeys(variables(self._file.read_text(encoding="utf-8")), "") | {
            "TOLLWAY_DATA_DIR": str(self.data_dir),
            "TOLLWAY_ADMIN_TOKEN": _ADMIN_TOKEN,
            "UPSTREAM_URL": upstream,
            "SNAPSHOT_API_URL": upstream,
            "OPENAI_API_KEY": "upstream-secret" if upstream else "",
            "STRIPE_WEBHOOK_SECRET": SECRET,
        }
        self._numbers = itertools.count(1)
        self.client = httpx.Client(timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        """Start."""
        super().__enter__()
        self.client.base_url = httpx.URL(self.url)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing running."""
        self.client.close()
        super().__exit__(kind, error, trace)

    def tollway(self, line: str, *, status: int | None = 0, **environment: str) -> str:
        """Type `tollway …`, which has to end with that status (None: with any); what it prints."""
        out, err = io.StringIO(), io.StringIO()
        settings = {"TOLLWAY_FILE": str(self._file), **self.environment, **environment}
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name, value in settings.items():
                patch.setenv(name, value)
            ended = main(shlex.split(line))
        assert status in {None, ended}, err.getvalue() + out.getvalue()
        return out.getvalue()

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the admin API; what it tells."""
        headers = {"authorization": f"Bearer {_ADMIN_TOKEN}"}
        answer = self.client.request(method, f"/_tollway/admin{path}", json=body, headers=headers)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def person(self, tier: str | None = None) -> "Person":
        """Make an account and a key."""
        account = f"person-{next(self._numbers)}"
        self.admin("POST", "/accounts", {"id": account} | ({} if tier is None else {"tier": tier}))
        return self.known(account)

    def known(self, account: str) -> "Person":
        """An account that is there, with a key that is made."""
        return Person(self, account, self.admin("POST", f"/accounts/{account}/keys", {})["key"])

    def stripe(self, kind: str, about: dict[str, Any], *, state: str = "applied", **more: Any) -> None:
        """Send an event as Stripe does, which has to come to that state."""
        body, headers = signed(event(kind, about, **more))
        answer = self.client.post("/_tollway/stripe/webhook", content=body, headers=headers)
        assert answer.json().get("state") == state, answer.text


@dataclass(frozen=True, slots=True)
class Person:
    """An account and a key of its own."""

    here: Example
    account: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        """The header that carries the key."""
        return {"authorization": f"Bearer {self.key}"}

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request."""
        return self.here.client.request(method, path, headers=self.headers, **more)

    def chat(self, text: str = "hello", **fields: Any) -> httpx.Response:
        """Ask for an answer of at most 100 tokens, unless told otherwise."""
        asked = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}
        return self.ask("POST", CHAT, json=asked | fields)

    def usage(self, query: str = "") -> dict[str, Any]:
        """What the account sees of itself."""
        answer = self.ask("GET", f"/_tollway/usage{query}")
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def limit(self, name: str) -> dict[str, Any]:
        """How one limit stands, by its name."""
        return next(limit for limit in self.usage()["limits"] if limit["name"] == name)

    def explained(self) -> dict[str, Any]:
        """What `tollway accounts explain` says."""
        told: dict[str, Any] = json.loads(self.here.tollway(f"accounts explain {self.account} --json"))
        return told

    def event(self, request_id: str) -> dict[str, Any]:
        """What one request used, once that is in the ledger; {} until then."""
        answer = self.ask("GET", f"/_tollway/usage/events/{request_id}")
        told: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
        return told


def in_one_hour(test: Callable[_Given, None]) -> Callable[_Given, None]:
    """A test that counts in windows of the clock: told once more, by new people, where an hour ended under it."""

    @functools.wraps(test)
    def told(*args: _Given.args, **fixtures: _Given.kwargs) -> None:
        hour = time.time() // _HOUR_S
        try:
            test(*args, **fixtures)
        except AssertionError:
            if time.time() // _HOUR_S == hour:
                raise
            test(*args, **fixtures)

    return told


@contextmanager
def in_thread(made: AbstractAsyncContextManager[_Made]) -> Iterator[_Made]:
    """Keep what is asynchronous on a loop and a thread of its own, for tests that aren't."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def done(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    try:
        entered: _Made = done(made.__aenter__())
        try:
            yield entered
        finally:
            done(made.__aexit__(None, None, None))
            done(loop.shutdown_asyncgens())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def books() -> Iterator[Upstream]:
    """What stands behind an example of tokens, for all tests of a file; `upstream` is the same for one of them."""
    with in_thread(sdk_upstream()) as upstream:
        yield upstream


@pytest.fixture
def upstream(books: Upstream) -> Upstream:
    """It takes nine tokens in and gives four out a turn, unless the test says otherwise."""
    books.turns[:] = [said("hello", " there")]
    return books
