"""The contract as data: the lines to prove, and their places in the documents."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ALL_ITEMS = pytest.StashKey[list[pytest.Item]]()
"""Every check that was collected, including those that this run deselects."""


@dataclass(frozen=True)
class Spec:
    endpoints: dict[str, dict[str, str]]
    rules: dict[str, list[str]]
    not_served_yet: frozenset[str]
    """Endpoints, lines of endpoints or rules that the server is known to lack. Their checks must fail."""

    @property
    def names(self) -> dict[str, str]:
        """Every line that must be proved, with its place in the contract."""
        places = {}
        for endpoint, checks in self.endpoints.items():
            for check, place in checks.items():
                section = place if ".md" in place.split(":")[0].split(";")[0] else f"api.md, {endpoint}, {place}"
                places[f"{endpoint}: {check}"] = section
        for rule, (place, what) in self.rules.items():
            places[rule] = f"{place}: {what}"
        return places

    def is_served(self, name: str) -> bool:
        return not {name, name.rpartition(": ")[0]} & self.not_served_yet


def _lines(path: Path) -> frozenset[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return frozenset(line for line in lines if line)


def load() -> Spec:
    document = tomllib.loads((HERE / "contract.toml").read_text())
    absent = os.environ.get("CONTRACT_NOT_SERVED_YET")
    return Spec(
        document["endpoints"],
        document["rules"],
        _lines(Path(absent)) if absent else frozenset(),
    )


SPEC = load()


def proves(*names: str) -> pytest.MarkDecorator:
    """Mark a check with the lines of contract.toml that it proves."""
    return pytest.mark.proves(*names)
