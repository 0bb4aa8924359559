"""Ask a model again while that may help, and wait in between: retries, and patience with a server in trouble."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from moorage_api.agent.model.incoming.answers import Answer
from moorage_api.agent.model.servers.errors import LlmError, RetryableError
from moorage_api.agent.model.servers.waits import describe_seconds
from moorage_common.backoff import Backoff

MAX_BACKOFF_SECONDS = 30.0
SHORT_WAIT_SECONDS = 60.0
"""A server that asks for a longer wait, and for more than what is left of the patience, is not waited for."""
LONG_REQUEST_PATIENCE_SECONDS = 30.0
"""How long a 500 is waited out, at most, before a shorter form of a long request is tried."""
TRUSTED_WAITS = 2
SHOW_SECONDS = 5.0
"""While it waits, the user is told so at this interval."""

OnWait = Callable[[str, float], Awaitable[None]]
"""Called before a wait, with the reason and the seconds until the next attempt."""


@dataclass(frozen=True)
class Timing:
    """How long to wait for a server, in seconds.

    `first_byte`: until the answer begins. A local model loads and reads the whole request first.
    `idle`: between two pieces of an answer. What only keeps the connection open is no piece.
    `patience`: how long trouble of the server is waited out, beyond the retries of each request.
    """

    first_byte: float = 120.0
    idle: float = 120.0
    patience: float = 0.0
    backoff: float = 0.5


async def ask_patiently(
    attempt: Callable[[], Awaitable[Answer]],
    *,
    timing: Timing,
    max_retries: int,
    is_long: bool = False,
    on_wait: OnWait | None = None,
) -> Answer:
    """The answer of the first attempt that succeeds. `is_long`: see `LlmClient.ask`.

    Raises LlmError: immediately if a retry cannot help, otherwise after `max_retries` retries and the patience.
    """
    began = time.monotonic()
    tries = halves = 0
    while True:
        try:
            return await attempt()
        except RetryableError as failure:
            halves += failure.is_half
            waited_seconds = time.monotonic() - began
            patience = timing.patience
            if is_long and failure.error.status == 500:
                patience = min(patience, LONG_REQUEST_PATIENCE_SECONDS)
            is_patient = waited_seconds < patience and not failure.is_lasting
            if halves > 1 and failure.half is not None:
                return failure.half  # a server that never says why an answer ends, but does end it
            if halves > 1 or (tries >= max_retries and not is_patient):
                raise failure.error from failure
            longest = max(patience - waited_seconds, SHORT_WAIT_SECONDS)
            if failure.after_seconds is not None and failure.after_seconds > longest:
                raise _too_long(failure.error, failure.after_seconds) from failure
            pause = _pause_seconds(tries, failure.after_seconds, first_seconds=timing.backoff)
            await _wait(pause, str(failure.error), on_wait)
            tries += 1


def _pause_seconds(tries: int, after_seconds: float | None, *, first_seconds: float) -> float:
    """A server that repeats a short wait without keeping its word is not asked again and again."""
    pause = Backoff(first_seconds, MAX_BACKOFF_SECONDS, jitter=0.25).pause_seconds(tries + 1)
    if after_seconds is None:
        return pause
    return after_seconds if tries < TRUSTED_WAITS else max(after_seconds, pause)


async def _wait(seconds: float, reason: str, on_wait: OnWait | None) -> None:
    """Wait, and say so again and again, because a client that connects later has not seen it."""
    while True:
        if on_wait is not None:
            await on_wait(reason, seconds)
        await asyncio.sleep(min(seconds, SHOW_SECONDS))
        seconds -= SHOW_SECONDS
        if seconds <= 0:
            return


def _too_long(error: LlmError, seconds: float) -> LlmError:
    """The error of a server that wants a longer wait than we have patience for. It says when to try again."""
    when = f"{datetime.now(UTC) + timedelta(seconds=min(seconds, 10**8)):%Y-%m-%d %H:%M} UTC"
    text = f"{error}. Its server asks to wait {describe_seconds(seconds)}: send a message again after {when}"
    return LlmError(error.code, text, status=error.status)
