"""Whether Stripe signed a webhook: the header as Stripe's own library makes it, and everything that is none."""

from hypothesis import given, settings
from hypothesis import strategies as st
from stripe import WebhookSignature

from gateway.billing.signature import Doubt, doubt

NOW_S = 1_795_262_400
SECRETS = ("whsec_new", "whsec_old")
BODY = '{"id": "evt_1", "name": "Zoë"}'


def header(body: str = BODY, secret: str = "whsec_old", at_s: int = NOW_S) -> str:
    """As Stripe's library signs."""
    return str(WebhookSignature.generate_signature_header(body, secret, at_s))


def judge(given: str, body: bytes = BODY.encode(), secrets: tuple[str, ...] = SECRETS) -> Doubt | None:
    """What speaks against it at noon."""
    return doubt(body, given, secrets, 300, NOW_S)


def test_what_stripe_signs_is_taken() -> None:
    """E10: under any secret in force, up to the tolerance on either side of now; else a paid plan never comes."""
    assert judge(header()) is None
    assert judge(header(secret="whsec_new")) is None
    assert judge(header(at_s=NOW_S - 300)) is None
    assert judge(header(at_s=NOW_S + 300)) is None
    assert judge(f"{header()},v0=abc") is None
    other = header(secret="whsec_of_another")
    assert judge(f"{other},{header().partition(',')[2]}") is None


def test_what_stripe_did_not_sign_is_refused() -> None:
    """E10: who can forge a webhook has any plan for nothing."""
    assert judge(header(secret="whsec_of_another")) is Doubt.FORGED
    assert judge(header(), BODY[:-1].encode()) is Doubt.FORGED
    assert judge(header(), (BODY + " ").encode()) is Doubt.FORGED
    assert judge(header().replace("v1=", "v0=")) is Doubt.UNSIGNED
    assert judge(header(), secrets=()) is Doubt.FORGED
    moved = header().replace(str(NOW_S), str(NOW_S + 1))
    assert judge(moved) is Doubt.FORGED


def test_a_replay_is_refused() -> None:
    """E10: a webhook that somebody recorded is worth nothing after five minutes."""
    assert judge(header(at_s=NOW_S - 301)) is Doubt.STALE
    assert judge(header(at_s=NOW_S + 301)) is Doubt.STALE


@settings(max_examples=200)
@given(st.one_of(st.text(max_size=200), st.from_regex(r"(t=\d*,?|v1=[0-9a-f]*,?|v0=a,){0,6}", fullmatch=True)))
def test_no_header_is_taken_that_holds_no_signature(text: str) -> None:
    """Whatever bytes come as a header, the answer is a refusal and never a crash."""
    assert judge(text) in {Doubt.UNSIGNED, Doubt.FORGED}
