"""`config/alerts.yaml` as Prometheus reads it: its rules, and the series that each of them selects."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
import promql_parser
import yaml
from prometheus_client.parser import text_string_to_metric_families

from gateway.settings.data_files import data_file

Samples = list[tuple[str, dict[str, str], float]]
"""Name, labels, value."""


@dataclass(frozen=True, slots=True)
class Selector:
    """A metric's name and what is asked of its labels, as (label, operator, value)."""

    name: str
    asked: tuple[tuple[str, str, str], ...]

    def of(self, samples: Samples) -> list[float]:
        """The values of those that it selects."""
        return [value for name, labels, value in samples if name == self.name and self._fits(labels)]

    def _fits(self, labels: dict[str, str]) -> bool:
        return all(_OPERATORS[operator](labels.get(label, ""), value) for label, operator, value in self.asked)


_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "Equal": lambda has, asked: has == asked,
    "NotEqual": lambda has, asked: has != asked,
    "Re": lambda has, asked: re.fullmatch(asked, has) is not None,
    "NotRe": lambda has, asked: re.fullmatch(asked, has) is None,
}


@cache
def groups() -> list[dict[str, Any]]:
    """The groups of the file."""
    file: dict[str, list[dict[str, Any]]] = yaml.safe_load(data_file("config", "alerts.yaml").read_text("utf-8"))
    return file["groups"]


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """The rules that have an `alert`, or a `record`, by that name."""
    return {rule[kind]: rule for group in groups() for rule in group["rules"] if kind in rule}


def nodes(expression: str) -> list[promql_parser.Expr]:
    """Every node of an expression, itself first. Raises ValueError where it is none."""
    found: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(expression), found.append)
    return found


def selectors(expression: str) -> set[Selector]:
    """What an expression reads, through recorded series down to what is scraped."""
    recorded, found = rules("record"), set[Selector]()
    for node in nodes(expression):
        if not isinstance(node, promql_parser.VectorSelector):
            continue
        if node.name in recorded:
            found |= selectors(recorded[node.name]["expr"])
        else:
            asked = tuple((one.name, str(one.op).rpartition(".")[2], one.value) for one in node.matchers.matchers)
            found.add(Selector(node.name or "", asked))
    return found


def read(alert: str, samples: Samples) -> dict[str, float]:
    """The sum of what an alert reads by the name of each metric; fails where there is nothing to be read of one."""
    sums: dict[str, float] = {}
    for selector in selectors(rules("alert")[alert]["expr"]):
        values = selector.of(samples)
        assert values, f"{alert} reads {selector}, and nothing is there"
        sums[selector.name] = sums.get(selector.name, 0) + sum(values)
    return sums


def samples_of(text: str) -> Samples:
    """What a scrape says."""
    families = text_string_to_metric_families(text)
    return [(one.name, dict(one.labels), one.value) for family in families for one in family.samples]


async def scraped(client: httpx.AsyncClient) -> Samples:
    """The metrics of a gateway as they are now."""
    return samples_of((await client.get("/_tollway/metrics")).text)


def labels_named(expression: str) -> set[str]:
    """Labels by which an expression groups or matches."""
    modifiers: Iterable[Any] = (getattr(node, "modifier", None) for node in nodes(expression))
    found: set[str] = set()
    for modifier in modifiers:
        found.update(getattr(modifier, "labels", ()))
        found.update(getattr(getattr(modifier, "matching", None), "labels", ()))
    return found
