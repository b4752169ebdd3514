"""Schedules: the times of day, in UTC, at which a tier's accounts get something, and how long each time stays open.

Pure arithmetic, without a state: an opening is there for everybody, and nothing counts who has used it.
"""

from dataclasses import dataclass

DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Schedule:
    """Opens at each second of the day in `at_s` (rising, at least one) for `open_s`; `on_request` is always open."""

    at_s: tuple[int, ...]
    open_s: int
    on_request: bool = False

    def is_open(self, now_s: int) -> bool:
        """Whether it is open at a Unix second."""
        return self.on_request or now_s - self.last_s(now_s) < self.open_s

    def last_s(self, now_s: int) -> int:
        """The Unix second at which it last opened, `now_s` at the latest."""
        day_s, second = now_s - now_s % DAY_S, now_s % DAY_S
        begun = [at_s for at_s in self.at_s if at_s <= second]
        return day_s + begun[-1] if begun else day_s - DAY_S + self.at_s[-1]

    def next_s(self, now_s: int) -> int:
        """The Unix second, after `now_s`, at which it opens next."""
        day_s, second = now_s - now_s % DAY_S, now_s % DAY_S
        coming = [at_s for at_s in self.at_s if at_s > second]
        return day_s + coming[0] if coming else day_s + DAY_S + self.at_s[0]
