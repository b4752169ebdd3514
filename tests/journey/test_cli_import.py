"""`tollway import`: accounts of other systems come over whole, once; what is wrong with a file is told by its line."""

import csv
import json
import resource
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import Tollway

MONTH = {"currentPeriodStart": "2026-01-01T00:00:00Z", "currentPeriodEnd": "2999-01-01T00:00:00Z"}


def explained(tollway: Tollway, account: str) -> dict[str, Any]:
    """What `accounts explain` tells."""
    status, out, err = tollway("accounts", "explain", account, "--json")
    assert status == 0, err
    told: dict[str, Any] = json.loads(out)
    return told


def limit(told: dict[str, Any], name: str) -> dict[str, Any]:
    """One limit of it."""
    found: dict[str, Any] = next(one for one in told["limits"] if one["name"] == name)
    return found


def written(home: Path, name: str, *rows: dict[str, Any]) -> str:
    """A file in the form that its name says."""
    path = home / name
    if name.endswith(".csv"):
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)))
            writer.writeheader()
            writer.writerows(rows)
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows, indent=2))
    else:
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return str(path)


@pytest.mark.parametrize("name", ["old.csv", "old.json", "old.jsonl"])
def test_an_account_comes_with_all_it_had(tollway: Tollway, home: Path, name: str) -> None:
    """A2: under the old names, plan, limit, add-ons, use so far and lifetime are as they were, in each form of file."""
    old = {"userId": "acme", "displayName": "Acme", "plan": "premium", "status": "active", **MONTH}
    counts = {"maxChatsPerMonth": 900, "currentChatsUsed": 120, "addonChats": 50, "lifetimeChatsUsed": 5_000}
    file = written(home, name, old | counts | {"$id": "document-1", "shoeSize": 44})
    status, out, err = tollway("import", file)
    told = explained(tollway, "acme")
    usage = json.loads(tollway("usage", "acme", "--json")[1])

    assert (status, err) == (0, "")
    assert "1 records: 1 accounts made, 0 changed, 0 as they were, 0 left out" in out
    assert "columns not used: shoeSize" in out
    assert (told["name"], told["tier"], told["own_tier"], told["kind"]) == ("Acme", "premium", "free", "subscribed")
    month = limit(told, "tokens/month")
    assert (month["terms"], month["addons"], month["limit"]) == (900, 50, 950)
    assert usage["tier"] == "premium"


def test_what_was_used_counts_against_the_limit(tollway: Tollway, home: Path) -> None:
    """A1, A2: who had used all but 30 of a month's tokens has 30 left here, and the lifetime is the whole."""
    file = written(
        home, "a.jsonl", {"id": "acme", "max_tokens_per_month": 100, "tokens_used": 70, "lifetime_tokens": 500}
    )
    assert tollway("import", file)[0] == 0
    told = explained(tollway, "acme")
    tollway("overrides", "set", "acme", "--limit", "tokens/lifetime=1000")

    assert (limit(told, "tokens/month")["override"], limit(told, "tokens/month")["remaining"]) == (100, 30)
    assert limit(explained(tollway, "acme"), "tokens/lifetime")["used"] == 500


def test_the_same_file_again_changes_nothing(tollway: Tollway, home: Path) -> None:
    """A3: an import that was cut off, or run twice, counts nothing twice and writes no second audit row."""
    rows = [
        {"id": f"a{i}", "plan": "premium", "status": "active", "addon": 5, "tokens_used": 7, **MONTH} for i in range(40)
    ]
    half, whole = written(home, "half.jsonl", *rows[:20]), written(home, "whole.jsonl", *rows)
    tollway("import", half)
    second = tollway("import", whole)[1]
    audited = tollway("audit", "--limit", "1000", "--json")[1]
    third = tollway("import", whole)[1]

    assert "20 accounts made, 0 changed, 20 as they were" in second
    assert "0 accounts made, 0 changed, 40 as they were" in third
    assert tollway("audit", "--limit", "1000", "--json")[1] == audited
    assert limit(explained(tollway, "a3") | {}, "requests/hour")["used"] == 0


def test_a_later_file_changes_what_is_other(tollway: Tollway, home: Path) -> None:
    """A3: a newer export of the same accounts moves their plans, and each change is told to gateways and audited."""
    tollway("accounts", "create", "here", "--tier", "premium")
    row = {"id": "acme", "plan": "premium", "status": "active", **MONTH}
    tollway("import", written(home, "a.jsonl", row, {"id": "here", "tokens_used": 9}))
    out = tollway("import", written(home, "b.jsonl", row | {"status": "expired"}, {"id": "here", "tier": "free"}))[1]

    assert "0 accounts made, 2 changed" in out
    assert explained(tollway, "acme")["tier"] == "free"
    assert explained(tollway, "here")["tier"] == "free"
    assert "0 accounts made, 0 changed" in tollway("import", written(home, "c.jsonl", {"id": "here"}))[1]
    assert explained(tollway, "here")["tier"] == "free"


def test_a_dry_run_writes_nothing(tollway: Tollway, home: Path) -> None:
    """A3: what would be done is told first, with the same counts."""
    file = written(home, "a.csv", {"id": "acme", "tokens_used": 5}, {"id": "beta", "tokens_used": 5})
    out = tollway("import", file, "--dry-run")[1]

    assert "2 accounts would be made" in out
    assert tollway("accounts", "show", "acme")[0] == 2
    assert "2 accounts made" in tollway("import", file)[1]


def test_a_dry_run_counts_an_account_once(tollway: Tollway, home: Path) -> None:
    """A3: who compares the counts with the old system's must not read more accounts than there will be."""
    rows = [{"id": f"a{number % 700}", "name": f"{number // 700}"} for number in range(1_000)]
    file = written(home, "a.jsonl", *rows, {"id": "a1", "name": "2"}, {"id": "two words"})
    told = tollway("import", file, "--dry-run")[1]
    done = tollway("import", file)[1]

    counts = "1,002 records: 700 accounts would be made, 0 would be changed, 0 as they were"
    assert told == f"{counts}, 301 of accounts that stand above, 1 left out\n"
    assert "1,002 records: 700 accounts made, 301 changed, 0 as they were, 1 left out" in done


def test_broken_lines_are_told_and_left_out(tollway: Tollway, home: Path) -> None:
    """A3: one bad record doesn't keep a hundred thousand good ones out, and is found by its line."""
    path = home / "a.jsonl"
    lines = [
        '{"id": "good-1"}',
        '{"id": "two words"}',
        "{broken",
        "[]",
        '{"name": "nobody"}',
        '{"id": "x", "tokens_used": -5}',
        '{"id": "x", "tokens_used": "many"}',
        '{"id": "x", "plan": "gold"}',
        '{"id": "x", "plan": "free", "status": "golden"}',
        '{"id": "x", "plan": "free", "status": "active", "expires_at": "soon"}',
        '{"id": "x", "status": "active"}',
        '{"id": "x", "tokens_used": 9, "lifetime_tokens": 5}',
        '{"id": "y", "plan": "free", "status": "active", "subscription_id": "s"}',
        '{"id": "z", "plan": "free", "status": "active", "subscription_id": "s"}',
        "",
        '{"id": "good-2"}',
    ]
    path.write_text("\n".join(lines))
    status, out, err = tollway("import", str(path))
    told = [line.removeprefix(f"{path}:").partition(":") for line in err.splitlines()]

    assert status == 1
    assert sorted(int(number) for number, _, _ in told) == [*range(2, 13), 13]
    assert "3 accounts made" in out
    assert "12 left out" in out
    for number, words in ((5, "no account"), (6, "tokens_used"), (8, "free, premium"), (10, "RFC 3339"), (13, "`z`")):
        assert next(text for line, _, text in told if int(line) == number).find(words) > 0, number
    assert tollway("accounts", "show", "good-2")[0] == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b'id,name\nacme,x\nb,"open', "no CSV"),
        ("a.csv", b"id,name\nacme\n", "1 columns, where the first line has 2"),
        ("a.json", b'{"id": "acme"}', "one array"),
        ("a.json", b'[{"id": "acme"}, {"id": ', "no JSON from here on"),
        ("a.json", b"[1]", "no JSON object"),
        ("a.jsonl", b'{"id": "a"}\n\xff\xfe\n', "no UTF-8"),
    ],
)
def test_a_broken_file_is_told(tollway: Tollway, home: Path, name: str, content: bytes, words: str) -> None:
    """A3: a file that was cut off in copying says where it ends, and the exit status says that not all came over."""
    (home / name).write_bytes(content)
    status, out, err = tollway("import", str(home / name))

    assert status == 1
    assert words in err
    assert "-1" not in out


def test_a_file_of_no_known_kind_is_refused(tollway: Tollway, home: Path) -> None:
    """F7: wrong input ends with status 2 and says what is taken."""
    (home / "a.xlsx").write_bytes(b"PK")

    assert tollway("import", str(home / "a.xlsx"))[::2] == (
        2,
        "tollway: a.xlsx: the name of the file has to end in one of .csv, .json, .jsonl, .ndjson\n",
    )
    assert tollway("import", str(home / "gone.csv"))[0] == 2


def test_two_thousand_accounts_take_little_memory(tollway: Tollway, home: Path) -> None:
    """Done-when: an import streams: four times the records take no more memory, and all of them come over."""
    rows = [
        {
            "id": f"a{i:05}",
            "plan": "premium",
            "status": "active",
            "tokens_used": i,
            "addon": 5,
            "note": "x" * 500,
            **MONTH,
        }
        for i in range(2_000)
    ]
    tollway("import", written(home, "few.json", *rows[:500]))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = tollway("import", written(home, "all.json", *rows))[1]

    assert "2,000 records: 1,500 accounts made, 0 changed, 500 as they were" in out
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 30_000
