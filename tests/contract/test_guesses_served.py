"""Guessing at a whole gateway behind a load balancer: slowed by client, on proxied routes and Tollway's own (F4)."""

from pathlib import Path

from tests.support.odd_peer import Visit, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, SETTINGS, Stand, stand
from tests.support.valkey import ValkeyServer

LISTEN = "listen: {{ port: 0, shutdown_grace_s: 5, max_body_mb: 1, trusted_proxies: [127.0.0.0/8] }}"
BEHIND = SETTINGS.replace(SETTINGS.splitlines()[1], LISTEN) + "guesses: {{ failures: 2, window_s: 600 }}\n"


async def ask(here: Stand, key: str, client: str, path: str = CHAT) -> tuple[int, str, str]:
    """The status, the error's code, and `retry-after`."""
    headers = {"authorization": f"Bearer {key}", "x-forwarded-for": client}
    if path == CHAT:
        answer = await here.client.post(path, json={"model": "m", "messages": []}, headers=headers)
    else:
        answer = await here.client.get(path, headers=headers)
    return answer.status_code, answer.json().get("error", {}).get("code", ""), answer.headers.get("retry-after", "")


async def test_one_client_is_slowed_and_no_other(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F4: the guesser behind a shared load balancer waits, wherever it asks; its neighbours and every known key do
    not, and what the guesser writes into the header itself does not help it. The upstream is told of no client.
    """  # noqa: D205
    seen: list[bytes] = []

    async def script(visit: Visit) -> None:
        while True:
            seen.extend(name for name, _ in (await visit.request()).fields)
            await visit.say(http(completion()))

    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port, settings=BEHIND) as here:
        good = await here.account()
        assert (await ask(here, good, "203.0.113.9"))[0] == 200
        for _ in range(2):
            assert (await ask(here, "tw_wrong", "203.0.113.9"))[:2] == (401, "invalid_api_key")
        slowed = await ask(here, "tw_wrong", "1.1.1.1, 203.0.113.9")
        assert slowed[:2] == (429, "too_many_guesses")
        assert 295 <= int(slowed[2]) <= 301
        assert (await ask(here, "tw_wrong", "203.0.113.9", "/_tollway/usage"))[:2] == (429, "too_many_guesses")
        assert (await ask(here, await here.key("acme"), "203.0.113.9"))[0] == 429
        assert (await ask(here, good, "203.0.113.9"))[0] == 200
        assert (await ask(here, "tw_wrong", "203.0.113.10"))[:2] == (401, "invalid_api_key")
        assert b"x-forwarded-for" not in {name.lower() for name in seen}
