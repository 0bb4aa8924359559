"""Connection of a run to its session's sandbox. The sandbox is created when first needed, and found again if replaced.

Implements the agent's `Gate`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar
from uuid import UUID

from moorage_api.agent.ports import GateResult, SandboxLostError
from moorage_api.database import Database
from moorage_api.errors import DomainError, FencedError, UnavailableError
from moorage_api.events.schemas import SandboxEvent, SandboxPhase
from moorage_api.runner.journal import RunJournal
from moorage_api.sandboxes.provider import Sandbox, Sandboxes, SandboxState
from moorage_api.sandboxes.service import find_known_sandbox, store_sandbox
from moorage_common.backoff import Backoff
from moorage_crds.types import SkillPin
from moorage_sandbox.client import GateClient, TokenSigner
from moorage_sandbox.messages import CallResponse
from moorage_sandbox.protocol import GateError

logger = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_SECONDS = 60
"""Longest wait for a sandbox that is refused or was lost. After it the run ends with an error. It is a setting."""

RETRY_BACKOFF = Backoff(first_seconds=0.1, longest_seconds=2)
QUIET_SECONDS = 3.0
"""A shorter interruption of the connection to a sandbox is not reported to the user."""
AWAY_CODES = frozenset({"unreachable", "box_unavailable"})

REPLACED_NOTICE = (
    "The sandbox of this session was lost and a new one took its place. Running programs, open pages and files that "
    "were not saved to the user are gone; what the user attached can be attached again. Check what is there before "
    "going on."
)


Pins = Callable[[UUID], Awaitable[Sequence[SkillPin]]]
"""Returns the skills of a session. They are pinned at their first use and never change afterwards."""


async def no_skills(_: UUID) -> Sequence[SkillPin]:
    return ()


class SandboxContent(Protocol):
    """Content that is copied into each new sandbox in the background."""

    def start(self, client: GateClient) -> None: ...

    async def stop(self) -> None:
        """Stop copying. Called before the client is closed."""
        ...


class SandboxLink:
    """Each turn has one. The turn closes it at the end."""

    def __init__(
        self,
        journal: RunJournal,
        *,
        db: Database,
        sandboxes: Sandboxes,
        signer: TokenSigner,
        pins: Pins = no_skills,
        skills: SandboxContent | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._journal = journal
        self._db = db
        self._sandboxes = sandboxes
        self._signer = signer
        self._pins = pins
        self._skills = skills
        self._patience_seconds = patience_seconds
        self._preparing: asyncio.Task[None] | None = None
        self._reported: SandboxEvent | None = None
        self._opening = asyncio.Lock()
        self._client: GateClient | None = None
        self._since_seq = 0
        self._notice: str | None = None
        """Notice for the model about a replaced sandbox; None until it was read from the database."""

    async def close(self) -> None:
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.gather(self._preparing, return_exceptions=True)
        await self._disconnect()

    async def _disconnect(self) -> None:
        if self._skills is not None:
            await self._skills.stop()
        if self._client is not None:
            await self._client.__aexit__(None, None, None)
            self._client = None

    def prepare(self) -> None:
        """See `Gate.prepare`. Errors are only logged; the first call reports them."""
        if self._preparing is None and self._client is None:
            self._preparing = asyncio.create_task(self._prepare())

    async def _prepare(self) -> None:
        try:
            await self.open()
        except FencedError:
            return
        except (DomainError, GateError) as error:
            logger.info("The sandbox of %s is not ready yet: %s", self._journal.session_id, error)

    @property
    def is_in_use(self) -> bool:
        """Whether the run has begun to start the sandbox, or is connected to it."""
        return self._client is not None or self._preparing is not None

    async def ready(self) -> None:
        """Return when the sandbox is ready. Raises DomainError, GateError or SandboxLostError."""

        async def do_nothing(_: GateClient) -> None:
            return

        await self.with_client(do_nothing)

    async def call(
        self,
        key: str,
        function: str,
        args: Mapping[str, Any],
        *,
        timeout_seconds: float,
        read_only: bool = False,
    ) -> GateResult:
        """See `Gate.call`. If the sandbox was replaced, `read_only` calls are repeated; others become `unknown`."""

        async def ask(client: GateClient) -> CallResponse:
            if not read_only and abs(int(key)) < self._since_seq:
                return CallResponse(key=key, outcome="unknown")
            return await client.call(key, function, args, timeout_seconds=timeout_seconds)

        try:
            response = await self.with_client(ask)
        except FencedError:
            raise
        except (DomainError, GateError) as error:
            return GateResult("failed", {}, getattr(error, "code", "unavailable"), str(error))
        if response.outcome == "unknown":
            message = response.error.message if response.error else "The sandbox was replaced while this ran"
            return GateResult("unknown", {}, "unknown", message)
        error_code, error_message = (response.error.code, response.error.message) if response.error else ("", "")
        return GateResult(response.outcome, response.result, error_code, error_message)

    async def notices(self) -> list[str]:
        """See `Gate.notices`. The journal clears them with the next messages it records."""
        if self._notice is None:
            self._notice = (await find_known_sandbox(self._db, self._journal.session_id)).notice
        if not self._notice:
            return []
        notice, self._notice = self._notice, ""
        self._journal.pending_notice = notice
        return [notice]

    async def with_client(self, work: Callable[[GateClient], Awaitable[T]]) -> T:
        """Do `work`, and retry while there is no sandbox. Raises DomainError, GateError or SandboxLostError."""
        began, failures = time.monotonic(), 0
        while True:
            client: GateClient | None = None
            try:
                client = await self.open()
                return await work(client)
            except UnavailableError as error:
                if client is not None:
                    raise  # not the sandbox, but something else that `work` needs
                await self._wait_longer(error, began=began, is_refused=True)
            except GateError as error:
                if error.code == "stale_epoch":
                    raise FencedError("A newer runner works on this session") from error
                if error.code not in AWAY_CODES and error.code != "not_bound":
                    raise
                await self._disconnect()  # the next attempt looks for the sandbox again
                await self._wait_longer(error, began=began, is_refused=False)
            failures += 1
            await asyncio.sleep(RETRY_BACKOFF.pause_seconds(failures))

    async def _wait_longer(self, error: Exception, *, began: float, is_refused: bool) -> None:
        """Tell the user that the run waits for its sandbox. Raises SandboxLostError when it has waited long enough."""
        waited = time.monotonic() - began
        if waited > self._patience_seconds:
            await self._report("failed", str(error))
            raise SandboxLostError(
                f"The work stopped because there was no sandbox for {waited:.0f} seconds: {error}. What is finished "
                "is kept. Send a message to try again; if it happens again, ask an administrator to check the sandboxes"
            ) from error
        if is_refused or waited > QUIET_SECONDS:
            await self._report("queued", f"Waiting for a sandbox: {error}")

    async def _report(self, phase: SandboxPhase, reason: str = "") -> None:
        """Record the state of the sandbox, unless it is the one recorded last."""
        event = SandboxEvent(phase=phase, reason=reason)
        if event != self._reported:
            self._reported = event
            await self._journal.record(event)

    async def open(self) -> GateClient:
        """Return a client of the current sandbox, which is started if needed. Raises DomainError or GateError."""
        async with self._opening:
            if self._client is None:
                sandbox = await self._sandboxes.find(self._journal.session_id)
                if sandbox is None:
                    sandbox = await self._start()
                self._client = await self._bind(sandbox)
                if self._reported is not None:
                    await self._report("ready")
                if self._skills is not None:
                    self._skills.start(self._client)
            return self._client

    async def _start(self) -> Sandbox:
        session_id = self._journal.session_id
        is_back = (await find_known_sandbox(self._db, session_id)).is_suspended

        async def record(state: SandboxState) -> None:
            if state.phase == "failed" or (state.phase == "starting" and self._is_waiting()):
                return  # it is tried again; `_wait_longer` reports why the run waits and when it gives up
            await self._report("resuming" if is_back and state.phase == "starting" else state.phase, state.reason)

        return await self._sandboxes.ensure(
            session_id, owner_id=self._journal.owner_id, skills=await self._pins(session_id), report=record
        )

    def _is_waiting(self) -> bool:
        return self._reported is not None and self._reported.phase == "queued"

    async def _bind(self, sandbox: Sandbox) -> GateClient:
        client = GateClient(
            sandbox.url,
            signer=self._signer,
            sandbox_uid=sandbox.uid,
            session_id=str(self._journal.session_id),
            epoch=self._journal.run.epoch,
        )
        try:
            self._since_seq = await store_sandbox(
                self._db,
                self._journal.session_id,
                sandbox.uid,
                epoch=self._journal.run.epoch,
                notice=REPLACED_NOTICE,
            )
            self._notice = None  # the replacement of a sandbox stores a new notice
            await client.bind()
        except BaseException:
            await client.__aexit__(None, None, None)
            raise
        return client


@dataclass(frozen=True)
class SandboxLinks:
    """Makes the link of each run."""

    db: Database
    sandboxes: Sandboxes
    signer: TokenSigner
    patience_seconds: float = PATIENCE_SECONDS

    def link(self, journal: RunJournal, *, pins: Pins, skills: SandboxContent) -> SandboxLink:
        return SandboxLink(
            journal,
            db=self.db,
            sandboxes=self.sandboxes,
            signer=self.signer,
            pins=pins,
            skills=skills,
            patience_seconds=self.patience_seconds,
        )
