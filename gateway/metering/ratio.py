"""The learned ratio of tokens to bytes, per model: what admission takes a prompt to cost before anyone has counted it.

The estimate is meant to be too high rather than too low: mean plus three mean deviations, both moving averages, as TCP
sets its retransmission time (RFC 6298). O(1) a call; bounded in models, the one longest without news goes first.
"""

import msgspec

FIRST_RATIO = 0.5
"""Tokens a byte for a model not yet known: twice and more what English or JSON come to."""

LEAST_RATIO, MOST_RATIO = 0.05, 2.0
"""No text costs less for long; more than a token a byte comes of instructions that an upstream adds."""

MAX_MODELS = 1_000
MAX_NAME_CHARS = 200

_DEVIATIONS = 3.0
_MEAN_GAIN, _DEVIATION_GAIN = 1 / 16, 1 / 8


class _Seen(msgspec.Struct, gc=False):
    mean: float
    deviation: float


class Ratios:
    """The ratios of one process. Not durable: a fresh process begins with the first ratio and learns within seconds."""

    def __init__(self) -> None:
        self._models: dict[str, _Seen] = {}

    def tokens(self, model: str, prompt_bytes: int) -> int:
        """Input tokens to reserve for a prompt of so many bytes: at least 1, and 0 only where there are no bytes."""
        return -int(-prompt_bytes * self.ratio(model) // 1) if prompt_bytes > 0 else 0

    def ratio(self, model: str) -> float:
        """Tokens a byte to reserve with, between `LEAST_RATIO` and `MOST_RATIO`."""
        seen = self._models.get(model[:MAX_NAME_CHARS])
        if seen is None:
            return FIRST_RATIO
        return min(MOST_RATIO, max(LEAST_RATIO, seen.mean + _DEVIATIONS * seen.deviation))

    def learn(self, model: str, prompt_bytes: int, input_tokens: int) -> None:
        """Take in what an upstream counted. What can't be true (no bytes, no tokens) teaches nothing."""
        if prompt_bytes <= 0 or input_tokens <= 0:
            return
        name = model[:MAX_NAME_CHARS]
        ratio = min(MOST_RATIO, input_tokens / prompt_bytes)
        seen = self._models.pop(name, None)
        if seen is None:
            seen = _Seen(ratio, ratio / 2)
            if len(self._models) >= MAX_MODELS:
                del self._models[next(iter(self._models))]
        else:
            miss = ratio - seen.mean
            seen.mean += miss * _MEAN_GAIN
            seen.deviation += (abs(miss) - seen.deviation) * _DEVIATION_GAIN
        self._models[name] = seen
