"""The examples as a newcomer meets them: nothing set, no key, the commands of their README in its order."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.examples import EXAMPLES, Example

README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
CURL = shutil.which("curl")
SHOWN = {
    "subscriptions": ('"tier":"free"', '"usage":', "account ann: tier free"),
    "chat-tokens": ('"used":1.25', '"fits":true', '"state":"held"'),
    "snapshot-api": ("x-ratelimit-limit: 50", "premium, active", "account ann: tier premium"),
}
"""By example, what its commands print."""


def lines_of(name: str) -> list[str]:
    """The lines to be typed beside a running example: those for all three, then its own."""
    text = README.replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    own = next(place for place, block in enumerate(blocks) if f"{name}.yaml" in block and place)
    return [line for block in (blocks[0], blocks[own + 1]) for line in block.splitlines()]


def typed(here: Example, line: str, key: str) -> str:
    """What a line prints. One that curl is needed for prints nothing where there is none."""
    if line.startswith("tollway "):
        return here.tollway(line.removeprefix("tollway "))
    if CURL is None or not line.startswith("curl "):
        return ""
    shell = line.replace("http://127.0.0.1:8080", here.url)
    ended = subprocess.run(
        ["/bin/sh", "-c", shell], capture_output=True, text=True, check=False, env={"KEY": key, "PATH": "/bin:/usr/bin"}
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("name", SHOWN)
def test_what_the_readme_says_works_as_it_says(tmp_path: Path, name: str) -> None:
    """A1, B5, D9: whoever copies an example and its commands sees a running system within a minute, not an error."""
    printed = key = ""
    with Example(name, tmp_path, None) as here:
        for line in lines_of(name):
            if line.startswith("KEY="):
                key = here.tollway(line.removeprefix("KEY=$(tollway ").removesuffix(")")).strip()
            else:
                printed += typed(here, line, key)

    assert key.startswith("tw_")
    assert "account  ann" in printed
    assert [text for text in SHOWN[name] if text not in printed and CURL] == [], printed
