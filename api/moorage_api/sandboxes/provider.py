"""The interface through which api and runner use sandboxes. The local host and the cluster implement it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from moorage_api.events.schemas import SandboxPhase
from moorage_crds.types import SkillPin


@dataclass(frozen=True)
class Sandbox:
    """A sandbox that answers. `uid` is the audience of its tokens; another uid means another sandbox."""

    uid: str
    url: str
    """Base URL of its gate."""


@dataclass(frozen=True)
class SandboxState:
    """State of a sandbox, as in the `sandbox` event. `reason` is for people."""

    phase: SandboxPhase
    reason: str = ""


Report = Callable[[SandboxState], Awaitable[None]]
"""Called with each new state of a sandbox while it starts."""


async def report_nothing(_: SandboxState) -> None:
    """Ignore the states of a starting sandbox."""


class Sandboxes(Protocol):
    async def register(self, session_id: UUID, *, owner_id: UUID) -> None:
        """Make a new session known without starting a sandbox. Safe to repeat.

        It is an optimization: `ensure` also works for unknown sessions. Raises UnavailableError.
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
        """Find the session's sandbox or create one, and return when its gate answers.

        The last reported state is `ready`, or `failed` followed by UnavailableError with a message for people. `skills`
        are for a sandbox that has not started yet; a running one is not changed.
        """
        ...

    async def find(self, session_id: UUID) -> Sandbox | None:
        """Return the session's sandbox if it has a live one. Never creates one. Raises UnavailableError."""
        ...

    async def ping(self) -> None:
        """Check that the sandbox host or the cluster answers. Raises UnavailableError."""
        ...

    async def suspend(self, session_id: UUID) -> bool:
        """End the session's sandbox; its content is lost. `ensure` creates another one when it is needed.

        False if the session had no sandbox or another process was faster. Raises UnavailableError.
        """
        ...

    async def delete(self, session_id: UUID) -> None:
        """End the sandbox and remove its files. Does nothing if the session has no sandbox. Raises UnavailableError."""
        ...

    async def find_unregistered(self, sessions: Sequence[UUID]) -> Sequence[UUID]:
        """Return those of `sessions` that need another `register`: it failed, or its result was deleted."""
        ...
