"""The console: Tollway's own endpoints under one prefix. A cold path; what it costs, no proxied request pays."""

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from gateway.console.admin import admin_routes
from gateway.console.gauges import gauge_routes
from gateway.console.operations import OperationsPages
from gateway.console.replies import on_crash, on_fault, on_http_error
from gateway.console.services import Services
from gateway.console.stripe import StripePages
from gateway.console.usage import UsagePages
from gateway.domain.faults import Fault

__all__ = ["Services", "console"]


def console(services: Services) -> Starlette:
    """The ASGI app. Its routes carry the prefix: hand it the request's scope as it came."""
    prefix, usage, operations = services.prefix, UsagePages(services), OperationsPages(services)
    app = Starlette(
        routes=[
            Route(f"{prefix}/usage", usage.own_usage),
            Route(f"{prefix}/usage/history", usage.history),
            Route(f"{prefix}/usage/events/{{request_id}}", usage.event),
            *gauge_routes(services, usage),
            Route(f"{prefix}/health/live", operations.live),
            Route(f"{prefix}/health/ready", operations.ready),
            Route(f"{prefix}/metrics", operations.metrics),
            *admin_routes(services),
            Route(f"{prefix}/stripe/webhook", StripePages(services).webhook, methods=["POST"]),
        ],
        exception_handlers={Fault: on_fault, HTTPException: on_http_error, Exception: on_crash},
    )
    app.router.redirect_slashes = False
    return app
