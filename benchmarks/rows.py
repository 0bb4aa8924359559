"""Measurements, and a table of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table. `samples` in `unit`; a throughput has few of them, a latency many."""

    name: str
    unit: str
    samples: Sequence[float]
    aim: str = ""
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def p99(self) -> float:
        """The 99th percentile: with fewer than 100 samples it is the greatest sample."""
        ordered = sorted(self.samples)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def format_number(number: float) -> str:
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.2f}" if number >= 1 else f"{number:.3f}"


def table(rows: Sequence[Row]) -> str:
    """Markdown, with columns wide enough to read as plain text."""
    head = ["measurement", "unit", "median", "p99", "n", "aim", "note"]
    lines = [
        [
            row.name,
            row.unit,
            format_number(row.median),
            format_number(row.p99),
            str(len(row.samples)),
            row.aim,
            row.note,
        ]
        for row in rows
    ]
    widths = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(head), line(["-" * width for width in widths]), *(line(cells) for cells in lines)])
