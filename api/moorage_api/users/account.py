"""The account of a user, as the rest of the api sees it after the token check."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

Role = Literal["super_admin", "user"]
Status = Literal["active", "inactive", "banned"]


class Reader(Protocol):
    """The user who makes the request, as far as access checks need to know them."""

    @property
    def id(self) -> UUID: ...

    @property
    def is_admin(self) -> bool: ...


@dataclass(frozen=True)
class Account:
    id: UUID
    username: str | None
    email: str | None
    nickname: str
    avatar: str
    role: Role
    status: Status
    created_at: datetime

    @property
    def is_admin(self) -> bool:
        return self.role == "super_admin"
