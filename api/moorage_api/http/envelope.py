"""The envelope of every JSON response: {"code", "msg", "data"}."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel

T = TypeVar("T")


class Envelope(BaseModel, Generic[T]):
    """Source: shared contract, "All JSON responses use a common envelope". `code` repeats the HTTP status."""

    code: int = 200
    msg: str = "success"
    data: T | None = None


def ok(data: T | None = None) -> Envelope[T]:
    return Envelope(data=data)
