"""What this machine lacks for sandboxes, and the command that gets it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Check:
    """`required`: without it no sandbox runs; otherwise something is missing in it. `fix` is a command, or empty."""

    name: str
    ok: bool
    detail: str
    fix: str
    required: bool


def checks() -> list[Check]:
    return []


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="moorage_sandbox.host doctor", description=__doc__)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    found = checks()
    if given.json:
        print(json.dumps([asdict(check) for check in found], indent=2))
    return 0 if all(check.ok or not check.required for check in found) else 1
