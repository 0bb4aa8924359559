"""Speaks the Chrome DevTools Protocol over two pipes: JSON messages, each ended by NUL."""

from __future__ import annotations

import json
import os
import re
import select
import threading
import time
from collections.abc import Callable
from typing import Any

from moorage_sandbox.box.shared.deadline import Deadline

WRITE_SECONDS = 5
MAX_MESSAGE_BYTES = 32 * 1024 * 1024
PAGE_CRASHED = "the page crashed"


class CdpError(Exception):
    """The browser refused a command."""


class CdpTimeout(Exception):
    """The browser did not answer a command in time."""


class CdpClosed(Exception):
    """The browser has ended, or its connection is closed."""


class _Pending:
    def __init__(self, session: str) -> None:
        self.session = session
        self.done = threading.Event()
        self.answer: dict[str, Any] | None = None


class Cdp:
    """The connection to the browser. `on_event(method, params, session)` runs in its thread and must not `call`."""

    def __init__(self, *, commands: int, answers: int, on_event: Callable[[str, dict[str, Any], str], None]) -> None:
        self._commands = commands
        self._answers = answers
        self._on_event = on_event
        self._lock = threading.Lock()
        self._pending: dict[int, _Pending] = {}
        self._crashed: set[str] = set()
        self._next_id = 0
        self.closed = False
        os.set_blocking(commands, False)
        threading.Thread(target=self._read, name="cdp", daemon=True).start()

    def call(self, method: str, deadline: Deadline, *, session: str = "", **params: Any) -> dict[str, Any]:
        """Send a command and wait for its result."""
        pending = _Pending(session)
        number = self._send(method, params, session, pending)
        if not pending.done.wait(deadline.remaining()):
            with self._lock:
                self._pending.pop(number, None)
            raise CdpTimeout(method)
        if pending.answer is None:
            raise CdpClosed
        if "error" in pending.answer:
            raise CdpError(str(pending.answer["error"].get("message", "unknown error")))
        result: dict[str, Any] = pending.answer.get("result", {})
        return result

    def post(self, method: str, *, session: str = "", **params: Any) -> None:
        """Send a command whose result does not matter."""
        try:
            self._send(method, params, session, None)
        except CdpClosed:
            return

    def abandon(self, session: str) -> None:
        """Fail the pending calls of `session` and every later call. A crashed page never answers."""
        with self._lock:
            self._crashed.add(session)
            lost = {number: it for number, it in self._pending.items() if it.session == session}
            for number in lost:
                del self._pending[number]
        for pending in lost.values():
            pending.answer = {"error": {"message": PAGE_CRASHED}}
            pending.done.set()

    def resume(self, session: str) -> None:
        """Send calls to `session` again: its page was reloaded after the crash."""
        with self._lock:
            self._crashed.discard(session)

    def _send(self, method: str, params: dict[str, Any], session: str, pending: _Pending | None) -> int:
        with self._lock:
            if self.closed:
                raise CdpClosed
            if pending is not None and session in self._crashed:
                raise CdpError(PAGE_CRASHED)
            self._next_id += 1
            number = self._next_id
            message: dict[str, Any] = {"id": number, "method": method, "params": params}
            if session:
                message["sessionId"] = session
            if pending is not None:
                self._pending[number] = pending
            try:
                self._write(json.dumps(message).encode() + b"\0")
            except OSError as error:
                # A part of the message may have been written, so no other message can follow it.
                self.closed = True
                self._pending.pop(number, None)
                raise CdpClosed from error
        return number

    def _write(self, data: bytes) -> None:
        """Write all of `data`. Raises TimeoutError, which is an OSError, when the browser does not read."""
        poller = select.poll()
        poller.register(self._commands, select.POLLOUT)
        ends = time.monotonic() + WRITE_SECONDS
        left = memoryview(data)
        while left:
            if not poller.poll(max(0.0, ends - time.monotonic()) * 1000):
                raise TimeoutError
            try:
                left = left[os.write(self._commands, left) :]
            except BlockingIOError:
                # The pipe has room, but less than the kernel writes at once.
                time.sleep(0.002)

    def _read(self) -> None:
        pieces: list[bytes] = []
        size = 0
        while True:
            try:
                block = os.read(self._answers, 1 << 20)
            except ConnectionError:
                break
            if not block:
                break
            first, *others = block.split(b"\0")
            size += len(first)
            # The beginning of a message that is too long is kept, because it contains the number of its call.
            if size <= MAX_MESSAGE_BYTES or not pieces:
                pieces.append(first)
            for other in others:
                self._take(b"".join(pieces), whole=size <= MAX_MESSAGE_BYTES)
                pieces, size = [other], len(other)
        with self._lock:
            self.closed = True
            waiting, self._pending = self._pending, {}
            os.close(self._commands)
            os.close(self._answers)
        for pending in waiting.values():
            pending.done.set()
        self._on_event("closed", {}, "")

    def _take(self, message: bytes, *, whole: bool) -> None:
        if whole:
            value = json.loads(message)
        elif number := re.match(rb'\{"id":(\d+),', message):
            value = {"id": int(number[1]), "error": {"message": "the answer is too large"}}
        else:
            return
        if "id" in value:
            with self._lock:
                pending = self._pending.pop(value["id"], None)
            if pending is not None:
                pending.answer = value
                pending.done.set()
        else:
            self._on_event(value["method"], value.get("params", {}), value.get("sessionId", ""))
