"""Write docs/chart-values.md anew: every setting of the chart, from its schema.

python docs/chart_values.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "charts" / "moorage" / "values.schema.json"
TARGET = ROOT / "docs" / "chart-values.md"

HEAD = """\
# Settings of the chart

Made by `make docs` from `charts/moorage/values.schema.json`. Helm refuses any other name and any value outside the
limits before it changes anything.

| setting | default | limits | what it is |
|---|---|---|---|
"""


def settings(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, part in schema["properties"].items():
        if "default" in part:
            yield path + name, part
        elif "properties" in part:
            yield from settings(part, f"{path}{name}.")


def limits(part: dict[str, Any]) -> str:
    said = [" · ".join(f"`{value}`" for value in part["enum"])] if "enum" in part else [f"{part['type']}"]
    if "minimum" in part:
        said.append(f"{part['minimum']} to {part['maximum']}")
    return ", ".join(said)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def page() -> str:
    rows = [
        f"| `{name}` | `{json.dumps(part['default'])}` | {limits(part)} | {cell(part['description'])} |\n"
        for name, part in settings(json.loads(SCHEMA.read_text()))
    ]
    return HEAD + "".join(rows)


if __name__ == "__main__":
    TARGET.write_text(page())
