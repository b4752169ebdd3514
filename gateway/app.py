"""The composition root: settings in, a running gateway out. The only file that knows every part."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any
from zlib import crc32

from gateway.billing.stripe_billing import stripe_billing
from gateway.console.admin_desk import Desk
from gateway.console.app import console
from gateway.console.drift import Drift
from gateway.console.drift_watch import DriftWatch
from gateway.console.services import Services
from gateway.dialects.registry import DIALECTS
from gateway.domain.entitlements import Entitlements, Standing
from gateway.domain.faults import Fault
from gateway.edge.admission import Admission
from gateway.edge.bandwidth import Bandwidth
from gateway.edge.callers import Callers
from gateway.edge.client_address import ClientAddress
from gateway.edge.departure import Departures
from gateway.edge.entry import Entry
from gateway.edge.exchange import Receive, Scope, Send
from gateway.edge.extending import Extending
from gateway.edge.hydration import Hydration
from gateway.edge.keep_alive import KeepAlive
from gateway.edge.leases import Leases
from gateway.edge.metering import Metering
from gateway.edge.metering_verbs import MeteringVerbs
from gateway.edge.pace_table import PaceTable
from gateway.edge.proxy import Proxy
from gateway.edge.relay import Relay
from gateway.edge.routing import Routing
from gateway.edge.settling import Settling
from gateway.edge.websocket import WebSockets
from gateway.identity.directory import Directory
from gateway.identity.guesses import Guesses
from gateway.identity.issuers import key_sets, token_callers
from gateway.identity.key_sets import KeySet
from gateway.ledger.ledger import Ledger
from gateway.ledger.outbox import apply_outbox, run_outbox
from gateway.ledger.partitions import run_partitions
from gateway.metering.backlog import Backlog
from gateway.metering.flusher import Flusher
from gateway.metering.ratio import Ratios
from gateway.metering.tokenizer import Tokenizer
from gateway.quota.journal import Journal
from gateway.quota.journal_replay import JournalReplay
from gateway.quota.keys import Keyspace
from gateway.quota.lease import Lease
from gateway.quota.local_limiter import LocalLimiter
from gateway.quota.metered import MeteredRequests
from gateway.quota.outage import Outage
from gateway.quota.reaper import Reaper
from gateway.quota.redis_limiter import RedisLimiter
from gateway.quota.redis_links import link_of
from gateway.quota.redis_replay import RedisReplay
from gateway.quota.redis_survey import RedisSurvey
from gateway.quota.resp import RedisError
from gateway.quota.scripts import forbidden, preloading
from gateway.quota.usage_stream import RedisUsageStream
from gateway.settings.deployment import Deployment
from gateway.settings.model import Settings
from gateway.snapshot import Plan, Snapshot
from gateway.telemetry import catalogue
from gateway.telemetry.exposition import render
from gateway.telemetry.log import log
from gateway.telemetry.metrics import Metrics, Telemetry
from gateway.telemetry.snapshot import worker_file

MIB = 1024 * 1024
JOURNAL = "journal"
"""In data_dir."""

REPORT_INTERVAL_S = 1.0
DRAIN_S = 5.0
"""How long a stop waits for settlements to be confirmed, and again for the stream to be flushed."""


class Gateway:
    """One worker's gateway: `start` inside the loop that serves, then calls as an ASGI app, then `stop`."""

    def __init__(
        self, settings: Settings, deployment: Deployment, version: int = 1, paces: PaceTable | None = None
    ) -> None:
        """`version` counts the readings of gateway.yaml; `settings` are that one's. All workers share `paces`."""
        self._settings = settings
        self._version = version
        self._deployment = deployment
        self._paces = paces or PaceTable()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self._backlog = Backlog(settings.metering.max_backlog_events)
        self._oldest_ms: int | None = None
        self._metrics = Metrics(deployment.worker)
        self._metrics_file = worker_file(deployment.metrics_dir, deployment.worker)
        self._metrics.take_over(self._metrics_file)

    async def start(self) -> None:
        """Open every part. A limiter or ledger that is away doesn't stop the start: requests then say so."""
        settings, deployment = self._settings, self._deployment
        self._link = link_of(deployment.redis_url, timeout_s=settings.redis.timeout_ms / 1000, at_connect=preloading())
        try:
            await self._link.open()
            if lacking := await forbidden(self._link, settings.redis.namespace):
                log.error("limiter_forbids", detail=lacking)
        except Fault as fault:
            log.warning("limiter_away", detail=fault.internal)
        names = settings.redis.namespace, settings.redis.partitions
        self._keyspace = Keyspace(*names)
        self._outage = self._make_outage()
        self._limiter = RedisLimiter(
            self._link,
            namespace=names[0],
            partitions=names[1],
            failures=settings.redis.breaker_failures,
            longest_pause_s=settings.redis.breaker_longest_pause_ms / 1000,
            outage=self._outage,
        )
        await self._limiter.hear()
        self._replay = JournalReplay(
            self._outage,
            deployment.data_dir / JOURNAL,
            RedisReplay(self._link, self._keyspace, self._limiter.breaker).settle,
            lambda: self._limiter.breaker.open,
            per_s=settings.journal.replay_per_s,
        )
        self._ledger = Ledger.open(deployment.database_url, settings.database)
        self._billing = stripe_billing(
            settings, self._ledger, self._now_ms, tell=self._tell_gateways, count=self._metrics.count_stripe
        )
        self._stream = RedisUsageStream(self._link, *names)
        # The same after a restart: what this worker read before it died is its own to finish.
        self._owner = f"{os.uname().nodename}:{crc32(os.fsencode(deployment.data_dir)):08x}:{deployment.worker}"
        self._flusher = Flusher(
            self._stream,
            self._ledger,
            owner=self._owner,
            interval_s=settings.metering.flush_interval_ms / 1000,
            on_flushed=self._metrics.count_flushed,
            forget=self._limiter.forget,
        )
        survey = RedisSurvey(self._link, self._keyspace)
        drift = Drift(survey, self._limiter, self._ledger)
        self._drift = DriftWatch(self._ledger, survey, drift, self._lease("drift"), self._plan_of)
        self._entry = self._compose()
        self._start_tasks()

    def _start_tasks(self) -> None:
        """What goes on beside requests, until `stop`."""
        self._start(self._flusher.run())
        self._start(run_outbox(self._ledger, self._limiter.bump))
        if self._ledger.partitioned:
            self._start(run_partitions(self._ledger))
        self._start(self._reaper.run())
        self._start(self._replay.run())
        for work in self._billing.running(self._lease, self._owner):
            self._start(work)
        self._start(self._drift.run(self._owner))
        self._watch()
        self._start(self._report())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._entry(scope, receive, send)

    async def stop(self) -> None:
        """Confirm every settlement, flush what the stream holds, close every part. What is left waits in Redis."""
        self._stopping = True
        self._departures.close()
        self._keep_alive.close()
        unsettled = await self._limiter.drain(DRAIN_S)
        if unsettled:
            log.error("settlements_unconfirmed", count=unsettled)
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        unwritten = self._outage.write_again()
        if unwritten:
            log.error("usage_not_journaled", count=unwritten)
        await self._outage.journal.close()
        try:
            left = await self._flusher.drain(DRAIN_S)
            if left:
                log.warning("usage_left_for_later", events=left)
        except Fault as fault:
            log.warning("usage_left_for_later", detail=fault.internal)
        await self._routing.close()
        self._tokenizer.close()
        await self._billing.aclose()
        await self._ledger.close()
        self._limiter.breaker.close()
        await self._link.close()
        self._write_metrics()

    def reload(self, settings: Settings, version: int) -> None:
        """Serve by other upstreams, routes, tiers and rules of subscriptions from the next request on.

        All or nothing: raises ValueError or OSError for an upstream that can't be set up, and nothing has changed then.
        Requests under way keep what they have.
        """
        snapshot = self._routing.change(settings)
        self._settings, self._version = settings, version
        self._proxy.snapshot, self._admission.plans = snapshot, snapshot.plans
        self._directory.entitle_by(snapshot.entitle)
        self._billing.go_by(settings)

    async def tell_touched(self, tiers: tuple[str, ...]) -> None:
        """Log how many accounts are on each of these tiers, by their own tier or by what they have bought."""
        with suppress(Fault):
            log.info("tiers_changed", accounts=await self._ledger.accounts_on(tiers))

    def _make_outage(self) -> Outage:
        redis, journal = self._settings.redis, self._settings.journal
        local = LocalLimiter(
            share=redis.local_share,
            workers=self._settings.listen.workers,
            worker=self._deployment.worker % self._settings.listen.workers,
        )
        root = self._deployment.data_dir / JOURNAL
        return Outage(local, Journal(root, max_bytes=journal.max_mb * MIB, sync_s=journal.sync_ms / 1000))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _lease(self, name: str) -> Callable[[str, int], Awaitable[bool]]:
        return Lease(self._link, f"{self._settings.redis.namespace}:{name}").take

    def _now_ms(self) -> int:
        return self._limiter.now_ms

    def _compose(self) -> Entry:
        settings, deployment, limiter = self._settings, self._deployment, self._limiter
        metering = settings.metering
        self._departures = Departures(metering.max_drains, metering.drain_s)
        self._routing = Routing(self._departures, deployment.sandbox_url, self._metrics.count_attempt)
        snapshot = self._routing.change(settings)
        directory = self._directory = self._make_directory(snapshot)
        self._guesses = Guesses(directory, settings.guesses.failures, settings.guesses.window_s)
        callers = Callers(directory, self._guesses)
        ratios = Ratios()
        self._tokenizer = Tokenizer(
            metering.encoding,
            Path(metering.tokenizer_dir) if metering.tokenizer_dir else deployment.data_dir / "tokenizer",
        )
        self._keep_alive = KeepAlive(self._departures.running, settings.listen.keep_alive_comment_s)
        settling = Settling(limiter, ratios, self._tokenizer)
        hydration = Hydration(limiter, self._ledger)
        extending = Extending(limiter, hydration, settling, metering.extend_slice_tokens)
        leases = Leases(limiter, settling, self._departures.running, metering.hold_lease_s)
        self._reaper = Reaper(limiter, leases.renew)
        lease_ms, idle_s = metering.hold_lease_s * 1000, settings.listen.websocket_idle_s
        admission = self._admission = Admission(
            limiter, self._outage, directory, hydration, snapshot.plans, lease_ms, self._backlog
        )
        most_bytes = metering.max_buffered_answer_mb * MIB
        relay = Relay(settling, extending, self._departures, most_bytes)
        bandwidth = Bandwidth(self._paces, settings.listen.workers, asyncio.get_running_loop().time)
        self._proxy = Proxy(
            snapshot=snapshot,
            callers=callers,
            admission=admission,
            ratios=ratios,
            relay=relay,
            settling=settling,
            departures=self._departures,
            bandwidth=bandwidth,
            websockets=WebSockets(callers, admission, extending, relay, settling, bandwidth, idle_s, most_bytes),
            unmatched=DIALECTS["openai"],
            body_bytes=settings.listen.max_body_mb * MIB,
            finish=Telemetry(self._metrics, settings.log.requests).finish,
        )
        listen = settings.listen
        addresses = ClientAddress(listen.trusted_proxies, listen.forwarded_by) if listen.trusted_proxies else None
        requests = MeteredRequests(self._link, self._keyspace, limiter)
        verbs = MeteringVerbs(self._proxy, limiter, requests, hydration, self._ledger, self._outage.withdraw)
        return Entry(listen.prefix, console(self._services(directory)), self._proxy, Metering(verbs), addresses)

    def _make_directory(self, snapshot: Snapshot) -> Directory:
        def wall_clock() -> float:
            return self._limiter.now_ms / 1000

        return Directory(
            self._ledger,
            self._deployment.digest_key,
            entitle=snapshot.entitle,
            tokens=token_callers(self._settings, self._ledger, self._open_key_sets(), wall_clock),
            wall_clock=wall_clock,
        )

    def _open_key_sets(self) -> dict[str, KeySet]:
        sets = key_sets(self._settings)
        for key_set in sets.values():
            self._start(key_set.run())
        return sets

    def _services(self, directory: Directory) -> Services:
        settings, limiter = self._settings, self._limiter
        return Services(
            directory=directory,
            guesses=self._guesses,
            ledger=self._ledger,
            peek=limiter.peek,
            entitlements=self._entitlements,
            now_ms=self._now_ms,
            metrics=lambda: render(self._deployment.metrics_dir, self._metrics, workers=2 * settings.listen.workers),
            probes={"limiter": lambda: self._link.call("PING"), "ledger": self._ledger.ping},
            prefix=settings.listen.prefix,
            admin_token=os.environ.get("TOLLWAY_ADMIN_TOKEN", ""),
            webhook=self._billing.webhook,
            stopping=lambda: self._stopping,
            desk=self._desk(),
            admin_refused=self._metrics.count_admin_refused,
        )

    def _desk(self) -> Desk:
        return Desk(
            ledger=self._ledger,
            settings=lambda: self._settings,
            now_ms=self._now_ms,
            peek=self._limiter.peek,
            digest_key=self._deployment.digest_key,
            metrics_dir=self._deployment.metrics_dir,
            tell_gateways=self._tell_gateways,
        )

    async def _tell_gateways(self) -> None:
        """Empty the outbox now; where the limiter is silent, it is emptied once it answers again."""
        with suppress(Fault, RedisError):
            await apply_outbox(self._ledger, self._limiter.bump)

    def _entitlements(self, standing: Standing, now_s: int) -> Entitlements:
        """By the tiers and rules in force now."""
        return self._proxy.snapshot.entitlements(standing, now_s)

    async def _plan_of(self, account_id: str) -> Plan | None:
        tier = self._entitlements(await self._ledger.standing(account_id), self._now_ms() // 1000).tier
        return None if tier is None else Plan(tier)

    def _watch(self) -> None:
        """Gauges and counters that other parts keep."""
        watch = self._metrics.watch
        running = self._departures.running
        watch(catalogue.REQUESTS_RUNNING, lambda: len(running))
        watch(catalogue.STREAMS_OPEN, lambda: sum(exchange.record.streamed for exchange in running))
        watch(catalogue.ANSWERS_DRAINING, lambda: len(self._departures.draining))
        watch(catalogue.LIMITER_CALLS, lambda: self._limiter.script_runs)
        watch(catalogue.BREAKER_OPEN, lambda: self._limiter.breaker.open)
        watch(catalogue.LOCAL_ADMISSIONS, lambda: self._outage.admitted)
        watch(catalogue.JOURNAL_REPLAYED, lambda: self._replay.replayed)
        watch(catalogue.JOURNAL_SET_ASIDE, lambda: self._replay.set_aside)
        watch(catalogue.JOURNAL_BYTES, lambda: self._outage.journal.size)
        watch(catalogue.JOURNAL_FAILING, lambda: self._outage.journal.failing)
        watch(catalogue.WRONG_CREDENTIALS, lambda: self._guesses.wrong)
        watch(catalogue.GUESSES_SLOWED, lambda: self._guesses.slowed)
        watch(catalogue.HOLDS_REAPED, lambda: self._reaper.reaped)
        watch(catalogue.LIMITER_TIMEOUTS, lambda: self._link.timeouts)
        watch(catalogue.FLUSH_LAG, self._flush_lag_s)
        watch(catalogue.CONNECTIONS_OPEN, lambda: self._routing.connections()[0])
        watch(catalogue.CONNECTIONS_IDLE, lambda: self._routing.connections()[1])
        watch(catalogue.TARGETS_UNFIT, self._routing.unfit)
        watch(catalogue.SETTINGS_VERSION, lambda: self._version)
        self._billing.watched(watch)
        watch(catalogue.FLUSH_FAILURES, lambda: self._flusher.failures)
        watch(catalogue.USAGE_SET_ASIDE, lambda: self._flusher.set_aside)
        watch(catalogue.USAGE_BACKLOG, lambda: self._backlog.events)
        watch(catalogue.USAGE_BACKLOG_MAX, lambda: self._backlog.max_events)
        watch(catalogue.USAGE_BACKLOG_FULL, lambda: self._backlog.full)
        watch(catalogue.DRIFT_ACCOUNTS, lambda: self._drift.drifted)
        watch(catalogue.DRIFT_CHECKED, lambda: self._drift.checked)
        watch(catalogue.CLOCK_OFFSET, lambda: self._limiter.clock_offset_ms / 1000)

    def _flush_lag_s(self) -> float:
        if self._oldest_ms is None:
            return 0.0
        return max(0.0, (self._now_ms() - self._oldest_ms) / 1000)

    async def _report(self) -> None:
        """Write this worker's metrics where the worker that is scraped finds them."""
        while True:
            with suppress(Fault, RedisError):
                self._backlog.saw(await self._stream.backlog())
                self._oldest_ms = await self._stream.oldest_ms()
            self._write_metrics()
            await asyncio.sleep(REPORT_INTERVAL_S)

    def _write_metrics(self) -> None:
        try:
            self._metrics.write_snapshot(self._metrics_file)
        except OSError as error:
            log.warning("metrics_not_written", file=str(self._metrics_file), detail=str(error))
