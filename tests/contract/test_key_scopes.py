"""Keys that are for some routes and models alone, through a whole gateway (F4)."""

from pathlib import Path

from gateway.domain.accounts import ApiKey
from gateway.domain.key_terms import KeyTerms
from gateway.identity.keys import new_key
from tests.support.odd_peer import Visit, odd_peer
from tests.support.openai_wire import completion, http
from tests.support.stand import CHAT, SETTINGS, Stand, now_ms, stand
from tests.support.valkey import ValkeyServer


async def script(visit: Visit) -> None:
    """An upstream that answers every request of a connection."""
    while True:
        await visit.request()
        await visit.say(http(completion()))


async def ask(here: Stand, key: str, path: str = CHAT, model: str = "gpt-4o-mini") -> tuple[int, str]:
    """Send a request: the status, and what is said."""
    headers = {"authorization": f"Bearer {key}"}
    answer = await here.client.post(path, json={"model": model, "messages": []}, headers=headers)
    error = answer.json().get("error", {})
    return answer.status_code, f"{error.get('code', '')} {error.get('message', '')}".strip()


async def test_a_key_is_held_to_its_routes_and_models(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F4: a key that leaks from a browser buys nothing but what it was made for, however the path is spelt, and its
    owner reads what it is for. A refused request is not charged.
    """  # noqa: D205
    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port) as here:
        await here.account()
        key_id, key, digest = new_key(here.deployment.digest_key)
        terms = KeyTerms(("/v1/chat/*",), ("gpt-4o*", "o3"))
        await here.ledger.create_key(ApiKey(key_id, "acme", digest, "", now_ms(), terms=terms))

        assert await ask(here, key) == (200, "")
        assert await ask(here, key, model="o3") == (200, "")
        status, text = await ask(here, key, model="o3-pro")
        assert (status, text) == (403, "model_not_in_key This API key is for the models gpt-4o*, o3 alone.")
        status, text = await ask(here, key, "/v1/embeddings")
        assert (status, text) == (403, "route_not_in_key This API key is for /v1/chat/* alone.")
        for path in ("/v1/chat/../embeddings", "/v1/chat/%2e%2e/embeddings", "/open/v1/chat/x"):
            assert (await ask(here, key, path))[0] == 403
        assert (await ask(here, key, "/v1/chat/other"))[1].startswith("model_not_in_key")

        used = await here.client.get("/_tollway/usage", headers={"authorization": f"Bearer {key}"})
        assert used.json()["today"]["requests"] in {0, 1, 2}
        requests = next(one for one in used.json()["limits"] if one["name"] == "requests/hour")
        assert requests["used"] == 2


async def test_a_key_for_an_alias_or_for_its_model_is_for_both_names(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F4: an operator writes the key's list in the words that callers use, or in the models' own: each opens the alias,
    and the alias's word alone does not open the model. The list still keeps everything else out.
    """  # noqa: D205
    aliases = SETTINGS.replace("default_max_tokens: 100 }}", ALIASES, 1)
    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port, settings=aliases) as here:
        await here.account()
        keys = [await scoped_key(here, model) for model in ("fast", "gpt-4o", "o3")]
        asked = {
            model: [(await ask(here, key, model=model))[0] for key in keys] for model in ("fast", "gpt-4o", "smart")
        }

    assert asked == {"fast": [200, 200, 403], "gpt-4o": [403, 200, 403], "smart": [403, 403, 200]}


async def test_a_route_of_a_key_is_the_one_that_was_asked_for(tmp_path: Path, valkey: ValkeyServer) -> None:
    """F4: where the model stands in the path, the key's routes are held against the path as the caller sent it."""
    aliases = GEMINI.replace("default_max_tokens: 100 }}", ALIASES)
    async with odd_peer(script) as peer, stand(tmp_path, valkey, peer.port, settings=aliases) as here:
        await here.account()
        key = await scoped_key(here, "*", "/v1beta/models/fast:*")
        statuses = [(await ask(here, key, f"/v1beta/models/{name}:generateContent"))[0] for name in ("fast", "gpt-4o")]

    assert statuses == [200, 403]


async def scoped_key(here: Stand, model: str, *routes: str) -> str:
    """A key of the account, for one model; its text."""
    key_id, text, digest = new_key(here.deployment.digest_key)
    await here.ledger.create_key(ApiKey(key_id, "acme", digest, "", now_ms(), terms=KeyTerms(routes, (model,))))
    return text


ALIASES = "models: {{ aliases: {{ fast: gpt-4o, smart: o3 }} }} }}"
GEMINI = """
listen: {{ port: 0 }}
data_dir: {data_dir}
redis: {{ url: "{redis_url}", namespace: tw }}
log: {{ requests: false }}
upstreams:
  gemini: {{ url: "http://127.0.0.1:{upstream_port}", api_key: upstream-secret, auth: x-goog-api-key }}
routes:
  - {{ path: /v1beta/models/*, upstream: gemini, dialect: gemini, default_max_tokens: 100 }}
tiers:
{tiers}
default_tier: free
"""
