"""The rows of the matrix: every way in which an answer can end, as the upstream and the client act it out."""

from dataclasses import dataclass
from enum import Enum, auto

from gateway.domain.usage import Outcome

WORDS = 4
TOO_MANY_WORDS = 700
SCANT_TOKENS = 500
"""The limit of who is to run out of quota: above any estimate here, below what the upstream then says."""

HELD_TOKENS = 20
"""What every request lets its answer cost."""


class Then(Enum):
    """How an upstream ends once it has said its words."""

    END = auto()
    ERROR = auto()
    CUT = auto()
    CUT_INSIDE = auto()
    SHUT = auto()
    """Before the head of an answer."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The upstream says `words`, waits where the client `leaves` there, and goes on to its end if it is still heard.

    `tells`: it reports its usage. `status`: it refuses with that. `steps`: it calls a function first, and tells its
    second answer's usage in parts.
    """

    streamed: bool = True
    words: int = WORDS
    then: Then = Then.END
    tells: bool = True
    leaves: bool = False
    status: int = 200
    scant: bool = False
    steps: bool = False

    def outcome(self, *, cancels: bool) -> Outcome:
        """Of the event, where the tier stops nothing; `cancels` what a client left."""
        if self.status != 200:
            return Outcome.UPSTREAM_ERROR if self.status >= 500 else Outcome.CLIENT_ERROR
        if self.leaves and (cancels or self.then is Then.END):
            return Outcome.CLIENT_GONE
        return {
            Then.END: Outcome.OK,
            Then.ERROR: Outcome.UPSTREAM_ERROR,
            Then.CUT: Outcome.UPSTREAM_CUT,
            Then.CUT_INSIDE: Outcome.UPSTREAM_CUT,
            Then.SHUT: Outcome.FAULT,
        }[self.then]


ENDINGS = {
    "whole": Ending(streamed=False),
    "whole, no usage told": Ending(streamed=False, tells=False),
    "whole, in tool steps": Ending(streamed=False, steps=True),
    "whole, client leaves": Ending(streamed=False, leaves=True),
    "no answer": Ending(streamed=False, then=Then.SHUT),
    "status 500": Ending(streamed=False, status=500),
    "status 400": Ending(streamed=False, status=400),
    "stream": Ending(),
    "stream, no usage told": Ending(tells=False),
    "stream, in tool steps": Ending(steps=True),
    "error event before any text": Ending(words=0, then=Then.ERROR),
    "error event after text": Ending(words=2, then=Then.ERROR),
    "cut before any text": Ending(words=0, then=Then.CUT),
    "cut between events": Ending(words=2, then=Then.CUT),
    "cut inside an event": Ending(words=2, then=Then.CUT_INSIDE),
    "client leaves before any text": Ending(words=0, leaves=True),
    "client leaves midway": Ending(words=2, leaves=True),
    "client leaves after the text": Ending(leaves=True),
    "client leaves midway, no usage told": Ending(words=2, leaves=True, tells=False),
    "client leaves midway, cut then": Ending(words=2, leaves=True, then=Then.CUT),
    "quota runs out midway": Ending(words=TOO_MANY_WORDS, scant=True),
}
