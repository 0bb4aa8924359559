"""A stream that is read in the background."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Any

import httpx

from contract.server import HANG_SECONDS, Caller, TimedFrame, parse_frames


class Watch:
    """Collects what a stream sends, from the moment it is open until it ends or the `with` does."""

    def __init__(self, caller: Caller, path: str = "/api/sessions/stream", **request: Any) -> None:
        self._caller = caller
        self._path = path
        self._request = request
        self._changed = threading.Condition()
        self._response: httpx.Response | None = None
        self.frames: list[TimedFrame] = []
        self.status = 0
        self.has_ended = False
        self.began = time.monotonic()
        self._thread = threading.Thread(target=self._read, name=f"watch {path}", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        with self._changed:
            assert self._changed.wait_for(lambda: self.status or self.has_ended, HANG_SECONDS), (
                "The stream does not open"
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Shut the connection down. Nothing else ends a read that waits."""
        if self._response is not None and not self.has_ended:
            with suppress(OSError):
                self._response.extensions["network_stream"].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        self._thread.join(HANG_SECONDS)

    def _read(self) -> None:
        try:
            with self._caller.stream(self._path, **self._request) as response:
                self._response = response
                self._tell(status=response.status_code)
                if response.status_code == 200:
                    for frame in parse_frames(response):
                        self._tell(frame=frame)
        except httpx.TransportError:
            pass  # one side closed the connection: `has_ended` is set below
        finally:
            self._tell(ended=True)

    def _tell(self, *, status: int = 0, frame: TimedFrame | None = None, ended: bool = False) -> None:
        with self._changed:
            self.status = status or self.status
            self.has_ended = ended
            if frame is not None:
                self.frames.append(frame)
            self._changed.notify_all()

    @property
    def events(self) -> list[TimedFrame]:
        return [frame for frame in self.frames if frame.event]

    @property
    def comments(self) -> list[TimedFrame]:
        return [frame for frame in self.frames if not frame.event]

    def wait_for_events(self, count: int, seconds: float = HANG_SECONDS) -> list[TimedFrame]:
        """Wait until there are `count` events and return all events. Fails after `seconds`."""
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.events) >= count, seconds)
            assert came, f"{len(self.events)} events, not {count}"
            return self.events

    def wait_for_comments(self, count: int, seconds: float = HANG_SECONDS) -> list[TimedFrame]:
        with self._changed:
            came = self._changed.wait_for(lambda: len(self.comments) >= count, seconds)
            assert came, f"{len(self.comments)} comments, not {count}"
            return self.comments

    def wait_until_ended(self, seconds: float = HANG_SECONDS) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.has_ended, seconds), "The stream stays open"
