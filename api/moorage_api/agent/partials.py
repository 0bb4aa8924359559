"""Show a message to the user while the model is still writing it."""

from __future__ import annotations

import time
from collections.abc import Callable

from moorage_api.agent.answers import AnswerBuilder
from moorage_api.agent.llm import Progress
from moorage_api.agent.work import Work
from moorage_api.events.schemas import MessageEvent

INTERVAL_SECONDS = 0.1
"""Reading a half-written answer costs; more often than this nothing leaves anyway."""


def shown(work: Work, stream_id: str, read: Callable[[AnswerBuilder], str]) -> Progress:
    """`read` finds the text for the user in what has come so far. JSON in plain text is no text for users."""
    shown_at = 0.0

    async def show(builder: AnswerBuilder) -> None:
        nonlocal shown_at
        now = time.monotonic()
        if now - shown_at < INTERVAL_SECONDS:
            return
        shown_at = now
        message = read(builder)
        if message and message[0] not in "{`<":
            await work.journal.show_partial(
                MessageEvent(role="assistant", message=message, partial=True, stream_id=stream_id)
            )

    return show
