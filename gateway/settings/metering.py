"""What gateway.yaml may say of metering, as types; as `settings/model.py`, of which this is a part."""

from typing import Annotated

from msgspec import Meta, field

from gateway.settings import checks
from gateway.settings.section import Seconds, Section

HeaderName = Annotated[
    str,
    Meta(
        pattern=r"^([a-z0-9][a-z0-9-]{0,63})?$",
        extra={"rule": "a header's name in small letters", "check": checks.id_header},
    ),
]


class AppIdSettings(Section, frozen=True, kw_only=True):
    """Where apps say which conversation and message of theirs a request belongs to; empty is nowhere."""

    conversation_header: Annotated[HeaderName, Meta(description="A request header with the conversation's id.")] = ""
    message_header: Annotated[HeaderName, Meta(description="A request header with the message's id.")] = ""
    metadata: Annotated[
        bool, Meta(description="Read conversation_id and message_id in the body's metadata, where no header says.")
    ] = False


class Metering(Section, frozen=True, kw_only=True):
    """How usage is counted and written down."""

    encoding: Annotated[
        str,
        Meta(
            description="tiktoken vocabulary for answers whose usage the upstream did not report.",
            extra={"check": checks.encoding},
        ),
    ] = "o200k_base"
    tokenizer_dir: Annotated[str, Meta(description="Where that vocabulary lies; empty: data_dir/tokenizer.")] = ""
    max_buffered_answer_mb: Annotated[
        int, Meta(ge=1, le=1024, description="Largest whole answer that is read for its usage, MiB.")
    ] = 8
    flush_interval_ms: Annotated[
        int, Meta(ge=10, le=60_000, description="How often settled usage moves from Redis to the ledger.")
    ] = 200
    max_backlog_events: Annotated[
        int, Meta(ge=1, le=1_000_000_000, description="Events that may wait for the ledger; then new requests get 503.")
    ] = 1_000_000
    hold_lease_s: Annotated[
        int, Meta(ge=5, le=3600, description="How long a dead gateway's reservations are held.")
    ] = 60
    extend_slice_tokens: Annotated[
        int, Meta(ge=16, le=1_000_000, description="Held at a time for a stream that runs past its estimate.")
    ] = 256
    max_drains: Annotated[
        int,
        Meta(ge=1, le=65_536, description="Answers that a worker reads on for clients who left; more are let go."),
    ] = 64
    drain_s: Annotated[Seconds, Meta(description="How long such an answer is read on.")] = 300
    app_ids: AppIdSettings = field(default_factory=AppIdSettings)
