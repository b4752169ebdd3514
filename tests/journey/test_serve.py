"""A newcomer's first minutes with `tollway serve`: what it prints works as printed."""

import http.client
import json
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.newcomer import typed
from tests.support.serving import Serving


class Printed:
    """The curl line of a welcome, taken apart by the shell's rules."""

    def __init__(self, welcome: str) -> None:
        words = shlex.split(welcome[welcome.index("curl -N") :].partition("See what")[0])
        self.url = urlsplit(words[2])
        self.headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
        self.body = words[words.index("-d") + 1]

    @contextmanager
    def sent(self) -> Iterator[http.client.HTTPResponse]:
        """Do what curl would do."""
        with closing(http.client.HTTPConnection(str(self.url.hostname), self.url.port, timeout=30)) as link:
            link.request("POST", self.url.path, self.body, self.headers)
            with link.getresponse() as answer:
                yield answer


def data_of(stream: bytes) -> list[str]:
    """The payload of every event."""
    return [line.removeprefix("data: ") for line in stream.decode().splitlines() if line.startswith("data: ")]


def said_in(events: list[str]) -> str:
    """The text of a streamed answer."""
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def test_the_first_start_prints_a_request_that_streams(tmp_path: Path) -> None:
    """The first thing a newcomer pastes answers, streamed, without any provider's key (design §7)."""
    with Serving(tmp_path) as served:
        assert "Upstream sandbox has no key: the built-in sandbox answers for it." in served.welcome
        printed = Printed(served.welcome)
        assert printed.headers["Authorization"] == f"Bearer {served.key}"

        with printed.sent() as answer:
            assert answer.status == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = data_of(answer.read())

    assert events[-1] == "[DONE]"
    assert "Hello, toll road!" in said_in(events)


def test_the_printed_usage_command_shows_the_request(tmp_path: Path) -> None:
    """The second thing a newcomer pastes tells the tokens of the first."""
    with Serving(tmp_path) as served:
        with Printed(served.welcome).sent() as answer:
            words = said_in(data_of(answer.read())).split()
        command = served.welcome.partition("See what it used:\n")[2].splitlines()[0].strip()
        shown = typed(shlex.split(command))

    tokens = len(["Hello,", "toll", "road!"]) + len(words)
    assert re.search(rf"\b{tokens}\b", shown), shown


def test_a_key_is_shown_once(tmp_path: Path) -> None:
    """Restarts don't spread a secret through logs; they tell how another key is made, and that works (E12, F8)."""
    with Serving(tmp_path) as served:
        first = served.key
        assert served.stop() == 0

    with Serving(tmp_path) as served:
        assert served.key == ""
        assert Printed(served.welcome).headers["Authorization"] == "Bearer $TOLLWAY_KEY"
        assert served.get("/v1/models", first) == 200
        command = served.welcome.partition("Make a key:\n")[2].splitlines()[0].strip()
        found = re.search(r"tw_\w{12}_\w+", typed(shlex.split(command)))
        assert found
        assert served.get("/v1/models", found[0]) == 200


def test_a_stop_lets_a_running_answer_end(tmp_path: Path) -> None:
    """A deployment in the middle of an answer costs its reader nothing, and new connections are not taken."""
    with Serving(tmp_path) as served:
        with Printed(served.welcome).sent() as answer:
            start = answer.read(20)
            served.process.send_signal(signal.SIGTERM)
            events = data_of(start + answer.read())

        assert events[-1] == "[DONE]"
        assert served.process.wait(30) == 0
        assert served.get("/v1/models", served.key) == 0
        assert served.orphans() == []


def test_the_command_of_a_checkout_is_printed_as_one_types_it(tmp_path: Path) -> None:
    """From a checkout nobody has `tollway` on the path: the lines name the interpreter that runs."""
    with Serving(tmp_path) as served:
        lines = served.welcome.splitlines()
    command = lines[lines.index("See what it used:") + 1].split()
    assert command[1:] == ["-m", "gateway", "--file", str(tmp_path / "gateway.yaml"), "usage", "demo"]
    assert Path(command[0]).absolute() == Path(sys.executable)
