"""Pictures in messages: a stored message refers to pictures, and a request carries them as parts of its content.

The bytes are in the object store. A picture's key contains its digest, so every request sends the same bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from mimetypes import guess_type
from typing import Any

from moorage_api.agent.ports import PICTURES, Message, Picture
from moorage_api.events.schemas import FileInfo

IS_BLIND = "not shown, because this model cannot see pictures"
IS_OLD = "no longer shown, so that the conversation stays short; get it again if you need it"
IS_TOO_MANY = "not shown, because this model takes fewer pictures"
IS_MISSING = "not shown, because it cannot be loaded now"

ReadPicture = Callable[[str], Awaitable[str | None]]
"""Returns the picture with this key as base64, or None if it cannot be loaded now."""


SHOWN_TYPES = frozenset({"image/png", "image/jpeg", "image/jpg", "image/gif", "image/webp"})


def select_pictures(files: Sequence[FileInfo]) -> list[FileInfo]:
    """The files that are pictures by their type or name. Their content decides later whether they are."""
    return [
        file
        for file in files
        if (file.mime_type or "").lower() in SHOWN_TYPES or (guess_type(file.filename)[0] or "") in SHOWN_TYPES
    ]


def attach(message: Message, pictures: Sequence[Picture]) -> Message:
    return message | {PICTURES: [picture.to_json() for picture in pictures]} if pictures else message


def references(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = message.get(PICTURES) or []
    return found


def count(messages: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(references(message)) for message in messages)


def count_parts(messages: Sequence[Mapping[str, Any]]) -> int:
    """The pictures in the messages of a request."""
    contents = [message["content"] for message in messages if isinstance(message.get("content"), list)]
    return sum(part.get("type") == "image_url" for content in contents for part in content)


def describe(reference: Mapping[str, Any]) -> str:
    kind = str(reference["media_type"]).rpartition("/")[2].upper()
    return f"{kind} picture of {reference['width']}x{reference['height']} pixels"


def to_words(message: Message, why: str) -> Message:
    """The message with a line of words instead of each picture."""
    if PICTURES not in message:
        return message
    lines = [f"[{describe(reference)}: {why}]" for reference in references(message)]
    return _without(message) | {"content": "\n".join(filter(None, [str(message["content"]), *lines]))}


def _without(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != PICTURES}


def place(messages: Sequence[Message], *, sees: bool, most: int, data: Mapping[str, str]) -> Iterator[Message]:
    """The messages with their pictures as content parts, or as words if the model does not see.

    Results of tools are text on most servers, so their pictures are in a message of the user right behind them.
    `most`: only so many of the newest pictures; 0 means all. `data`: base64 by key.
    """
    hidden = max(0, count(messages) - most) if most else 0
    waiting: list[dict[str, Any]] = []
    for message in messages:
        found = references(message)
        if not found and not waiting:
            yield message
            continue
        if not sees:
            yield to_words(message, IS_BLIND)
            continue
        parts = [*_parts(found[:hidden], data, IS_TOO_MANY), *_parts(found[hidden:], data)]
        hidden = max(0, hidden - len(found))
        message = _without(message)
        if message["role"] == "tool":
            if found:
                waiting += [_text(f"[Moorage] Pictures of the result of `{message['tool_call_id']}`:"), *parts]
            yield message
        elif message["role"] == "user":
            words = [_text(str(message["content"]))] if message["content"] else []
            yield message | {"content": [*waiting, *words, *parts]}
            waiting = []
        else:
            if waiting:
                yield {"role": "user", "content": waiting}
                waiting = []
            yield message
    if waiting:
        yield {"role": "user", "content": waiting}


def _parts(found: Sequence[Mapping[str, Any]], data: Mapping[str, str], why: str = "") -> Iterator[dict[str, Any]]:
    for reference in found:
        content = data.get(str(reference["key"]))
        if why or content is None:
            yield _text(f"[{describe(reference)}: {why or IS_MISSING}]")
        else:
            url = f"data:{reference['media_type']};base64,{content}"
            yield {"type": "image_url", "image_url": {"url": url}}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


class PictureCache:
    """The pictures of the last request as base64, so that each is loaded once for a run."""

    def __init__(self, read: ReadPicture | None) -> None:
        self._read = read
        self._data: dict[str, str] = {}

    async def load(self, messages: Sequence[Message]) -> Mapping[str, str]:
        """The base64 of all pictures of the messages by key. One that cannot be loaded is left out."""
        data: dict[str, str] = {}
        for key in dict.fromkeys(str(item["key"]) for message in messages for item in references(message)):
            content = self._data.get(key)
            if content is None and self._read is not None:
                content = await self._read(key)
            if content is not None:
                data[key] = content
        self._data = data
        return data
