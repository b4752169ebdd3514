"""The examples of `docs/metering-api.md` do what the page says."""

import asyncio
import json
import os
from pathlib import Path

from tests.house.test_docs_commands import blocks
from tests.support.metering import app_beside
from tests.support.valkey import ValkeyServer

PAGE = (Path(__file__).parents[2] / "docs" / "metering-api.md").read_text(encoding="utf-8")


async def test_the_pages_lines_answer_what_it_shows(tmp_path: Path, valkey: ValkeyServer) -> None:
    """Whoever pastes the page's lines gets its answers; a client written from it would fail otherwise (B1, B5)."""
    examples, shown = blocks("sh", PAGE), blocks("json", PAGE)
    async with app_beside(tmp_path, valkey) as app:
        environment = os.environ | {"TOLLWAY": app.here.url, "KEY": app.key}
        for lines, answer in zip(examples, shown, strict=True):
            curl = await asyncio.create_subprocess_exec(
                "bash", "-c", lines, env=environment, stdout=asyncio.subprocess.PIPE
            )
            printed, _ = await curl.communicate()
            told, expected = json.loads(printed), json.loads(answer)
            assert told.keys() == expected.keys(), lines
            assert {name: told[name] for name in told if expected[name] != "…"} == {
                name: value for name, value in expected.items() if value != "…"
            }, lines
