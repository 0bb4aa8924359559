"""Runs every call at most once. A repeated key waits for the running call, or gets the stored answer."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

MAX_KEPT = 2000
MAX_KEPT_BYTES = 32 * 1024 * 1024


class AnswerForgottenError(Exception):
    """The call ran before. Its answer was removed to make room for newer ones."""


class _Call:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.answer = b""


class AnsweredCalls:
    """The answers of the latest calls, by key.

    The number and size of answers are bounded. The keys of older calls are kept without a bound, at about a hundred
    bytes each: a key that was used once must never run again, and a session makes some thousands of calls.
    """

    def __init__(self, *, max_kept: int = MAX_KEPT, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        self._max_kept = max_kept
        self._max_kept_bytes = max_kept_bytes
        self._lock = threading.Lock()
        self._running: dict[str, _Call] = {}
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._dropped: set[str] = set()

    def answer(self, key: str, run: Callable[[], bytes]) -> bytes:
        """Return what `run` returned for the first call with `key`. Only that call runs it. `run` must not raise.

        Raises AnswerForgottenError if the call ran before and its answer is no longer stored.
        """
        with self._lock:
            if key in self._dropped:
                raise AnswerForgottenError
            if key in self._kept:
                return self._kept[key]
            call = self._running.get(key)
            first = call is None
            if call is None:
                call = self._running[key] = _Call()
        if first:
            call.answer = run()
            self._keep(key, call.answer)
            call.done.set()
        else:
            call.done.wait()
        return call.answer

    def _keep(self, key: str, answer: bytes) -> None:
        with self._lock:
            del self._running[key]
            self._kept[key] = answer
            self._kept_bytes += len(answer)
            while len(self._kept) > self._max_kept or self._kept_bytes > self._max_kept_bytes:
                oldest, gone = self._kept.popitem(last=False)
                self._kept_bytes -= len(gone)
                self._dropped.add(oldest)
