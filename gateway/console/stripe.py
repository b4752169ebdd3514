"""Where Stripe's webhooks arrive: `POST {prefix}/stripe/webhook`.

2xx is answered once the event and its effect are in the ledger, or the event waits there for its account (202); 503
where it is stored and could not be applied, so that Stripe tells of it too.
"""

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.billing.signature import Doubt
from gateway.billing.webhook import MAX_BYTES, Webhook
from gateway.console.replies import answer, parameters
from gateway.console.services import Services
from gateway.domain.faults import BODY_TOO_LARGE, CLIENT_GONE, NOT_FOUND, Fault
from gateway.ledger.stripe_inbox import State

_STATUS = {State.APPLIED: 200, State.IGNORED: 200, State.PARKED: 202}
_OFF = "Webhooks of Stripe are off. Put the endpoint's signing secret under stripe.webhook_secrets in gateway.yaml."


class StripePages:
    """The endpoint `{prefix}/stripe/webhook`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def webhook(self, request: Request) -> Response:
        """Take one event in."""
        parameters(request)
        webhook = self._services.webhook
        if webhook is None:
            raise Fault(NOT_FOUND, public=_OFF)
        body = await _read(request, webhook)
        event_id, state = await webhook.receive(body, request.headers.get("stripe-signature", ""))
        return answer(request, {"event": event_id, "state": state.value}, _STATUS.get(state, 503))


async def _read(request: Request, webhook: Webhook) -> bytes:
    """The body as it came. Raises Fault(BODY_TOO_LARGE), Fault(CLIENT_GONE)."""
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BYTES:
                webhook.refused(Doubt.TOO_LARGE, len(body))
                raise Fault(BODY_TOO_LARGE)
    except ClientDisconnect:
        raise Fault(CLIENT_GONE) from None
    return bytes(body)
