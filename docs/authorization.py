"""Write the table of docs/authorization.md again; the text above it is written by hand.

python docs/authorization.py
"""

from __future__ import annotations

from pathlib import Path

from moorage_api.http.routes import format_table

TARGET = Path(__file__).parent / "authorization.md"
HEADING = "## The table\n\n"


def page() -> str:
    text, _, _ = TARGET.read_text().partition(HEADING)
    return f"{text}{HEADING}{format_table()}\n"


if __name__ == "__main__":
    TARGET.write_text(page())
