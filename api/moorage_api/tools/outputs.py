"""What remote tools answer, cut to what the model reads and to what an event holds."""

from __future__ import annotations

import logging
from typing import Any

from moorage_api.agent.messages import clipped
from moorage_api.agent.ports import Attachments
from moorage_api.agent.toolsets.sandboxed import EXCERPT_CHARS, MAX_LOG_CHARS, MAX_MODEL_CHARS
from moorage_api.errors import DomainError, FencedError

logger = logging.getLogger(__name__)


async def kept_text(attachments: Attachments, text: str, *, name: str) -> tuple[str, dict[str, Any]]:
    """The text for the model, and the event's content under `name`; a long one is in the object store under `key`."""
    text = text.replace("\x00", "\ufffd")  # which no event can hold
    told = clipped(text, MAX_MODEL_CHARS)
    if len(text) <= MAX_LOG_CHARS:
        return told, {name: text}
    content: dict[str, Any] = {name: clipped(text, EXCERPT_CHARS)}
    try:
        content["key"] = await attachments.store_blob(
            text.encode(errors="replace"), content_type="text/plain; charset=utf-8", suffix=".txt"
        )
    except FencedError:
        raise
    except DomainError as error:
        logger.warning("A tool's output could not be stored: %s", error)
    return told, content
