"""Read one chunk of an answer from an event of its stream, and recognise errors that come with the status 200."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from moorage_api.agent.model.incoming.answers import BadStreamError
from moorage_api.agent.model.incoming.sse import DOCUMENT, ServerEvent
from moorage_api.agent.model.servers.errors import RefusedError
from moorage_api.agent.model.servers.refusals import FULL_WINDOW_REASON, read_refusal

KEEP_ALIVE_NAMES = frozenset({"ping", "heartbeat", "keepalive", "keep-alive"})
ERROR_NAMES = frozenset({"error", "exception", "fatal"})
ERROR_KEYS = ("message", "msg", "detail", "errors", "error_msg", "error_message", "Message")
"""In a document without an answer, each of these is the words of an error."""


def is_end(event: ServerEvent) -> bool:
    return event.data.strip().strip('"').startswith("[DONE]")


def read_chunk(event: ServerEvent, *, secrets: Sequence[str]) -> Any:
    """The chunk in the event; None for an event that only keeps the connection open. Errors do not show `secrets`.

    Raises RefusedError if it is an error, and BadStreamError if it is something else.
    """
    text = event.data.strip().removeprefix("\ufeff")
    if not text or event.name in KEEP_ALIVE_NAMES:
        return None
    if event.name in ERROR_NAMES:
        raise RefusedError(read_refusal(0, text, {}, secrets=secrets))
    try:
        document = json.loads(text, parse_constant=lambda _: None, parse_float=_parse_float)
    except ValueError as error:
        server_text = read_refusal(0, text, {}, secrets=secrets).server_text
        raise BadStreamError(f"{event.name or 'an event'} is not JSON", server_text=server_text) from error
    if document is None:
        return None
    if _is_error(document) or (event.name == DOCUMENT and not _choices(document)):
        raise RefusedError(read_refusal(0, text, {}, secrets=secrets))
    if any(
        isinstance(choice, Mapping) and choice.get("finish_reason") == FULL_WINDOW_REASON
        for choice in _choices(document)
    ):
        raise RefusedError(read_refusal(0, json.dumps({"message": FULL_WINDOW_REASON}), {}))
    return document


MARKING_KEYS = frozenset({"role", "type", "id", "index"})
"""They say what a part is, and are no part of an answer themselves."""


def is_progress(chunk: Any) -> bool:
    """Whether the chunk adds something to the answer or ends it. Otherwise it only keeps the connection open."""
    return any(
        isinstance(choice, Mapping)
        and (bool(choice.get("finish_reason")) or any(_has_text(choice.get(key)) for key in ("delta", "message")))
        for choice in _choices(chunk)
    )


def _has_text(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(_has_text(item) for key, item in value.items() if key not in MARKING_KEYS)
    return any(map(_has_text, value)) if isinstance(value, list) else isinstance(value, str) and bool(value)


def _parse_float(text: str) -> float | None:
    """Infinite numbers cannot be sent back as JSON."""
    number = float(text)
    return number if abs(number) != float("inf") else None


def _choices(document: Any) -> list[Any]:
    choices = document.get("choices") if isinstance(document, Mapping) else None
    return choices if isinstance(choices, list) else []


def _is_error(document: Any) -> bool:
    if isinstance(document, list):
        return any(map(_is_error, document))
    if not isinstance(document, Mapping):
        return False
    choices = _choices(document)
    if any(isinstance(holder, Mapping) and holder.get("error") for holder in (document, *choices[:1])):
        return True
    if choices or document.get("usage"):
        return False
    status = document.get("base_resp")
    if isinstance(status, Mapping) and status.get("status_code"):
        return True
    is_named = any(document.get(key) in ("error", "response.failed") for key in ("object", "type", "status"))
    return is_named or any(isinstance(document.get(key), str | list) and document[key] for key in ERROR_KEYS)
