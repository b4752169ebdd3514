"""`config/alerts.yaml` can be loaded as it is, reads metrics that there are, and is what `docs/operations.md` tells."""

import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.house.test_docs import ROOT
from tests.house.test_docs_commands import commands, parse
from tests.house.test_docs_operations import FAMILIES, PAGE, metric_rows, rows
from tests.support.alert_rules import groups, labels_named, nodes, rules, selectors

ALERTS, RECORDS = rules("alert"), rules("record")
OF_PROMETHEUS = {"up": {"job", "instance"}}
"""What Prometheus itself tells of a scrape."""
ADDED = {"job", "instance"}
"""Labels that Prometheus puts on what it scrapes."""
PARTS = ("_bucket", "_sum", "_count")
PLAYED = [ROOT / "tests" / "data" / "alerts" / f"{name}.yaml" for name in ("minutes", "week")]


def labels_of(name: str) -> set[str] | None:
    """The labels of a series that is scraped; None where there is none of that name."""
    if name in OF_PROMETHEUS:
        return OF_PROMETHEUS[name]
    for family in FAMILIES.values():
        labels = set(getattr(family, "labels", ()))
        if name == family.name and not hasattr(family, "bounds"):
            return labels | ADDED
        if hasattr(family, "bounds") and name in {family.name + part for part in PARTS}:
            return labels | ADDED | ({"le"} if name.endswith("_bucket") else set())
    return None


def own_labels(name: str) -> set[str]:
    """The labels that a gateway puts on a series by itself."""
    return (labels_of(name) or set()) - ADDED


def every_rule() -> list[Any]:
    """Each rule, under its name."""
    return [pytest.param(rule, id=name) for name, rule in {**ALERTS, **RECORDS}.items()]


@pytest.mark.parametrize("rule", every_rule())
def test_every_expression_reads_what_there_is(rule: dict[str, Any]) -> None:
    """D10: an alert on a metric, a label or a value of one that is misspelt never fires, and nobody notices."""
    found = selectors(rule["expr"])

    assert found
    for selector in found:
        labels = labels_of(selector.name)
        assert labels is not None, selector
        assert {label for label, _, _ in selector.asked} <= labels, selector
    assert labels_named(rule["expr"]) <= {label for one in found for label in labels_of(one.name) or ()}


@pytest.mark.parametrize("rule", every_rule())
def test_nothing_is_read_that_is_not_fed(rule: dict[str, Any]) -> None:
    """An alert on a metric that never moves is worse than none."""
    told = metric_rows()

    assert [one.name for one in selectors(rule["expr"]) if told.get(one.name, [""])[-1] == "not fed yet"] == []


@pytest.mark.parametrize("rule", [pytest.param(rule, id=name) for name, rule in ALERTS.items()])
def test_every_alert_says_what_and_what_to_do(rule: dict[str, Any]) -> None:
    """Whoever is woken reads, without the code at hand, what is wrong and which page helps; and that page is there."""
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"Tollway[A-Z][A-Za-z]+", rule["alert"])
    assert promql_parser.parse_duration(rule.get("for", "1m")).total_seconds() >= 60
    assert rule["labels"] in ({"severity": "critical"}, {"severity": "warning"})
    assert set(rule["annotations"]) == {"summary", "description"}
    summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
    assert summary.endswith(".")
    for words in commands(description):
        assert words[0] == "tollway"
        parse(words[1:])
    named = set(re.findall(r"\$labels\.(\w+)", summary))
    assert named <= {label for one in selectors(rule["expr"]) for label in labels_of(one.name) or ()}
    pages = re.findall(r"docs/([\w-]+\.md)(?:#([\w-]+))?", description)
    assert pages
    for page, anchor in pages:
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        headings = [head.lower().replace(" ", "-") for head in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
        assert not anchor or anchor in headings, (page, anchor)


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_recorded_is_read(name: str) -> None:
    """Prometheus computes every recorded series for ever; one that no alert reads is a cost for nothing."""
    read = {
        node.name
        for rule in ALERTS.values()
        for node in nodes(rule["expr"])
        if isinstance(node, promql_parser.VectorSelector)
    }

    assert name in read


def test_names_are_told_apart() -> None:
    """Two alerts of one name are one to whoever routes or silences them."""
    listed = [rule.get("alert") or rule.get("record") for group in groups() for rule in group["rules"]]
    named = [group["name"] for group in groups()]

    assert len(listed) == len(set(listed)) == len(ALERTS) + len(RECORDS)
    assert len(named) == len(set(named))


def test_the_page_tells_every_alert_and_no_other() -> None:
    """The name in a page at night leads to what it means and what to do; severity and order are the file's."""
    told = [(row[0].strip("`"), row[1]) for row in rows("| alert | severity | means | do |")]

    assert told == [(name, rule["labels"]["severity"]) for name, rule in ALERTS.items()]
    assert "config/alerts.yaml" in PAGE


@pytest.mark.parametrize("file", PLAYED, ids=lambda file: str(file.stem))
def test_what_is_played_to_the_rules_is_what_is_scraped(file: Path) -> None:
    """`make alerts` proves nothing with series that no gateway has."""
    for played in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
        for one in played["input_series"]:
            (selector,) = selectors(one["series"])
            assert {label for label, _, _ in selector.asked} <= (labels_of(selector.name) or set()), one
            assert own_labels(selector.name) <= {label for label, _, _ in selector.asked}, one


def test_every_alert_is_played() -> None:
    """`make alerts` has a bad day for each alert, on which it must fire."""
    fired: set[str] = set()
    for file in PLAYED:
        fired.update(re.findall(r'alertname="(\w+)"', file.read_text(encoding="utf-8")))

    assert fired == set(ALERTS)


def test_a_mistake_in_an_expression_is_found_out() -> None:
    """The checks above can fail: on a metric, a label and a syntax that there is not."""
    assert labels_of("tollway_refusal_total") is None
    assert "teir" in labels_named("sum by (teir) (tollway_refusals_total)")
    assert "teir" not in (labels_of("tollway_refusals_total") or ())
    with pytest.raises(ValueError, match="invalid"):
        nodes("rate(tollway_refusals_total)[5m] >")
