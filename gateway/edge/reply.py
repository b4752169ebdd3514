"""Answers of the gateway's own, and the head of every answer: status, fields, limit state, request id."""

import time

from gateway.domain.decisions import Refused
from gateway.domain.faults import CLIENT_GONE, UPSTREAM_RATE_LIMITED, Fault
from gateway.domain.limits import Remedy
from gateway.edge.exchange import Exchange
from gateway.upstream.transport import RawHeaders

RETRIED_S = 60
"""Longest Retry-After, in seconds, that every official SDK waits for; told of a longer one some retry too early."""

OF_THE_UPSTREAM = b"x-tollway-upstream"
"""On a 429 that is the upstream's, not a limit of the caller's: the upstream's name."""

JSON = (b"content-type", b"application/json")


def state_headers(exchange: Exchange) -> RawHeaders:
    """The request id, and where the caller's limits stand as far as they are known."""
    headers: RawHeaders = [(b"x-request-id", exchange.request_id.encode())]
    if exchange.used and exchange.frame is not None:
        now_s = exchange.admitted_ms // 1000
        headers += exchange.frame.headers(exchange.used, now_s, exchange.dialect.limit_fields)
    return headers


async def send_whole(exchange: Exchange, status: int, headers: RawHeaders, body: bytes) -> None:
    """Send an answer in one piece. `headers` lack its length."""
    record = exchange.record
    record.status, record.response_bytes = status, len(body)
    headers.append((b"content-length", b"%d" % len(body)))
    exchange.head_sent = exchange.over = True
    record.first_byte_s = time.perf_counter()
    await exchange.send({"type": "http.response.start", "status": status, "headers": headers})
    await exchange.send({"type": "http.response.body", "body": body})


async def send_refusal(exchange: Exchange, refused: Refused) -> None:
    """In the dialect's own shape. `Retry-After` is exact; where waiting can't help, SDKs are told not to retry."""
    exchange.record.outcome, exchange.record.limit = "refused", refused.limit
    headers = [JSON, *_own_headers(exchange)]
    wait_s = refused.retry_after_s if refused.remedy is Remedy.WAIT else None
    if wait_s is not None:
        headers.append((b"retry-after", b"%d" % wait_s))
    headers.append((b"x-should-retry", b"true" if wait_s is not None and wait_s <= RETRIED_S else b"false"))
    status = exchange.dialect.refusal_status(refused)
    await send_whole(exchange, status, headers, exchange.dialect.refusal_body(refused, exchange.request_id))


async def send_fault(exchange: Exchange, fault: Fault) -> None:
    """The fault in the dialect's own shape; nothing where the client has left."""
    record = exchange.record
    record.fault, record.detail = fault.kind.code, fault.internal
    record.outcome = record.outcome or "fault"
    if fault.kind is CLIENT_GONE or exchange.head_sent:
        return
    headers = [JSON, *_own_headers(exchange)]
    if fault.kind.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="tollway"'))
    headers += _whether_to_retry(fault)
    if fault.kind is UPSTREAM_RATE_LIMITED:
        headers.append((OF_THE_UPSTREAM, record.upstream.encode()))
    await send_whole(exchange, fault.kind.status, headers, exchange.dialect.fault_body(fault, exchange.request_id))


def _whether_to_retry(fault: Fault) -> RawHeaders:
    """What SDKs go by where the status alone would have them come too early, or for nothing."""
    wait_s = fault.retry_after_s
    if fault.kind.final:
        return [(b"x-should-retry", b"false")]
    if wait_s is not None:
        told = b"true" if wait_s <= RETRIED_S else b"false"
        return [(b"retry-after", b"%d" % max(1, wait_s)), (b"x-should-retry", told)]
    return [(b"retry-after", b"1")] if fault.kind.status == 503 else []


def _own_headers(exchange: Exchange) -> RawHeaders:
    """As `state_headers`, the request id also where the dialect's SDKs look for it."""
    headers, name = state_headers(exchange), exchange.dialect.request_id_field
    return headers if name == b"x-request-id" else [*headers, (name, exchange.request_id.encode())]
