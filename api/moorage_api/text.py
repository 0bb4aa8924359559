"""Text that every part can hold: PostgreSQL stores no NUL, and UTF-8 has no lone surrogates."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator


def check_storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain NUL characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("must not contain lone surrogates") from error
    return text


StorableText = Annotated[str, AfterValidator(check_storable)]
