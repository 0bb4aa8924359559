"""Show a message to the user while the model is still writing it."""

from __future__ import annotations

import time
from collections.abc import Callable

from moorage_api.agent.model.endpoint import OnProgress
from moorage_api.agent.model.incoming.answers import AnswerBuilder
from moorage_api.agent.turn.work import Work
from moorage_api.events.schemas import MessageEvent

INTERVAL_SECONDS = 0.1
"""Parsing an unfinished answer is expensive, and the journal sends at most ten partial messages a second."""


def show_partials(work: Work, stream_id: str, read: Callable[[AnswerBuilder], str]) -> OnProgress:
    """Return a callback that sends the unfinished message to the user each time the answer grows.

    `read` extracts the text for the user. A text that begins like JSON, a code block or a tag is not sent.
    """
    sent_at = 0.0

    async def show(builder: AnswerBuilder) -> None:
        nonlocal sent_at
        now = time.monotonic()
        if now - sent_at < INTERVAL_SECONDS:
            return
        sent_at = now
        message = read(builder)
        if message and message[0] not in "{`<":
            await work.journal.show_partial(
                MessageEvent(role="assistant", message=message, partial=True, stream_id=stream_id)
            )

    return show
