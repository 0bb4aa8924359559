"""Read server-sent events from bytes. Only `data` and `event` matter for Chat Completions."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass

MAX_EVENT_BYTES = 16_000_000
DOCUMENT = "document"
"""Name of the event that holds the whole text of a response that is no event stream, such as JSON or a page."""

LINE_END = re.compile(rb"\r\n|\r|\n")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLargeError(Exception):
    """An event is larger than MAX_EVENT_BYTES."""


@dataclass(frozen=True)
class ServerEvent:
    name: str
    data: str


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[ServerEvent]:
    """Yield the events; the last one may lack its blank line. Lines end only at CR and LF, never inside a text.

    `str.splitlines` would also split at characters such as U+2028, which JSON texts may contain. A response without
    any event becomes one event with the name DOCUMENT.
    """
    name, data = "", list[str]()
    others, others_size, has_event = list[bytes](), 0, False
    async for line in _lines(chunks):
        if not line:
            if data:
                yield ServerEvent(name, "\n".join(data))
            name, data = "", []
        elif line.startswith(b"data:"):
            has_event = True
            data.append(line[5:].removeprefix(b" ").decode(errors="replace"))
        elif line.startswith(b"event:"):
            name = line[6:].strip().decode(errors="replace")
        elif not has_event and not line.startswith((b":", b"id:", b"retry:")):
            others_size += len(line)
            _check_size(others_size)
            others.append(line)
    if data:
        yield ServerEvent(name, "\n".join(data))
    if others and not has_event:
        yield ServerEvent(DOCUMENT, b"\n".join(others).decode(errors="replace"))


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines without their ends. A chunk may end anywhere, also between CR and LF or inside a character."""
    pieces, size = list[bytes](), 0
    is_first, after_return = True, False
    async for chunk in chunks:
        if not chunk:
            continue
        if after_return:
            chunk = chunk.removeprefix(b"\n")
        after_return = chunk.endswith(b"\r")
        *ended, rest = LINE_END.split(chunk)
        for part in ended:
            line = b"".join([*pieces, part])
            pieces, size = [], 0
            yield line.removeprefix(BYTE_ORDER_MARK) if is_first else line
            is_first = False
        pieces.append(rest)
        size += len(rest)
        _check_size(size)
    if line := b"".join(pieces):
        yield line.removeprefix(BYTE_ORDER_MARK) if is_first else line


def _check_size(size: int) -> None:
    if size > MAX_EVENT_BYTES:
        raise EventTooLargeError(f"has a part of more than {MAX_EVENT_BYTES} bytes")
