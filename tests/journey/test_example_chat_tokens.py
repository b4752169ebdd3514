"""System B on `config/examples/chat-tokens.yaml` as it is: a chat product's tokens, storage and banks, row by row.

A real process tree, OpenAI's own SDK, Stripe's own objects, an upstream that keeps its own books.
"""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import openai
import pytest

from tests.support.examples import CHAT, Example, Person, in_one_hour
from tests.support.sdk_upstream import Upstream, called, said
from tests.support.serving import until
from tests.support.stripe_objects import example, subscription

DAY_S = 86_400
TOOLS: Any = [{"type": "function", "function": {"name": "balance", "parameters": {"type": "object"}}}]

pytestmark = pytest.mark.usefixtures("upstream")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, books: Upstream) -> Iterator[Example]:
    """The example, served."""
    with Example("chat-tokens", tmp_path_factory.mktemp("b"), books.port) as served:
        yield served


def counted(person: Person, tokens: int) -> None:
    """Wait until the ledger has so many tokens of the account in all; the live limit then says the same."""
    until(lambda: person.usage()["lifetime"]["tokens"] == tokens)
    assert person.limit("tokens/period")["used"] == tokens


@in_one_hour
def test_too_much_is_refused_before_the_upstream_is_asked(here: Example, upstream: Upstream) -> None:
    """B1: the check comes before the request: 429 and nothing spent upstream, nothing counted; what fits is counted
    after it. Who pays the provider's bill is hurt by a check that comes late.
    """  # noqa: D205
    person, asked = here.person(), len(upstream.asked)

    waits, pays = person.chat(max_tokens=10_001), here.person("plus").chat(max_tokens=1_000_001)

    assert (waits.status_code, waits.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert (pays.status_code, pays.json()["error"]["code"]) == (429, "insufficient_quota")
    assert len(upstream.asked) == asked
    assert person.limit("tokens/day")["used"] == 0
    assert person.chat(max_tokens=5_000).status_code == 200
    counted(person, 13)


@in_one_hour
def test_a_service_that_calls_its_model_itself_is_held_to_the_same(here: Example) -> None:
    """B1: the same check, count and statistics as HTTP calls, in one limit with the proxied answers: an app that does
    not proxy can't be let past, and is not charged twice for what it tells twice.
    """  # noqa: D205
    person = here.person()

    def call(verb: str, **body: Any) -> httpx.Response:
        return person.ask("POST", f"/_tollway/{verb}", json=body)

    assert call("reserve", request_id="big", estimate={"input_tokens": 1, "output_tokens": 10_000}).status_code == 429
    held = call("reserve", request_id="step", model="m", estimate={"input_tokens": 100, "output_tokens": 900})
    assert held.json()["held"] == {"tokens/day": 1_000, "tokens/period": 1_000}
    assert person.limit("tokens/day")["used"] == 1_000
    for _ in range(2):
        settled = call("settle", request_id="step", usage={"input_tokens": 90, "output_tokens": 210})
        assert (settled.status_code, settled.json()["tokens"]) == (200, 300)
    assert call("usage", request_id="late", usage={"input_tokens": 5, "output_tokens": 2}).status_code == 200
    assert person.chat().status_code == 200

    counted(person, 320)
    assert person.event("step")["tokens"] == 300


@in_one_hour
def test_every_step_of_an_answer_counts(here: Example, upstream: Upstream) -> None:
    """B2: an answer that calls a tool twice before it speaks is three requests of the SDK; all three are counted, not
    the last alone, which was the old system's loss.
    """  # noqa: D205
    person = here.person()
    upstream.turns[:] = [
        called(("balance", ('{"bank"', ': "a"}')), input_tokens=100, output_tokens=20),
        called(("balance", ('{"bank"', ': "b"}')), input_tokens=150, output_tokens=25),
        said("42", " euros", input_tokens=200, output_tokens=7),
    ]
    messages: list[Any] = [{"role": "user", "content": "how much?"}]
    with openai.OpenAI(base_url=f"{here.url}/v1", api_key=person.key, max_retries=0) as client:
        while True:
            answer = client.chat.completions.create(model="m", messages=messages, tools=TOOLS, max_tokens=300)
            message = answer.choices[0].message
            if not message.tool_calls:
                break
            messages.append(message)
            messages += ({"role": "tool", "tool_call_id": one.id, "content": "21"} for one in message.tool_calls)

    assert (message.content, len(messages)) == ("42 euros", 5)
    counted(person, 100 + 20 + 150 + 25 + 200 + 7)


@in_one_hour
def test_each_message_brings_its_usage(here: Example, upstream: Upstream) -> None:
    """B3: whole, streamed, or streamed with usage asked for, an answer brings its tokens: no app has to ask again."""
    person = here.person()
    upstream.turns[:] = [said("hi", input_tokens=31, output_tokens=17)]
    told = {"input_tokens": 31, "output_tokens": 17, "cached_tokens": 0, "reasoning_tokens": 0}

    whole = person.chat()
    assert whole.headers["x-tollway-usage"].startswith("input_tokens=31, output_tokens=17,")
    comment = next(line for line in person.chat(stream=True).text.splitlines() if line.startswith(": tollway-usage"))
    assert json.loads(comment.removeprefix(": tollway-usage ")) == told
    chunks = person.chat(stream=True, stream_options={"include_usage": True}).text
    assert '"prompt_tokens": 31, "completion_tokens": 17' in chunks

    counted(person, 3 * 48)
    event = person.event(whole.headers["x-request-id"])
    assert event | told | {"tokens": 48} == event


@in_one_hour
def test_the_caller_sees_tokens_storage_and_banks(here: Example) -> None:
    """B4, B5: each with used, limit, percent and reset, of the caller's own account; levels are what the app reports,
    one more is asked for before it is connected, and what passes the limit is refused and changes nothing.
    """  # noqa: D205
    person, other = here.person(), here.person()
    assert person.chat().status_code == 200
    assert person.ask("PUT", "/_tollway/gauges/storage_gb", json={"value": 3.75}).status_code == 200
    for number in (1, 2, 3):
        fits = person.ask("GET", "/_tollway/gauges/banks?add=1").json()["fits"]
        added = person.ask("POST", "/_tollway/gauges/banks", json={"delta": 1, "request_id": f"bank-{number}"})
        assert (fits, added.json()["used"]) == (True, number)
    assert person.ask("GET", "/_tollway/gauges/banks?add=1").json()["fits"] is False
    refused = person.ask("POST", "/_tollway/gauges/banks", json={"delta": 1})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "over_limit")
    counted(person, 13)

    told = person.usage()

    meters = {one["name"]: (one["used"], one["limit"], one["percent"]) for one in told["limits"] + told["gauges"]}
    assert meters == {
        "tokens/day": (13, 10_000, 0.1),
        "tokens/period": (13, 50_000, 0.0),
        "banks": (3, 3, 100.0),
        "storage_gb": (3.75, 5, 75.0),
    }
    assert all(one["resets_at"] > told["at"] for one in told["limits"])
    assert [one["used"] for one in other.usage()["gauges"]] == [0, 0]


@in_one_hour
def test_a_paid_renewal_begins_the_period_anew(here: Example) -> None:
    """B7: the invoice of a renewal resets what the period has used, and when is kept; told twice it resets once. Who
    has paid again and still stands at the old count is hurt.
    """  # noqa: D205
    person, begun_s = here.person(), int(time.time()) - DAY_S
    fields: dict[str, Any] = {"price": "price_plus", "period": (begun_s, begun_s + 30 * DAY_S)}
    fields |= {"customer": f"cus_{person.account}", "metadata": {"account_id": person.account}}
    here.stripe("customer.subscription.created", subscription(f"sub_{person.account}", **fields))
    assert person.chat().headers["x-ratelimit-limit-tokens"] == "1000000"
    counted(person, 13)

    renewed_s = int(time.time()) + 1
    until(lambda: time.time() >= renewed_s)
    paid = _renewal(person, renewed_s)
    here.stripe("invoice.paid", paid)
    told = person.usage()
    assert (told["period"]["tokens"], told["lifetime"]["tokens"]) == (0, 13)
    reset = datetime.fromtimestamp(renewed_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert (told["period"]["start"], told["period"]["last_reset"] >= reset) == (reset, True)

    assert person.chat().status_code == 200
    here.stripe("invoice.payment_succeeded", paid)
    until(lambda: person.usage()["lifetime"]["tokens"] == 26)
    again = person.usage()["period"]
    assert (again["tokens"], again["last_reset"]) == (13, told["period"]["last_reset"])


def _renewal(person: Person, start_s: int) -> dict[str, Any]:
    """The invoice of the month that begins then, as since 2025-03-31: the subscription stands in its parent."""
    parent = {"subscription_details": {"subscription": f"sub_{person.account}"}}
    lines = {"data": [{"period": {"start": start_s, "end": start_s + 30 * DAY_S}}]}
    made = example("invoice", id=f"in_{person.account}", customer=f"cus_{person.account}")
    return made | {"billing_reason": "subscription_cycle", "parent": parent, "lines": lines}


@in_one_hour
def test_what_is_counted_is_what_the_provider_reports(here: Example, upstream: Upstream) -> None:
    """B9: over whole and streamed answers of many sizes the account's tokens are the provider's books, to the token,
    and `tollway db verify` finds no drift between counters, sums and events.
    """  # noqa: D205
    person = here.person("plus")
    sizes = [(7, 1), (1_000, 1), (1, 900), (333, 77), (12, 0), (5_000, 4_096)]
    upstream.turns[:] = [said("x", input_tokens=given, output_tokens=out) for given, out in sizes]
    before = upstream.input_tokens, upstream.output_tokens

    for number in range(len(sizes)):
        assert person.chat(stream=number % 2 == 1, max_tokens=4_096).status_code == 200

    given, out = upstream.input_tokens - before[0], upstream.output_tokens - before[1]
    assert (given, out) == (sum(size[0] for size in sizes), sum(size[1] for size in sizes))
    counted(person, given + out)
    month = person.usage()["month"]
    assert (month["input_tokens"], month["output_tokens"]) == (given, out)
    assert person.account not in here.tollway("db verify", status=None)


@in_one_hour
def test_a_closed_tab_is_counted_to_the_end(here: Example, upstream: Upstream) -> None:
    """B9: who leaves in the middle of an answer is charged what the provider reports of it, not what was seen by then;
    else the books differ by every tab that was closed.
    """  # noqa: D205
    person = here.person("plus")
    upstream.turns[:] = [said(*["word"] * 3_000, input_tokens=50, output_tokens=3_000)]
    asked = {"model": "m", "stream": True, "max_tokens": 4_000, "messages": [{"role": "user", "content": "long"}]}

    with here.client.stream("POST", CHAT, json=asked, headers=person.headers) as answer:
        assert any("word" in line for line in answer.iter_lines())

    counted(person, 3_050)
