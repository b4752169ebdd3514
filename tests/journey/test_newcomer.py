"""A newcomer's first hour on the shipped `gateway.yaml`, with no provider's key: from the first curl line to plans."""

import http.client
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from openai import OpenAI

from tests.support.newcomer import Newcomer, get
from tests.support.serving import until

MODELS = "/v1/models"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Newcomer]:
    """The shipped gateway, on two workers."""
    with Newcomer(tmp_path, "--workers", "2") as newcomer:
        yield newcomer


def by_shell(served: Newcomer, line: str) -> str:
    """Paste the line, as one does."""
    return served.shell(line)


def by_socket(served: Newcomer, line: str) -> str:
    """Send what the line says, where there is no curl."""
    words = shlex.split(line)
    assert words[:2] == ["curl", "-N"]
    url = urlsplit(words[2])
    fields = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    with closing(http.client.HTTPConnection(str(url.hostname), url.port, timeout=30)) as link:
        link.request("POST", url.path, words[words.index("-d") + 1], fields)
        return link.getresponse().read().decode()


SENDERS = [by_socket, by_shell] if shutil.which("curl") else [by_socket]


@pytest.mark.parametrize("send", SENDERS, ids=lambda send: send.__name__)
def test_the_printed_line_streams_and_its_usage_is_shown(tmp_path: Path, send: Callable[[Newcomer, str], str]) -> None:
    """A8, B3, B4: the first thing that is pasted answers word by word and tells its tokens; the second thing that is
    pasted shows exactly these, and both are what anyone counts by hand. Here people decide whether to trust the rest.
    """  # noqa: D205
    with Newcomer(tmp_path) as served:
        line, _, after = served.welcome[served.welcome.index("curl -N") :].partition("See what it used:\n")
        stream = send(served, line)
        shown = served.shell(after.splitlines()[0].strip())

    chunks = [json.loads(data) for data in re.findall(r"^data: (\{.*)$", stream, re.MULTILINE)]
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    told = json.loads(re.findall(r"^: tollway-usage (.*)$", stream, re.MULTILINE)[0])
    read, written = len(["Hello,", "toll", "road!"]), len(said.split())
    month = next(row for row in map(str.split, shown.splitlines()) if row[:2] == ["this", "month"])
    limit = next(row for row in map(str.split, shown.splitlines()) if row[:1] == ["tokens/month"])

    assert "Hello, toll road!" in said
    assert stream.endswith("data: [DONE]\n\n")
    assert told == {"input_tokens": read, "output_tokens": written, "cached_tokens": 0, "reasoning_tokens": 0}
    assert month == ["this", "month", "1", str(read), str(written), "0", "0", str(read + written)]
    assert limit[1:3] == [str(read + written), "1,000,000"]


def test_the_sdk_needs_but_the_printed_address_and_key(served: Newcomer) -> None:
    """F2: what is printed is all that a script needs; whole and streamed answers of both workers add up to the usage
    that the command shows.
    """  # noqa: D205
    with OpenAI(base_url=f"{served.url}/v1", api_key=served.key) as sdk:
        whole = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "one two"}], max_tokens=5)
        words = ""
        for chunk in sdk.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "one two"}], max_tokens=5, stream=True
        ):
            words += chunk.choices[0].delta.content or ""
    report = json.loads(served.tollway("usage demo --json"))

    assert whole.choices[0].message.content == words
    assert len(words.split()) == 5
    month = report["this_month"]
    assert (month["requests"], month["input_tokens"], month["output_tokens"]) == (2, 4, 10)
    assert (report["running"], report["backlog"]) == (0, 0)


def test_a_new_plan_and_a_revoked_key_count_at_once_on_every_worker(served: Newcomer) -> None:
    """F4, A5, D1, D5: a key works the moment it is shown; a change of plan stands in the very next answer's fields; a
    revoked key or a suspended account is refused at its next request, and a resumed one let in again soon
    after: on each worker, though each has the old truth at hand.
    """  # noqa: D205
    served.tollway("accounts create acme --tier premium")
    key = served.tollway("keys create acme").strip()

    with served.link_to_every_worker(MODELS, key) as links:
        assert set(links) == {"worker 0", "worker 1"}
        before = [get(link, MODELS, key)[1] for link in links.values()]
        assert {fields["x-ratelimit-limit-requests"] for fields in before} == {"500"}

        served.tollway("accounts set-tier acme ultra")
        after = [get(link, MODELS, key)[1] for link in links.values()]
        assert {fields["x-ratelimit-limit-requests"] for fields in after} == {"2000"}
        assert all('"requests/hour";q=2000;w=3600' in fields["ratelimit-policy"] for fields in after)

        other = served.tollway("keys create acme").strip()
        served.tollway(f"keys revoke {key}")
        refused = [get(link, MODELS, key) for link in links.values()]
        assert [(status, b"revoked_api_key" in body) for status, _, body in refused] == [(401, True)] * 2
        assert [get(link, MODELS, other)[0] for link in links.values()] == [200, 200]

        served.tollway("accounts suspend acme")
        assert [get(link, MODELS, other)[0] for link in links.values()] == [403, 403]
        served.tollway("accounts resume acme")
        until(lambda: [get(link, MODELS, other)[0] for link in links.values()] == [200, 200])


def test_the_free_plan_ends_at_fifty_requests_over_both_workers(served: Newcomer) -> None:
    """D1, D5: fifty an hour are fifty over all workers together, counted down in every answer; the fifty-first is told
    to wait for the end of the clock hour.
    """  # noqa: D205
    with served.link_to_every_worker("/_tollway/usage", served.key) as links:
        turns = list(links.values()) * 26
        answers = [get(link, MODELS, served.key) for link in turns]

    left = [int(fields["x-ratelimit-remaining-requests"]) for _, fields, _ in answers]
    resets = [int(fields["x-ratelimit-reset-requests"].removesuffix("s")) for _, fields, _ in answers]
    if resets == sorted(resets, reverse=True):  # else the hour ended meanwhile, and the count began anew
        assert [status for status, _, _ in answers] == [200] * 50 + [429] * 2
        assert left == [*range(49, -1, -1), 0, 0]
        assert int(answers[-1][1]["retry-after"]) == resets[-1]
    else:
        assert [status for status, _, _ in answers] == [200] * 52
