"""Usage is read by a quick path for answers in OpenAI's own shape and a patient one for all others."""

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.openai_usage import read_usage, usage_of

COUNTS = st.one_of(st.integers(-5, 50), st.none(), st.just("7"), st.just(3.0), st.just(2**60), st.booleans())
DETAILS = st.one_of(
    st.none(), st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens", "audio_tokens"]), COUNTS)
)
REPORTS = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": COUNTS,
        "completion_tokens": COUNTS,
        "total_tokens": COUNTS,
        "input_tokens": COUNTS,
        "prompt_cache_hit_tokens": COUNTS,
        "prompt_tokens_details": DETAILS,
        "completion_tokens_details": DETAILS,
    },
)


@given(REPORTS, st.booleans())
def test_both_paths_read_the_same(report: dict[str, object], consistent: bool) -> None:
    """B9: whichever path an answer takes, its usage is the same; else two answers alike would cost differently."""
    prompt, completion = report.get("prompt_tokens"), report.get("completion_tokens")
    if consistent and isinstance(prompt, int) and isinstance(completion, int):
        report = report | {"total_tokens": prompt + completion}
    body = json.dumps({"id": "x", "choices": [], "usage": report}).encode()
    assert read_usage(body) == usage_of(report)
