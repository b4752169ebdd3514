"""The metering API beside a plain model: any verbs in any order, each sent once or a few times at once (B1)."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.metering import App, app_beside
from tests.support.shifted_clock import shifted_clock
from tests.support.stand import SETTINGS
from tests.support.until import until
from tests.support.valkey import ValkeyServer

LIMIT = 1000
VERBS = ("reserve", "extend", "lease", "settle", "release", "usage")
HELD, SETTLED, RELEASED = "held", "settled", "released"

Step = tuple[str, str, int, int]
"""A verb, a request id, an amount of tokens, and how often it is sent at once."""

STEPS = st.lists(
    st.tuples(st.sampled_from(VERBS), st.sampled_from("ab"), st.integers(0, 700), st.integers(1, 3)), max_size=10
)


@dataclass
class Model:
    """What the limit and each request have to come to."""

    state: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def used(self) -> int:
        """Tokens held or charged."""
        return sum(tokens for _, tokens in self.state.values())

    @property
    def running(self) -> int:
        """Requests held."""
        return sum(state == HELD for state, _ in self.state.values())

    def take(self, verb: str, name: str, tokens: int) -> int:
        """The status that the verb has to answer; the model moves with it."""
        state = self.state.get(name, ("", 0))[0]
        if verb in {"reserve", "extend"}:
            return self._hold(verb, name, tokens)
        if not state and verb != "usage":
            return 404
        if verb == "lease":
            return 200 if state == HELD else 409
        ends_as = RELEASED if verb == "release" else SETTLED
        if state in {"", HELD}:
            self.state[name] = ends_as, 0 if verb == "release" else tokens
            return 200
        return 200 if state == ends_as else 409

    def _hold(self, verb: str, name: str, tokens: int) -> int:
        state, before = self.state.get(name, ("", 0))
        if state in {SETTLED, RELEASED}:
            return 409
        if verb == "reserve" and state == HELD:
            return 200
        if verb == "extend" and not state:
            return 404
        if tokens > before and self.used - before + tokens > LIMIT:
            return 429
        self.state[name] = HELD, max(before, tokens)
        return 200


async def send(app: App, verb: str, name: str, tokens: int) -> int:
    """One call; its status."""
    body: dict[str, object] = {"request_id": name}
    if verb in {"reserve", "extend"}:
        body["estimate"] = {"input_tokens": tokens}
    if verb in {"settle", "usage"}:
        body["usage"] = {"output_tokens": tokens}
    return (await app.post(verb, **body)).status_code


async def play(app: App, steps: Sequence[Step]) -> None:
    """Take the steps, and compare answers, count and slots after each."""
    model = Model()
    for verb, name, tokens, copies in steps:
        expected = model.take(verb, name, tokens)
        answers = await asyncio.gather(*[send(app, verb, name, tokens) for _ in range(copies)])
        assert set(answers) == {expected}, (verb, name, tokens)

        async def agrees() -> bool:
            if not model.state:
                return True
            return (await app.used(), await app.running()) == (model.used, model.running)

        await until(agrees)
    for name, (state, tokens) in model.state.items():
        if state != HELD:
            event = await app.here.event(app.wire_id(name))
            assert event.input_tokens + event.output_tokens == tokens


@pytest.fixture
def runner(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[asyncio.Runner, App]]:
    """A loop of the test's own, and a gateway in it at noon: no day ends here. It waits for a slow Redis."""
    shifted_clock(monkeypatch).put(window_s=86_400, left_s=43_200)
    with asyncio.Runner() as loop:
        opened = app_beside(
            tmp_path, valkey, settings=SETTINGS.replace("namespace: tw", "namespace: tw, timeout_ms: 20000")
        )
        yield loop, loop.run(opened.__aenter__())
        loop.run(opened.__aexit__(None, None, None))


@pytest.mark.timeout(240)
def test_any_order_of_verbs_is_charged_once(runner: tuple[asyncio.Runner, App]) -> None:
    """Retries, duplicates and verbs out of order neither lose nor double a token, nor leave a slot taken."""
    loop, app = runner
    numbers = count()

    @settings(deadline=None, max_examples=70)
    @given(STEPS)
    def story(steps: list[Step]) -> None:
        async def fresh() -> None:
            name = f"account-{next(numbers)}"
            await play(App(app.here, await app.here.account(name), name), steps)

        loop.run(fresh())

    story()
