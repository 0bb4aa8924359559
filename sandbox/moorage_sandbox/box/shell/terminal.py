"""Converts the bytes that programs write to a terminal into the plain text that a person would see."""

from __future__ import annotations

import re

ROWS = 50
COLUMNS = 160

FURTHEST = 1000
"""A control sequence moves the cursor at most this far, whatever number it contains."""

PIECE = re.compile(
    r"\x1b\[(?P<args>[0-?]*)[ -/]*(?P<final>[@-~])"  # CSI
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?"  # OSC, DCS, …
    r"|\x1b\[[0-?]*[ -/]*"  # CSI that breaks off
    r"|\x1b[ -/]*[0-~]?"
    r"|(?P<control>[\x00-\x08\x0a-\x1f\x7f-\x9f])"
    r"|(?P<text>[^\x00-\x08\x0a-\x1f\x1b\x7f-\x9f]+)"
)
INVISIBLE = re.compile(r"\x1b\[[0-9;:]*m|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
"""Colours, titles, links and our own markers."""

PLAIN = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f-\x9f]*")
UNDECODABLE = re.compile("\ufffd{3,}")


def to_plain_text(data: bytes) -> str:
    """Decode `data` and apply carriage returns, backspaces, cursor movement and erasing; colours are dropped."""
    text = INVISIBLE.sub("", UNDECODABLE.sub("\ufffd", data.decode("utf-8", "replace"))).replace("\r\n", "\n")
    if PLAIN.fullmatch(text):
        return text
    screen = _Screen()
    for piece in PIECE.finditer(text):
        if piece["text"] is not None:
            screen.write(piece["text"])
        elif piece["control"] is not None:
            screen.control(piece["control"])
        elif piece["final"] is not None:
            screen.sequence(piece["args"], piece["final"])
    return screen.text()


class _Screen:
    """A growing list of rows. The last ROWS of them are the screen that control sequences refer to."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = [[]]
        self.row = 0
        self.column = 0
        self.behind: list[list[str]] | None = None
        """The normal screen, while a full-screen program uses the alternate screen."""

    @property
    def top(self) -> int:
        return max(0, len(self.rows) - ROWS)

    def text(self) -> str:
        return "\n".join("".join(row).rstrip(" ") for row in self.rows)

    def write(self, text: str) -> None:
        row = self.rows[self.row]
        if len(row) < self.column:
            row.extend(" " * (self.column - len(row)))
        row[self.column : self.column + len(text)] = text
        self.column += len(text)

    def control(self, character: str) -> None:
        if character in "\n\x0b\x0c":
            self.row += 1
            self.column = 0
            if self.row == len(self.rows):
                self.rows.append([])
        elif character == "\r":
            self.column = 0
        elif character == "\b":
            self.column = max(0, self.column - 1)

    def sequence(self, args: str, final: str) -> None:
        if final in "hl" and args in ("?1049", "?1047", "?47"):
            self.show_other(final == "h")
            return
        first, _, second = args.partition(";")
        count = min(int(first), FURTHEST) if first.isdigit() else 0
        if final == "A":
            self.move(self.row - max(1, count), self.column)
        elif final in "BE":
            self.move(self.row + max(1, count), 0 if final == "E" else self.column)
        elif final == "F":
            self.move(self.row - max(1, count), 0)
        elif final == "C":
            self.column = min(self.column + max(1, count), FURTHEST)
        elif final == "D":
            self.column = max(0, self.column - max(1, count))
        elif final == "G":
            self.column = max(1, count) - 1
        elif final == "d":
            self.move(self.top + max(1, count) - 1, self.column)
        elif final in "Hf":
            column = min(int(second), FURTHEST) if second.isdigit() else 1
            self.move(self.top + max(1, count) - 1, max(1, column) - 1)
        elif final == "J":
            self.erase_rows(count)
        elif final in "KPX@":
            self.edit_row(final, count)

    def move(self, row: int, column: int) -> None:
        self.row = min(max(self.top, row), self.top + ROWS - 1)
        self.column = column
        while len(self.rows) <= self.row:
            self.rows.append([])

    def erase_rows(self, what: int) -> None:
        if what == 0:
            del self.rows[self.row + 1 :]
            del self.rows[self.row][self.column :]
        elif what == 1:
            for row in self.rows[self.top : self.row]:
                row.clear()
        else:
            top = self.top
            del self.rows[top:]
            self.rows.append([])
            self.row = top

    def edit_row(self, final: str, count: int) -> None:
        row = self.rows[self.row]
        if final == "P":
            del row[self.column : self.column + max(1, count)]
        elif final == "@" and len(row) < FURTHEST:
            row[self.column : self.column] = " " * max(1, count)
        elif final == "X":
            gone = row[self.column : self.column + max(1, count)]
            row[self.column : self.column + len(gone)] = " " * len(gone)
        elif final == "K" and count == 0:
            del row[self.column :]
        elif final == "K" and count == 1:
            row[: self.column] = " " * min(self.column, len(row))
        elif final == "K":
            row.clear()

    def show_other(self, other: bool) -> None:
        if other and self.behind is None:
            self.behind, self.rows = self.rows, [[]]
        elif not other and self.behind is not None:
            self.rows, self.behind = self.behind, None
        self.row, self.column = len(self.rows) - 1, len(self.rows[-1])
