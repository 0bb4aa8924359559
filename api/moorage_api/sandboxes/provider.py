"""What api and runner need of whoever owns the sandboxes: the local host, or the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol
from uuid import UUID


@dataclass(frozen=True)
class Sandbox:
    """A sandbox that answers. `uid` is the audience of its tokens: another uid is another computer."""

    uid: str
    url: str
    """Base URL of its gate."""


class Sandboxes(Protocol):
    async def ensure(self, session_id: UUID) -> Sandbox:
        """The session's sandbox, made where there is none; returns when its gate answers.

        Raises UnavailableError, with a message for people, where none can be had now.
        """
        ...

    async def find(self, session_id: UUID) -> Sandbox | None:
        """The session's sandbox if it has a live one; makes none."""
        ...

    async def delete(self, session_id: UUID) -> None:
        """End the sandbox and remove its files; none is fine."""
        ...

    async def close(self) -> None: ...
