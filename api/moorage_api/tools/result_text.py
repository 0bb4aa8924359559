"""Shorten the results of remote tools for the model and for events, and store their pictures."""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Sequence
from typing import Any

from moorage_api.agent import prompts
from moorage_api.agent.messages import clip
from moorage_api.agent.ports import Attachments, Picture, PictureError
from moorage_api.agent.toolsets.sandbox import EXCERPT_CHARS, MAX_LOG_CHARS
from moorage_api.errors import DomainError, FencedError

logger = logging.getLogger(__name__)

MAX_PICTURES = 4
"""Pictures of one result that a model gets."""


async def shorten_result(attachments: Attachments, text: str, *, name: str) -> tuple[str, dict[str, Any]]:
    """Return the text for the model and the content of the event, with the text under `name`.

    A long text is stored as an object, whose key is in the content under `key`.
    """
    text = text.replace("\x00", "\ufffd")  # PostgreSQL cannot store NUL in JSON
    if len(text) <= MAX_LOG_CHARS:
        return text, {name: text}
    content: dict[str, Any] = {name: clip(text, EXCERPT_CHARS)}
    try:
        content["key"] = await attachments.store_blob(
            text.encode(errors="replace"), content_type="text/plain; charset=utf-8", suffix=".txt"
        )
    except FencedError:
        raise
    except DomainError as error:
        logger.warning("A tool's output could not be stored: %s", error)
    return text, content


async def store_pictures(
    attachments: Attachments, pictures: Sequence[bytes], *, key: str
) -> tuple[list[Picture], list[str]]:
    """Store pictures for the model. Returns them, and sentences about those that it does not get."""
    stored, remarks = [], []
    for place, data in enumerate(pictures[:MAX_PICTURES]):
        try:
            stored.append(await attachments.store_picture(data, key=f"{key}.picture{place}"))
        except PictureError as error:
            remarks.append(prompts.picture_failure(error))
    if more := len(pictures) - len(pictures[:MAX_PICTURES]):
        remarks.append(f"[{more} more pictures are not shown: at most {MAX_PICTURES} of one result are]")
    return stored, remarks


def decode_base64(text: str) -> bytes:
    """The bytes; empty if the text is not base64."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
