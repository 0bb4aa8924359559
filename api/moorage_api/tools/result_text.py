"""Shorten the results of remote tools for the model and for events."""

from __future__ import annotations

import logging
from typing import Any

from moorage_api.agent.messages import clip
from moorage_api.agent.ports import Attachments
from moorage_api.agent.toolsets.sandbox import EXCERPT_CHARS, MAX_LOG_CHARS, MAX_MODEL_CHARS
from moorage_api.errors import DomainError, FencedError

logger = logging.getLogger(__name__)


async def shorten_result(attachments: Attachments, text: str, *, name: str) -> tuple[str, dict[str, Any]]:
    """Return the clipped text for the model and the content of the event, with the text under `name`.

    A long text is stored as an object, whose key is in the content under `key`.
    """
    text = text.replace("\x00", "\ufffd")  # PostgreSQL cannot store NUL in JSON
    text_for_model = clip(text, MAX_MODEL_CHARS)
    if len(text) <= MAX_LOG_CHARS:
        return text_for_model, {name: text}
    content: dict[str, Any] = {name: clip(text, EXCERPT_CHARS)}
    try:
        content["key"] = await attachments.store_blob(
            text.encode(errors="replace"), content_type="text/plain; charset=utf-8", suffix=".txt"
        )
    except FencedError:
        raise
    except DomainError as error:
        logger.warning("A tool's output could not be stored: %s", error)
    return text_for_model, content
