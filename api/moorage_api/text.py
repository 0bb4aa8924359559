"""Types for text that can be stored and sent: PostgreSQL stores no NUL, and UTF-8 has no lone surrogates."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, SecretStr, StringConstraints


def check_storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain NUL characters")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("must not contain lone surrogates") from error
    return text


def is_storable(text: str) -> bool:
    try:
        check_storable(text)
    except ValueError:
        return False
    return True


def check_secret(value: SecretStr) -> SecretStr:
    check_storable(value.get_secret_value())
    return value


def check_header_value(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x20-\x7e\x80-\xff\t]*", value.get_secret_value()):
        raise ValueError("must be one line of Latin-1 text")
    return value


def check_plain_header_value(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?", value.get_secret_value()):
        raise ValueError("must be one line of ASCII text, not empty, without white space at its ends")
    return value


StorableText = Annotated[str, AfterValidator(check_storable)]
StorableSecret = Annotated[SecretStr, AfterValidator(check_secret)]
HeaderSecret = Annotated[SecretStr, AfterValidator(check_header_value)]
"""A secret that is sent as the value of an HTTP header."""
HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}$")]
