"""The greeting of a first start: it gives away a key only where the sandbox answers."""

from pathlib import Path

import pytest

from gateway.cli.welcome import welcome
from gateway.ledger.ledger import Ledger
from gateway.ledger.schema import ensure_schema
from gateway.settings.deployment import deployment_of
from gateway.settings.load import load

SETTINGS = """
data_dir: {data_dir}
upstreams:
  openai: {{ url: "https://api.openai.com", api_key: "{key}", without_key: sandbox }}
routes:
  - {{ path: /v1/chat/completions, upstream: openai, dialect: openai }}
tiers:
  free: {{ limits: {{ tokens: {{ day: 100000 }} }} }}
default_tier: free
"""


@pytest.mark.parametrize(("accounts", "named"), [(["solo"], "solo"), (["aaron", "demo"], "ACCOUNT")])
async def test_a_later_start_names_no_account_at_random(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], accounts: list[str], named: str
) -> None:
    """F4: a line that can be copied makes a key: for the one account, and never for whoever comes first by the id."""
    file = tmp_path / "gateway.yaml"
    file.write_text(SETTINGS.format(data_dir=tmp_path / "data", key=""))
    settings = load(file, {})
    deployment = deployment_of(settings)
    await ensure_schema(deployment.database_url)
    ledger = Ledger.open(deployment.database_url)
    for account in accounts:
        await ledger.create_account(account, "free", "", 1)
    await ledger.close()

    await welcome(settings, deployment, 8080, file)

    printed = capsys.readouterr().out
    assert f"keys create {named}\n" in printed
    assert f"usage {named}\n" in printed
    assert ("accounts list" in printed) == (len(accounts) > 1)


@pytest.mark.parametrize(("key", "made"), [("", ["demo"]), ("sk-real", [])])
async def test_an_account_is_made_only_where_it_costs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, made: list[str]
) -> None:
    """F4: with a provider's real key behind it, a gateway prints no key that nobody asked for into what may be a kept
    log: whoever reads that could spend the operator's money. It tells how to make one.
    """  # noqa: D205
    file = tmp_path / "gateway.yaml"
    file.write_text(SETTINGS.format(data_dir=tmp_path / "data", key=key))
    settings = load(file, {})
    deployment = deployment_of(settings)
    await ensure_schema(deployment.database_url)

    await welcome(settings, deployment, 8080, file)

    printed = capsys.readouterr().out
    ledger = Ledger.open(deployment.database_url)
    assert [account.id for account in await ledger.list_accounts()] == made
    await ledger.close()
    assert ("Bearer tw_" in printed) == bool(made)
    assert ("accounts create acme" in printed) == (not made)
