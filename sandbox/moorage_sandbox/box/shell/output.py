"""Stores the beginning and the end of a command's output in a fixed amount of memory."""

from __future__ import annotations

from collections import deque

from moorage_sandbox.box.shell.kept_output import LONG_BYTES, KeptOutput
from moorage_sandbox.box.shell.terminal import to_plain_text

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 256 * 1024
"""Raw bytes that are stored: more than the text needs, because colours and progress bars become little text."""

HEAD_CHARS = 12 * 1024
TAIL_CHARS = 20 * 1024
"""Characters that a long output is cut to. The end gets more of them, because errors come last."""


class Output:
    """The output of one command. Not thread-safe: the shell that owns it holds a lock."""

    def __init__(self, kept: KeptOutput | None = None) -> None:
        """`kept` gets the whole output too."""
        self._kept = kept
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._dropped = 0
        self._final: tuple[str, bool] | None = None

    def append(self, data: bytes) -> None:
        if self._kept is not None:
            self._kept.append(data, before=bytes(self._head) if len(self._head) <= LONG_BYTES else b"")
        room = HEAD_BYTES - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if data:
            self._tail.append(data)
            self._tail_size += len(data)
            while self._tail_size - len(self._tail[0]) >= TAIL_BYTES:
                gone = len(self._tail.popleft())
                self._tail_size -= gone
                self._dropped += gone

    def render(self) -> tuple[str, bool]:
        """Return the output as plain text, and whether a part of it was left out."""
        if self._final is not None:
            return self._final
        if not self._dropped:
            return shorten(to_plain_text(bytes(self._head) + b"".join(self._tail)))
        head = to_plain_text(bytes(self._head))
        # The tail may start inside a line, a character or a control sequence.
        tail = to_plain_text(b"".join(self._tail).partition(b"\n")[2] or b"".join(self._tail))
        gap = f"[... about {self._dropped} bytes left out ...]"
        return f"{head[:HEAD_CHARS]}\n{gap}\n{tail[-TAIL_CHARS:]}", True

    def kept_file(self) -> str | None:
        """Path of the file with the whole output, if the output is long."""
        return self._kept.flush() if self._kept is not None else None

    def close(self) -> None:
        """Keep the plain text and free the raw bytes. Nothing may be appended afterwards."""
        self._final = self.render()
        if self._kept is not None:
            self._kept.close()
        self._head.clear()
        self._tail.clear()


def shorten(text: str, *, head: int = HEAD_CHARS, tail: int = TAIL_CHARS) -> tuple[str, bool]:
    """Cut the middle out of a text longer than `head + tail`. Returns the text, and whether it was cut."""
    left_out = len(text) - head - tail
    if left_out <= 0:
        return text, False
    return f"{text[:head]}\n[... {left_out} characters left out ...]\n{text[-tail:]}", True
