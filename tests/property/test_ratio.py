"""The learned ratio: reserves enough, for sources of any kind, in bounded memory (row B1)."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.metering.ratio import FIRST_RATIO, LEAST_RATIO, MAX_MODELS, MOST_RATIO, Ratios

_SIZES = st.integers(1, 10**7)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), mean=st.floats(0.08, 0.6), spread=st.floats(0.0, 0.25))
def test_reserves_enough_for_a_stationary_source(seed: int, mean: float, spread: float) -> None:
    """Of a source that keeps its kind, 19 of 20 prompts cost no more than reserved; else windows overshoot."""
    source, ratios = random.Random(seed), Ratios()
    enough = 0
    for prompt in range(600):
        size = source.randint(50, 20_000)
        tokens = max(1, round(size * min(MOST_RATIO, max(LEAST_RATIO, source.gauss(mean, spread * mean)))))
        enough += prompt >= 100 and ratios.tokens("m", size) >= tokens
        ratios.learn("m", size, tokens)

    assert enough >= 475


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), mean=st.floats(0.08, 0.6))
def test_comes_down_to_a_steady_source(seed: int, mean: float) -> None:
    """For a source that hardly varies the reserve ends near the truth; else callers are refused what they have."""
    source, ratios = random.Random(seed), Ratios()
    for _ in range(200):
        ratios.learn("m", 10_000, round(10_000 * source.gauss(mean, 0.02 * mean)))

    assert mean * 0.97 <= ratios.ratio("m") <= mean * 1.15


@given(prompts=st.lists(st.tuples(st.integers(-5, 10**7), st.integers(-5, 10**9)), max_size=30), size=_SIZES)
def test_never_nothing_and_never_absurd(prompts: list[tuple[int, int]], size: int) -> None:
    """Whatever upstreams report, a prompt that has bytes is reserved for, within the bounds."""
    ratios = Ratios()
    for prompt_bytes, tokens in prompts:
        ratios.learn("m", prompt_bytes, tokens)

    tokens = ratios.tokens("m", size)

    assert 1 <= tokens <= 2 * size + 1
    assert tokens >= size * LEAST_RATIO
    assert ratios.tokens("m", 0) == 0


@given(size=_SIZES)
def test_an_unknown_model_costs_the_first_ratio(size: int) -> None:
    """A model seen for the first time is reserved for at half a token a byte, rounded up."""
    assert _rounded_up(Ratios().tokens("new", size), size * FIRST_RATIO)


def _rounded_up(tokens: int, exact: float) -> bool:
    """Rounded up, by less than one."""
    return exact <= tokens < exact + 1


def test_models_are_bounded_and_the_stalest_goes() -> None:
    """A caller that makes up model names can't fill the memory, nor push out a model that is in use."""
    ratios, learned = Ratios(), []
    for number in range(3 * MAX_MODELS):
        ratios.learn(f"made-up-{number}" + "x" * 10_000, 1000, 100)
        ratios.learn("in-use", 1000, 100)
        learned.append(ratios.ratio("in-use"))

    assert len(ratios._models) == MAX_MODELS
    assert max(learned[100:]) < 0.101
    assert max(map(len, ratios._models)) <= 200
    assert ratios.ratio("made-up-0" + "x" * 10_000) == FIRST_RATIO
