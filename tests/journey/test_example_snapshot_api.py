"""System D on `config/examples/snapshot-api.yaml` as it is: requests an hour and bandwidth by tier, row by row.

A real process tree over an API that keeps count of what reached it.
"""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.edge.bandwidth import AHEAD_S, LATE_S, SLICE_S
from tests.support.alert_rules import read, samples_of
from tests.support.examples import Example, Person, in_one_hour, in_thread
from tests.support.odd_peer import Peer, Visit, odd_peer
from tests.support.openai_wire import http
from tests.support.serving import until

TIERS = {"free": 50, "premium": 500, "ultra": 2_000}
SCHEDULES = {
    "free": ["12:00"],
    "premium": ["00:00", "12:00"],
    "ultra": ["00:00", "06:00", "12:00", "18:00"],
}
HOUR_S = 3_600
PACED_S = 0.5


@dataclass
class Api:
    """What stands behind the gateway. `/snapshots/<n>` is so many bytes long; below `/snapshots/gone` nothing is."""

    asked: list[str] = field(default_factory=list)

    async def serve(self, visit: Visit) -> None:
        """One connection, request by request."""
        while True:
            path = (await visit.request()).line.split()[1].decode()
            self.asked.append(path)
            size = path.rpartition("/")[2]
            if size == "gone":
                await visit.say(http(b"{}", status="404 Not Found"))
            else:
                await visit.say(http(bytes(int(size)) if size.isdigit() else b"{}"))


@pytest.fixture(scope="module")
def api() -> Api:
    """Its books."""
    return Api()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, api: Api) -> Iterator[Example]:
    """The example, served."""
    peer: Peer
    with (
        in_thread(odd_peer(api.serve)) as peer,
        Example("snapshot-api", tmp_path_factory.mktemp("d"), peer.port) as served,
    ):
        yield served


def hourly(person: Person) -> int:
    """The requests an hour that an answer tells of."""
    return int(person.ask("GET", "/status").headers["x-ratelimit-limit"])


def moment(second: float) -> str:
    """As a command takes it."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def put(person: Person, status: str, **moments: float) -> None:
    """An operator writes down what the person has bought, of the tier premium."""
    said = " ".join(f"--{name.replace('_', '-')} {moment(second)}" for name, second in moments.items())
    person.here.tollway(
        f"subscriptions put plan-{person.account} --account {person.account} --tier premium --status {status} {said}"
    )


@pytest.mark.parametrize("tier", TIERS)
@in_one_hour
def test_a_tier_has_its_requests_for_each_clock_hour(here: Example, tier: str) -> None:
    """D1, D5: 50, 500 and 2,000, told on each answer, until the clock's next hour."""
    person = here.person(tier)
    answer = person.ask("GET", "/snapshots/7")
    assert (answer.status_code, answer.headers["x-ratelimit-limit"]) == (200, str(TIERS[tier]))
    assert answer.headers["x-ratelimit-remaining"] == str(TIERS[tier] - 1)
    limit = person.limit("requests/hour")
    assert (limit["used"], limit["limit"]) == (1, TIERS[tier])
    assert limit["resets_at"] == moment((time.time() // HOUR_S + 1) * HOUR_S)


@in_one_hour
def test_the_fifty_first_request_of_an_hour_is_refused(here: Example, api: Api) -> None:
    """D1, D4, D5: on Free 50 pass, the 51st is 429 with the seconds to the next hour, the API hears nothing of it, and
    it is counted as a refusal of that tier. The API's owner is hurt by the 51st, the caller by a wrong wait.
    """  # noqa: D205
    person, asked, before = here.person(), len(api.asked), _refusals(here)
    statuses = [person.ask("GET", "/status").status_code for _ in range(50)]
    refused = person.ask("GET", "/status")
    left_s = HOUR_S - time.time() % HOUR_S
    assert (set(statuses), refused.status_code) == ({200}, 429)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 <= int(refused.headers["retry-after"]) - left_s < 30
    assert (refused.headers["x-ratelimit-limit"], refused.headers["x-ratelimit-remaining"]) == ("50", "0")
    assert len(api.asked) == asked + 50
    until(lambda: _refusals(here) == before + 1)
    until(lambda: _reported(here) == before + 1)


def _stats(here: Example) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(here.tollway("stats --json"))
    return told


def _refusals(here: Example) -> int:
    """Refusals of Free by its requests an hour, as metrics tell them."""
    scraped = here.client.get("/_tollway/metrics").text
    found = re.search(r'^tollway_refusals_total\{limit="requests/hour",tier="free"\} (\S+)$', scraped, re.MULTILINE)
    return int(float(found[1])) if found else 0


def _reported(here: Example) -> int:
    """The same, as the statistics tell them about a second later."""
    told = {(one["tier"], one["limit"]): int(one["count"]) for one in _stats(here)["refused"]}
    return told.get(("free", "requests/hour"), 0)


@pytest.mark.parametrize(("tier", "mbit_s"), [("free", 50), ("premium", 250), ("ultra", 500)])
def test_an_answer_leaves_no_faster_than_the_tier_says(here: Example, tier: str, mbit_s: int) -> None:
    """D2: what takes half a second at the tier's bandwidth takes no less, but for what may leave ahead; it all comes.
    Whoever bought the faster tier is hurt where the slower one isn't slower.
    """  # noqa: D205
    person, size = here.person(tier), int(PACED_S * mbit_s * 1e6 / 8)
    assert hourly(person) == TIERS[tier]

    begun_s = time.perf_counter()
    answer = person.ask("GET", f"/snapshots/{size}")

    assert (answer.status_code, len(answer.content)) == (200, size)
    assert time.perf_counter() - begun_s > PACED_S - AHEAD_S - LATE_S - SLICE_S - 0.01


def test_routes_are_open_to_the_tiers_that_pay_for_them(here: Example, api: Api) -> None:
    """D2, D5: history is Premium's and Ultra's, exports have the feature; a 403 says which tier opens the route,
    carries the caller's limits, costs nothing, and reaches nobody.
    """  # noqa: D205
    people = {tier: here.person(tier) for tier in TIERS}
    paths = ("/history/7", "/exports/7")
    got = {(tier, path): person.ask("GET", path) for tier, person in people.items() for path in paths}

    assert {place for place, answer in got.items() if answer.status_code == 200} == {
        ("premium", "/history/7"),
        ("ultra", "/history/7"),
        ("ultra", "/exports/7"),
    }
    for place, opened_by in ((("free", "/history/7"), "premium, ultra"), (("premium", "/exports/7"), "ultra")):
        error = got[place].json()["error"]
        assert (got[place].status_code, error["code"]) == (403, "route_not_in_tier")
        assert f"It is open to {opened_by}." in error["message"]
        assert got[place].headers["x-ratelimit-limit"] == str(TIERS[place[0]])
    assert got["free", "/exports/7"].headers["x-ratelimit-remaining"] == "50"
    assert people["free"].limit("requests/hour")["used"] == 0
    assert "/exports/7" in api.asked


@in_one_hour
def test_schedules_are_told_and_kept_to(here: Example) -> None:
    """D2: once, twice and four times a day are read as entitlements, with when it opens next; snapshots are taken then,
    and on request by Ultra alone.
    """  # noqa: D205
    for tier, times in SCHEDULES.items():
        person = here.person(tier)
        told = person.usage()["schedules"]["snapshots"]
        assert (told["at"], told["on_request"]) == (times, tier == "ultra")
        assert told["open"] is (tier == "ultra" or f"{moment(time.time())[11:13]}:00" in times)
        taken = person.ask("POST", "/snapshots")
        assert taken.status_code == (200 if told["open"] else 403)
        if not told["open"]:
            assert taken.json()["error"]["code"] == "outside_schedule"
            assert f"It opens at {told['next']}." in taken.json()["error"]["message"]


@pytest.mark.parametrize(
    ("status", "tier"),
    [
        ("free", "free"),
        ("active", "premium"),
        ("cancelled", "premium"),
        ("expired", "free"),
        ("pending", "free"),
    ],
)
def test_a_status_gives_its_tier(here: Example, status: str, tier: str) -> None:
    """D3: each of the five, from the next request; cancelled keeps the tier until what is paid is over."""
    person = here.person()
    assert hourly(person) == 50
    now_s = time.time()
    put(person, status, period_start=now_s - 60, period_end=now_s + HOUR_S)

    assert hourly(person) == TIERS[tier]
    assert person.usage()["tier"] == tier


def test_expiry_downgrades_at_its_second_with_no_job(here: Example) -> None:
    """D3: up to the second of the expiry, or of the end of what is paid, an account is on its tier, and from it on it
    is not: nothing is written, nothing told, no job runs. An own tier that was raised by hand doesn't keep it. Whoever
    sells the tier is hurt by an hour more, who paid for it by a minute less.
    """  # noqa: D205
    people = {("active", "expires_at"): here.person("ultra"), ("cancelled", "period_end"): here.person()}
    seen: dict[str, list[tuple[float, int, float]]] = {person.account: [] for person in people.values()}

    def all_are_on(limit: int) -> bool:
        for person in people.values():
            begun_s = time.time()
            seen[person.account].append((begun_s, hourly(person), time.time()))
        return all(looks[-1][1] == limit for looks in seen.values())

    def end_at(second: int) -> None:
        for (status, ends), person in people.items():
            paid = {"period_start": second - HOUR_S, "period_end": second + HOUR_S, ends: second}
            put(person, status, **paid)

    end_at(int(time.time()) + HOUR_S)
    assert all_are_on(500)
    over_s = int(time.time()) + 3
    end_at(over_s)
    written = [_written(person) for person in people.values()]
    until(lambda: all_are_on(50), 30)

    for person in people.values():
        before = [look for look in seen[person.account] if look[1] == 500]
        after = [look for look in seen[person.account] if look[1] == 50]
        assert seen[person.account] == before + after
        assert before[-1][0] < over_s + 0.5
        assert after[0][2] > over_s - 0.5
        assert f"was over at {moment(over_s)}" in person.explained()["reason"]
    assert [_written(person) for person in people.values()] == written


def _written(person: Person) -> tuple[str, str]:
    """All that is kept of the account's plan, and who changed it."""
    here = person.here
    return here.tollway(f"subscriptions show plan-{person.account}"), here.tollway(f"audit {person.account} --json")


@in_one_hour
def test_usage_is_kept_by_hour_account_and_endpoint(here: Example) -> None:
    """D4: who asked what how often, by the hour, under the route's name and not under each path; over all accounts the
    most used endpoints first, and each tier's requests.
    """  # noqa: D205
    person, hour_s = here.person("ultra"), int(time.time() // HOUR_S) * HOUR_S
    for path in ("/snapshots/1", "/snapshots/2", "/snapshots/3", "/status"):
        assert person.ask("GET", path).status_code == 200
    assert person.ask("POST", "/snapshots").status_code == 200
    until(lambda: person.usage()["today"]["requests"] == 5)
    counts = [("/snapshots/{id}", 3), ("/status", 1), ("take-snapshot", 1)]
    kept = person.usage("?hours=2")["hours"]
    assert [(one["hour"], one["endpoint"], one["requests"]) for one in kept] == [
        (moment(hour_s), *count) for count in counts
    ]
    printed = json.loads(here.tollway(f"usage {person.account} --hours 2 --json"))
    assert [(one["endpoint"], one["totals"]["requests"]) for one in printed] == counts
    assert "/snapshots/{id}" in here.tollway(f"usage {person.account} --hours 2")
    told = _stats(here)
    asked = [one["requests"] for one in told["endpoints"]]
    assert asked == sorted(asked, reverse=True)
    assert {one["name"]: one["requests"] for one in told["tiers"]}["ultra"] >= 5


def test_what_the_api_answers_itself_carries_limits_too(here: Example) -> None:
    """D5: an error of the API behind is passed on as it came, with the caller's limits beside it."""
    answer = here.person().ask("GET", "/snapshots/gone")

    assert (answer.status_code, answer.headers["x-ratelimit-limit"]) == (404, "50")
    assert answer.headers["ratelimit-policy"]
    assert 0 < int(answer.headers["x-ratelimit-reset"]) <= HOUR_S


@in_one_hour
def test_a_silent_limiter_does_not_break_the_api(here: Example) -> None:
    """D6: while Valkey stands still the API answers, with limits told; once it is back those requests count. Everybody
    is hurt by an API that goes down with its counters.
    """  # noqa: D205
    person = here.person("premium")
    assert person.ask("GET", "/status").status_code == 200
    valkey = here.processes()["valkey-server"]
    os.kill(valkey, signal.SIGSTOP)
    try:
        answers = [person.ask("GET", "/status") for _ in range(6)]
    finally:
        os.kill(valkey, signal.SIGCONT)
    assert [answer.status_code for answer in answers] == [200] * 6
    assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"500"}
    until(lambda: here.client.get("/_tollway/health/ready").status_code == 200)
    until(lambda: person.limit("requests/hour")["used"] == 7, 30)
    assert person.ask("GET", "/status").headers["x-ratelimit-remaining"] == "492"


@in_one_hour
def test_an_operator_sees_what_tier_an_account_is_on_and_why(here: Example) -> None:
    """D9: the effective tier with its reason and its end, the usage, and all tiers, each by one command."""
    person, over_s = here.person(), int(time.time()) + HOUR_S
    put(person, "cancelled", period_start=over_s - 2 * HOUR_S, period_end=over_s)
    assert hourly(person) == 500

    why = here.tollway(f"accounts explain {person.account}")
    assert f"tier premium, as its subscription is cancelled, until {moment(over_s)}: end of what is paid" in why
    assert "A request now: 200 admitted" in why
    until(lambda: " 1 " in here.tollway(f"usage {person.account}").partition("requests/hour")[2].partition("\n")[0])
    tiers = {one["name"]: one for one in json.loads(here.tollway("tiers --json"))["items"]}
    assert {name: one["limits"][0]["maximum"] for name, one in tiers.items()} == TIERS
    assert {name: one["schedules"]["snapshots"]["at"] for name, one in tiers.items()} == SCHEDULES
    assert [one["bandwidth_mbit_s"] for one in tiers.values()] == [50, 250, 500]
    assert "250 Mbit/s, snapshots at 00:00, 12:00" in here.tollway("tiers")


def test_statistics_tell_of_subscriptions_and_churn(here: Example) -> None:
    """D10: active subscriptions by tier, what was over and not renewed, and the share of refusals: one report."""
    before = _stats(here)
    stays, left, renewed = here.person(), here.person(), here.person()
    now_s = time.time()
    for person in (stays, left, renewed):
        put(person, "active", period_start=now_s - 60, period_end=now_s + HOUR_S)
    for person in (left, renewed):
        here.tollway(f"subscriptions end plan-{person.account}")
    here.tollway(f"subscriptions put again-{renewed.account} --account {renewed.account} --tier ultra --status active")

    told = _stats(here)

    assert told["subscriptions"]["premium"] == before["subscriptions"].get("premium", 0) + 1
    assert told["subscriptions"]["ultra"] == before["subscriptions"].get("ultra", 0) + 1
    assert (told["ended"], told["not_renewed"]) == (before["ended"] + 2, before["not_renewed"] + 1)
    assert 0 <= told["refusal_rate"] < 1


@in_one_hour
def test_a_tier_that_is_refused_can_be_alerted_on(here: Example) -> None:
    """D10: what the shipped alert reads is there, the tier's refusals beside its requests; the operator hears of a plan
    that turns people away before they write.
    """  # noqa: D205
    person, before = here.person(), _refusals(here)
    assert [person.ask("GET", "/status").status_code for _ in range(52)] == [200] * 50 + [429] * 2
    until(lambda: _refusals(here) == before + 2)

    told = read("TollwayMostAreRefused", samples_of(here.client.get("/_tollway/metrics").text))

    assert told["tollway_refusals_total"] >= 2
    assert told["tollway_tier_requests_total"] >= 52
