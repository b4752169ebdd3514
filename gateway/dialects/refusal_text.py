"""A refusal in plain words, the same in every dialect: which limit, how much of it, and what helps. Pure."""

from gateway.domain.decisions import Refused
from gateway.domain.limits import OWNER, Remedy


def describe(refused: Refused) -> str:
    """One or two sentences for the caller; `wait` and `pay` never read alike."""
    limit, _, owner = refused.limit.partition(OWNER)
    whose = " of this API key" if owner else ""
    if limit == "concurrency":
        what = f"Too many requests{whose} under way at once: the limit is {refused.maximum:,}."
    else:
        name = limit.replace("_", " ").replace("/", " per ") + whose
        what = f"Limit of {refused.maximum:,} {name}: {refused.left:,} left, this request needs {refused.needed:,}."
    if refused.remedy is Remedy.PAY:
        return f"{what} Waiting does not help before the period ends; a larger plan does."
    if refused.retry_after_s is None:
        return f"{what} It is larger than the limit itself; ask for fewer tokens."
    unit = "second" if refused.retry_after_s == 1 else "seconds"
    return f"{what} Try again in {refused.retry_after_s:,} {unit}."
