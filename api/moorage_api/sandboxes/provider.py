"""What api and runner need of whoever owns the sandboxes: the local host, or the cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from moorage_api.events.schemas import SandboxPhase
from moorage_crds.types import SkillPin


@dataclass(frozen=True)
class Sandbox:
    """A sandbox that answers. `uid` is the audience of its tokens: another uid is another computer."""

    uid: str
    url: str
    """Base URL of its gate."""


@dataclass(frozen=True)
class SandboxState:
    """What is seen of a sandbox, in the words of the `sandbox` event. `reason` is for people."""

    phase: SandboxPhase
    reason: str = ""


Report = Callable[[SandboxState], Awaitable[None]]
"""Told each state that a sandbox passes through on its way, each once."""


async def report_nothing(_: SandboxState) -> None:
    """For those who only want the sandbox."""


class Sandboxes(Protocol):
    async def register(self, session_id: UUID, *, owner_id: UUID) -> None:
        """Tell the owner of the sandboxes of a new session; starts nothing, and twice is once.

        Raises UnavailableError. Leaving it out is harmless: `ensure` does it too.
        """
        ...

    async def ensure(
        self,
        session_id: UUID,
        *,
        owner_id: UUID,
        skills: Sequence[SkillPin] = (),
        report: Report = report_nothing,
    ) -> Sandbox:
        """The session's sandbox, made where there is none; returns when its gate answers.

        The last state reported is `ready`, or `failed` before an UnavailableError with a message for people, where
        none can be had now. `skills` are for a sandbox that is not started yet; a running one keeps what it has.
        """
        ...

    async def find(self, session_id: UUID) -> Sandbox | None:
        """The session's sandbox if it has a live one; makes none. Raises UnavailableError."""
        ...

    async def ping(self) -> None:
        """Raises UnavailableError while whoever owns the sandboxes cannot be asked."""
        ...

    async def suspend(self, session_id: UUID) -> bool:
        """End the sandbox of a session that does not need it now; `ensure` makes another.

        False where there was none, or somebody else was quicker. What is in it is lost. Raises UnavailableError.
        """
        ...

    async def delete(self, session_id: UUID) -> None:
        """End the sandbox and remove its files; none is fine. Raises UnavailableError."""
        ...

    async def unregistered(self, sessions: Sequence[UUID]) -> Sequence[UUID]:
        """Those of `sessions` that `register` is to be called for: it failed, or what it made vanished."""
        ...
