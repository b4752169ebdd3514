"""What an account sees of itself: `GET /_tollway/usage` with its own key."""

from typing import Any

from tests.support.stand import Stand


async def own_usage(here: Stand, key: str) -> dict[str, Any]:
    """The whole answer."""
    answer = await here.client.get("/_tollway/usage", headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 200, answer.text
    usage: dict[str, Any] = answer.json()
    return usage


async def limit_of(here: Stand, key: str, name: str) -> dict[str, Any]:
    """How one limit stands, by its name (`tokens/month`)."""
    limits: list[dict[str, Any]] = (await own_usage(here, key))["limits"]
    return next(limit for limit in limits if limit["name"] == name)
