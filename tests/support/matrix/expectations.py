"""What the ledger has to say in each cell of the matrix, in relation to the upstream's own count.

From docs/bound.md, docs/dialects.md and what providers bill, not from what the code does. A row that depends on the
tier's policy has two relations: `cancel / drain` where the client leaves, `stop / finish` where the quota runs out.
"""

from enum import StrEnum

from tests.support.matrix.endings import ENDINGS


class Is(StrEnum):
    """How the ledger stands to the upstream."""

    TOLD = "told"
    """The upstream's own count, as it told it at its end, or so far: input, output, cached and reasoning."""
    SENT = "sent"
    """The input, and every token of text that was sent: the count by the text is the upstream's own."""
    INPUT = "input"
    """The input: as told ahead of the answer, else as estimated."""
    ESTIMATE = "estimate"
    """The estimate: nothing in the answer can be counted."""
    REQUEST = "request"
    """The request and no tokens."""
    NOTHING = "nothing"
    """Neither tokens nor the request."""
    ABSENT = "-"
    """There is no such cell."""


Cell = Is | tuple[Is, Is]

COLUMNS = (
    "chat",
    "completions",
    "responses",
    "messages",
    "gemini events",
    "gemini array",
    "transcriptions",
    "speech",
    "images",
    "embeddings",
    "plain",
)

_WRITTEN: dict[str, Cell] = {
    "whole": Is.TOLD,
    "whole, no usage told": Is.SENT,
    "whole, in tool steps": Is.TOLD,
    "whole, client leaves": (Is.INPUT, Is.TOLD),
    "no answer": Is.NOTHING,
    "status 500": Is.NOTHING,
    "status 400": Is.REQUEST,
    "stream": Is.TOLD,
    "stream, no usage told": Is.SENT,
    "stream, in tool steps": Is.TOLD,
    "error event before any text": Is.NOTHING,
    "error event after text": Is.SENT,
    "cut before any text": Is.NOTHING,
    "cut between events": Is.SENT,
    "cut inside an event": Is.SENT,
    "client leaves before any text": (Is.INPUT, Is.TOLD),
    "client leaves midway": (Is.SENT, Is.TOLD),
    "client leaves after the text": (Is.SENT, Is.TOLD),
    "client leaves midway, no usage told": Is.SENT,
    "client leaves midway, cut then": Is.SENT,
    "quota runs out midway": (Is.SENT, Is.TOLD),
}
"""Of a dialect that writes text and tells its usage at the end."""

_NO_TOOLS: dict[str, Cell] = {name: Is.ABSENT for name in ENDINGS if "tool" in name}
_NO_STREAM: dict[str, Cell] = {name: Is.ABSENT for name, ending in ENDINGS.items() if ending.streamed}

_TELLS_AS_IT_GOES: dict[str, Cell] = {
    "error event after text": Is.TOLD,
    "cut between events": Is.TOLD,
    "cut inside an event": Is.TOLD,
    "client leaves midway": Is.TOLD,
    "client leaves after the text": Is.TOLD,
    "client leaves midway, cut then": Is.TOLD,
    "quota runs out midway": Is.TOLD,
}
_NO_TEXT: dict[str, Cell] = {
    "whole, no usage told": Is.ESTIMATE,
    "whole, client leaves": (Is.ESTIMATE, Is.TOLD),
    "stream, no usage told": Is.ESTIMATE,
    "error event after text": Is.ESTIMATE,
    "cut between events": Is.ESTIMATE,
    "cut inside an event": Is.ESTIMATE,
    "client leaves before any text": (Is.ESTIMATE, Is.TOLD),
    "client leaves midway": (Is.ESTIMATE, Is.TOLD),
    "client leaves after the text": (Is.ESTIMATE, Is.TOLD),
    "client leaves midway, no usage told": Is.ESTIMATE,
    "client leaves midway, cut then": Is.ESTIMATE,
    "quota runs out midway": Is.TOLD,
}
"""Pictures and sound. Half of one has no valid end: no quota stops it."""

_OWN: dict[str, dict[str, Cell]] = {
    "chat": {},
    "completions": _NO_TOOLS,
    "responses": {},
    "messages": {
        "error event before any text": Is.INPUT,
        "cut before any text": Is.INPUT,
    },
    "gemini events": _TELLS_AS_IT_GOES,
    "gemini array": _TELLS_AS_IT_GOES,
    "transcriptions": _NO_TOOLS,
    "speech": _NO_TEXT | _NO_TOOLS | {"whole": Is.ESTIMATE, "whole, client leaves": Is.ESTIMATE},
    "images": _NO_TEXT | _NO_TOOLS,
    "embeddings": _NO_TOOLS | _NO_STREAM | {"whole, no usage told": Is.INPUT},
    "plain": _NO_TOOLS
    | {
        "whole": Is.REQUEST,
        "whole, no usage told": Is.ABSENT,
        "whole, client leaves": Is.REQUEST,
        "stream": Is.REQUEST,
        "stream, no usage told": Is.ABSENT,
        "error event before any text": Is.ABSENT,
        "error event after text": Is.ABSENT,
        "cut between events": Is.REQUEST,
        "cut inside an event": Is.ABSENT,
        "client leaves before any text": Is.REQUEST,
        "client leaves midway": Is.REQUEST,
        "client leaves after the text": Is.REQUEST,
        "client leaves midway, no usage told": Is.ABSENT,
        "client leaves midway, cut then": Is.REQUEST,
        "quota runs out midway": Is.ABSENT,
    },
}

EXPECTED: dict[str, dict[str, Cell]] = {column: _WRITTEN | _OWN[column] for column in COLUMNS}
"""By column and row."""


def expected(column: str, row: str, *, exhausted: str, disconnect: str) -> Is:
    """Of one cell under one policy."""
    cell = EXPECTED[column][row]
    if isinstance(cell, Is):
        return cell
    first = exhausted == "stop" if ENDINGS[row].scant else disconnect == "cancel"
    return cell[0 if first else 1]
