"""Plays a column of the matrix: every row under every policy at once, through one gateway, and then all at rest."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import msgspec

from gateway.metering.tokenizer import save_vocabulary
from tests.support.encoding import tiny_vocabulary
from tests.support.matrix.cell import Cell
from tests.support.matrix.clients import callers
from tests.support.matrix.columns import COLUMNS, POLICIES, SETTINGS, TIERS
from tests.support.matrix.endings import ENDINGS
from tests.support.matrix.expectations import Is
from tests.support.matrix.upstream import stage
from tests.support.stand import stand
from tests.support.truth_balance import at_rest, events_of
from tests.support.valkey import ValkeyServer


def cells_of(title: str, rows: Iterable[str] = ENDINGS) -> list[Cell]:
    """The cells of a column that there are."""
    cells = [Cell.of(title, COLUMNS[title], row, policy) for row in rows for policy in POLICIES]
    return [cell for cell in cells if cell.wants is not Is.ABSENT]


async def complaints(directory: Path, valkey: ValkeyServer, cells: list[Cell]) -> list[str]:
    """Play the cells; what is wrong with any of them. Nothing may be held or running afterwards."""
    vocabulary = msgspec.structs.replace(tiny_vocabulary(), name="o200k_base")
    save_vocabulary(vocabulary, directory / "data" / "tokenizer")
    async with (
        stage() as playing,
        stand(directory, valkey, playing.port, tiers=TIERS, settings=SETTINGS) as here,
        callers(here.url) as sdks,
    ):
        keys = {cell.name: await here.account(cell.name, cell.tier) for cell in cells}
        playing.plays |= {cell.name: cell.play() for cell in cells}
        heard = await asyncio.gather(
            *(cell.perform(here, sdks, keys[cell.name], playing.plays[cell.name]) for cell in cells)
        )
        await at_rest(here, valkey, *keys)
        return [
            wrong
            for cell, said in zip(cells, heard, strict=True)
            for wrong in cell.judge(await events_of(here.ledger, cell.name), playing.plays[cell.name], said)
        ]
