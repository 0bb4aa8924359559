"""Read server-sent events from bytes. Only `data` and `event` matter for Chat Completions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

MAX_EVENT_BYTES = 16_000_000


class EventTooLargeError(Exception):
    """An event is larger than MAX_EVENT_BYTES."""


@dataclass(frozen=True)
class ServerEvent:
    name: str
    data: str


async def read_events(chunks: AsyncIterator[bytes]) -> AsyncIterator[ServerEvent]:
    """Yield the events; the last one may lack its blank line. Lines end only at CR and LF, never inside a text.

    `str.splitlines` would also split at characters such as U+2028, which JSON texts may contain.
    """
    name, data = "", list[str]()
    async for line in _lines(chunks):
        if not line:
            if data:
                yield ServerEvent(name, "\n".join(data))
            name, data = "", []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" ").decode(errors="replace"))
        elif line.startswith(b"event:"):
            name = line[6:].strip().decode(errors="replace")
    if data:
        yield ServerEvent(name, "\n".join(data))


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in chunks:
        rest += chunk
        if len(rest) > MAX_EVENT_BYTES:
            raise EventTooLargeError(f"an event is larger than {MAX_EVENT_BYTES} bytes")
        *lines, rest = rest.replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
    if rest:
        yield rest
