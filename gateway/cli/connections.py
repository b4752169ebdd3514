"""What the commands on accounts, keys and usage work with: settings, the ledger, and Redis where it answers.

A change is in the ledger first. The limiter is told of it at once where Redis answers; where it doesn't, the change
waits in the outbox, which every running gateway empties each second.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.cli.bad_input import BadInput
from gateway.cli.redis_url import check_redis_url
from gateway.domain.entitlements import Standing, entitlements
from gateway.domain.faults import Fault
from gateway.domain.limits import Tier
from gateway.ledger.ledger import Ledger
from gateway.ledger.outbox import apply_outbox
from gateway.ledger.schema import ensure_schema
from gateway.quota.keys import Keyspace
from gateway.quota.redis_limiter import RedisLimiter
from gateway.quota.redis_links import Link, link_of
from gateway.quota.redis_survey import RedisSurvey
from gateway.quota.resp import RedisError
from gateway.quota.usage_stream import RedisUsageStream
from gateway.settings.deployment import Deployment, DeploymentError, deployment_of
from gateway.settings.load import load
from gateway.settings.mistakes import SettingsError
from gateway.settings.model import Settings
from gateway.settings.tiers import rules_of, tier_of, tiers_of


@dataclass(frozen=True, slots=True)
class Live:
    """The live side: counters, and events on their way to the ledger."""

    limiter: RedisLimiter
    stream: RedisUsageStream
    survey: RedisSurvey


@dataclass(frozen=True, slots=True)
class Connections:
    """Settings and an open ledger."""

    settings: Settings
    deployment: Deployment
    ledger: Ledger

    def tier(self, name: str) -> Tier:
        """A tier of the settings. Raises BadInput with the tiers that there are."""
        tier = self.settings.tiers.get(name)
        if tier is None:
            raise BadInput(f"there is no tier `{name}`; there are: {', '.join(self.settings.tiers)}")
        return tier_of(name, tier)

    def entitled_tier(self, standing: Standing, now_s: int) -> Tier:
        """The tier that counts for an account, made out for it. Raises BadInput where the settings lack it."""
        found = entitlements(standing, now_s, tiers_of(self.settings), rules_of(self.settings))
        return found.tier or self.tier(found.effective.tier)

    @asynccontextmanager
    async def live(self) -> AsyncIterator[Live | None]:
        """The live side, None where Redis doesn't answer."""
        redis = self.settings.redis
        link = link_of(self.deployment.redis_url, timeout_s=redis.timeout_ms / 1000, client_name="tollway-cli")
        try:
            live = await _open(link, redis.namespace, redis.partitions)
            yield live
        finally:
            await link.close()

    async def tell_gateways(self) -> None:
        """Empty the outbox, so that changes count from the next request; or say when they will."""
        async with self.live() as live:
            try:
                if live is not None:
                    await apply_outbox(self.ledger, live.limiter.bump)
                    return
            except (Fault, RedisError) as error:
                print(f"tollway: {error}", file=sys.stderr)
        note = (
            "Redis does not answer: running gateways take this up within a second of seeing it, others at their start."
        )
        print(note, file=sys.stderr)


async def _open(link: Link, namespace: str, partitions: int) -> Live | None:
    try:
        await link.open()
    except Fault:
        return None
    return Live(
        RedisLimiter(link, namespace=namespace, partitions=partitions),
        RedisUsageStream(link, namespace, partitions),
        RedisSurvey(link, Keyspace(namespace, partitions)),
    )


def deployed(file: Path) -> tuple[Settings, Deployment]:
    """The settings in `file` and where they are deployed. Raises BadInput with all that is wrong."""
    try:
        settings = load(file, os.environ)
        deployment = deployment_of(settings)
    except (SettingsError, DeploymentError) as error:
        raise BadInput(str(error)) from error
    check_redis_url(deployment.redis_url)
    return settings, deployment


@asynccontextmanager
async def connected(file: Path) -> AsyncIterator[Connections]:
    """Connections as the settings in `file` say, the ledger migrated. Raises BadInput and Fault."""
    settings, deployment = deployed(file)
    await ensure_schema(deployment.database_url, settings.database)
    ledger = Ledger.open(deployment.database_url, settings.database)
    try:
        yield Connections(settings, deployment, ledger)
    finally:
        await ledger.close()
