"""Speaks to the admin API of a console, and holds every answer against the OpenAPI document."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.ledger.ledger import Ledger
from tests.support.consoles import Bench, console_over
from tests.support.json_schema import mismatches

TOKEN = "operators-only"
ROOT = "/_tollway/admin"


class AdminClient:
    """`bench` are the parts behind it; `document` is the OpenAPI document that it serves."""

    def __init__(self, bench: Bench, document: dict[str, Any]) -> None:
        self.bench = bench
        self.document = document

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """One request with the admin token. Fails unless the document tells of such an answer."""
        fields = {"authorization": f"Bearer {TOKEN}", **headers}
        answer = await self.bench.client.request(method, ROOT + path, json=body, headers=fields)
        self.check(method, path, answer)
        return answer

    async def get(self, path: str, status: int = 200) -> Any:
        """What a GET tells."""
        answer = await self.send("GET", path)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def do(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        """What a change tells."""
        answer = await self.send(method, path, body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def check(self, method: str, path: str, answer: httpx.Response) -> None:
        """Hold an answer against the document."""
        segments = path.partition("?")[0].split("/")
        for template, operations in self.document["paths"].items():
            parts = template.split("/")
            fits = len(parts) == len(segments) and all(
                part == segment or part.startswith("{") for part, segment in zip(parts, segments, strict=True)
            )
            if fits and method.lower() in operations:
                told = operations[method.lower()]["responses"][str(answer.status_code)]
                schema = told["content"]["application/json"]["schema"]
                wrong = mismatches(answer.json(), schema, self.document["components"]["schemas"])
                assert wrong == [], f"{method} {path}: {wrong}"
                return
        pytest.fail(f"the document doesn't tell of {method} {path}")


@asynccontextmanager
async def admin_over(ledger: Ledger) -> AsyncIterator[AdminClient]:
    """An admin API over a ledger."""
    async with console_over(ledger, admin_token=TOKEN) as bench:
        answer = await bench.get("/admin/openapi.json", TOKEN)
        assert answer.status_code == 200, answer.text
        yield AdminClient(bench, answer.json())
