"""Asks each target of an upstream in the background whether it is well, where the settings name a path to ask for.

Promises: at most one question at a time to a target, none waits for another's; costs requests nothing.
"""

import asyncio
import random

from gateway.domain.faults import Fault
from gateway.settings.upstreams import HealthSettings
from gateway.upstream.choice import Member, Upstream

_MOST_BYTES = 65_536


async def run_checks(upstream: Upstream, asked: HealthSettings) -> None:
    """Until cancelled. Intervals are jittered, so that workers don't ask as one."""
    while True:
        await asyncio.gather(*(_check(member, asked) for member in upstream.members))
        await asyncio.sleep(asked.interval_s * random.uniform(0.9, 1.1))  # noqa: S311  # jitter is no secret


async def _check(member: Member, asked: HealthSettings) -> None:
    try:
        async with asyncio.timeout(asked.timeout_s):
            status = await _status(member, asked.path)
    except TimeoutError:
        member.health.checked(f"health check: no answer within {asked.timeout_s} s")
    except Fault as fault:
        member.health.checked(f"health check: {fault.internal}")
    else:
        member.health.checked("" if status < 400 else f"health check: answered {status}")


async def _status(member: Member, path: str) -> int:
    target = member.target
    fields = [] if target.credential is None else [target.credential]
    answer = await target.transport.send(b"GET", path.encode(), fields, b"")
    try:
        await answer.read_all(_MOST_BYTES)
    finally:
        answer.close()
    return answer.status
