"""What one command printed: its beginning and its end, within a fixed amount of memory."""

from __future__ import annotations

from collections import deque

from moorage_sandbox.box.shell.terminal import readable

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 256 * 1024
"""Raw bytes kept: more than is shown, because colours and progress bars shrink to little text."""

SHOWN_HEAD = 12 * 1024
SHOWN_TAIL = 20 * 1024
"""Characters shown of a long output. The end counts for more: errors come last."""


class Output:
    """Not locked: the shell that owns it does that."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._dropped = 0
        self._final: tuple[str, bool] | None = None

    def append(self, data: bytes) -> None:
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

    def shown(self) -> tuple[str, bool]:
        """Readable text, and whether something was left out of it."""
        if self._final is not None:
            return self._final
        if not self._dropped:
            return shortened(readable(bytes(self._head) + b"".join(self._tail)))
        head = readable(bytes(self._head))
        # The tail may start within a line, a character or a control sequence.
        tail = readable(b"".join(self._tail).partition(b"\n")[2] or b"".join(self._tail))
        return f"{head[:SHOWN_HEAD]}\n[... about {self._dropped} bytes left out ...]\n{tail[-SHOWN_TAIL:]}", True

    def close(self) -> None:
        """Keep what is shown and let go of the raw bytes; nothing is appended after."""
        self._final = self.shown()
        self._head.clear()
        self._tail.clear()


def shortened(text: str, *, head: int = SHOWN_HEAD, tail: int = SHOWN_TAIL) -> tuple[str, bool]:
    """Cut the middle out of a text longer than `head + tail`, and say how much that was."""
    left_out = len(text) - head - tail
    if left_out <= 0:
        return text, False
    return f"{text[:head]}\n[... {left_out} characters left out ...]\n{text[-tail:]}", True
