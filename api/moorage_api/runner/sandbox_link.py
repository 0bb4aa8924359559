"""Connection of a run to its session's sandbox. The sandbox is created when first needed, and found again if replaced.

Implements the agent's `Gate` and `Attachments`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from uuid import UUID

from moorage_api.agent.ports import GateResult, Picture, PictureError, SandboxLostError, SavedFiles
from moorage_api.database import Database, uuid7
from moorage_api.errors import DomainError, FencedError, TooLargeError, UnavailableError
from moorage_api.events.schemas import FileInfo, SandboxEvent, SandboxPhase
from moorage_api.files.names import safe_filename
from moorage_api.files.service import FileService
from moorage_api.objects import keys
from moorage_api.objects.store import BlobStore
from moorage_api.runner.journal import RunJournal
from moorage_api.runner.pictures import PictureLimits, PictureStore, decode, iterate
from moorage_api.sandboxes.errors import as_domain_error
from moorage_api.sandboxes.provider import Sandbox, Sandboxes, SandboxState
from moorage_api.sandboxes.service import find_known_sandbox, store_sandbox
from moorage_common.backoff import Backoff
from moorage_crds.types import SkillPin
from moorage_sandbox.client import GateClient, TokenSigner
from moorage_sandbox.messages import CallResponse
from moorage_sandbox.protocol import HOME, OUTPUTS, UPLOADS, GateError

logger = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_SECONDS = 60
"""Longest wait for a sandbox that is refused or was lost. After it the run ends with an error. It is a setting."""

KEEP_SECONDS = 15.0
"""Longest wait for the sandbox when a long output is written into it."""
RETRY_BACKOFF = Backoff(first_seconds=0.1, longest_seconds=2)
QUIET_SECONDS = 3.0
"""A shorter interruption of the connection to a sandbox is not reported to the user."""
AWAY_CODES = frozenset({"unreachable", "box_unavailable"})

PICTURES = f"{HOME}/.cache/pictures"
"""Directory of the sandbox for pictures of tools that have to be made smaller."""
PICTURE_SECONDS = 40

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
        files: FileService,
        blobs: BlobStore,
        pictures: PictureStore,
        pins: Pins = no_skills,
        skills: SandboxContent | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._journal = journal
        self._db = db
        self._sandboxes = sandboxes
        self._signer = signer
        self._files = files
        self._blobs = blobs
        self._pictures = pictures
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
            await self._open()
        except FencedError:
            return
        except (DomainError, GateError) as error:
            logger.info("The sandbox of %s is not ready yet: %s", self._journal.session_id, error)

    async def ready(self) -> None:
        """Return when the sandbox is ready. Raises DomainError, GateError or SandboxLostError."""

        async def do_nothing(_: GateClient) -> None:
            return

        await self._with_client(do_nothing)

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
            response = await self._with_client(ask)
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

    async def to_sandbox(self, files: Sequence[FileInfo]) -> Sequence[FileInfo]:
        """See `Attachments.to_sandbox`. Two files of one name get different paths. Raises DomainError."""
        placed = []
        taken: set[str] = set()
        for info in files:
            path = f"{UPLOADS}/{free_name(safe_filename(info.filename), taken)}"
            await self._write(path, info.key)
            await self._files.place_in_session(
                UUID(info.id), owner_id=self._journal.owner_id, session_id=self._journal.session_id, filepath=path
            )
            placed.append(info.model_copy(update={"filepath": path}))
        return placed

    async def _write(self, path: str, key: str) -> None:
        async def write(client: GateClient) -> None:
            stored = await self._files.open(
                key
            )  # opened again for each attempt, because a stream can be read only once
            try:
                await client.write_file(path, stored.chunks, size=stored.size)
            finally:
                await stored.chunks.aclose()

        try:
            await self._with_client(write)
        except GateError as error:
            raise as_domain_error(error) from error

    async def from_sandbox(self, filepaths: Sequence[str]) -> SavedFiles:
        """See `Attachments.from_sandbox`. After the first failed connection, the other files are not tried."""
        saved: list[FileInfo] = []
        problems: dict[str, str] = {}
        for place, path in enumerate(filepaths):
            try:
                saved.append(await self._save(path))
            except (FencedError, SandboxLostError):
                raise
            except UnavailableError as error:
                logger.warning("Files of %s are not stored yet: %s", self._journal.session_id, error)
                return SavedFiles(saved, problems, filepaths[place:])
            except (DomainError, GateError) as error:
                problems[path] = str(error)
        return SavedFiles(saved, problems)

    async def _save(self, path: str) -> FileInfo:
        limit_bytes = self._files.limit_bytes

        async def save(client: GateClient) -> FileInfo:
            async with client.read_file(path) as file:
                if file.size > limit_bytes:
                    raise TooLargeError(f"The file has {file.size} bytes; at most {limit_bytes} bytes can be stored")
                return await self._files.save_from_sandbox(
                    file.chunks,
                    owner_id=self._journal.owner_id,
                    session_id=self._journal.session_id,
                    filepath=path,
                )

        return await self._with_client(save)

    async def keep_output(self, name: str, text: str) -> str:
        """See `Attachments.keep_output`. The result is useful without the file, so no trouble ends the call."""
        if self._client is None and self._preparing is None:
            return ""
        path, data = f"{OUTPUTS}/{name}", text.encode(errors="replace")

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        try:
            async with asyncio.timeout(KEEP_SECONDS):
                await (await self._open()).write_file(path, chunks(), size=len(data))
        except FencedError:
            raise
        except (DomainError, GateError, TimeoutError) as error:
            logger.info("A long output of %s is not kept: %s", self._journal.session_id, error)
            return ""
        return path

    async def store_blob(self, data: bytes, *, content_type: str, suffix: str) -> str:
        key = f"{keys.session_prefix(self._journal.session_id)}{uuid7()}{suffix}"
        await self._blobs.put(key, data, content_type=content_type)
        return key

    async def read_picture(self, filepath: str, *, key: str) -> Picture:
        """See `Attachments.read_picture`."""
        limits = self._pictures.limits
        args = {"filepath": filepath, "max_bytes": limits.max_bytes, "max_pixels": limits.max_pixels}
        answer = await self.call(key, "read_picture", args, timeout_seconds=PICTURE_SECONDS, read_only=True)
        if answer.outcome != "succeeded":
            raise PictureError(answer.error_message)
        return await self._pictures.put(decode(answer.result))

    async def store_picture(self, data: bytes, *, key: str) -> Picture:
        """See `Attachments.store_picture`."""
        if self._pictures.is_small(data):
            return await self._pictures.put(data)
        path = f"{PICTURES}/{hashlib.sha256(data).hexdigest()}"

        async def write(client: GateClient) -> None:
            await client.write_file(path, iterate(data), size=len(data))

        try:
            await self._with_client(write)
        except FencedError:
            raise
        except (DomainError, GateError) as error:
            raise PictureError(f"the sandbox, which makes it smaller, does not take it: {error}") from error
        return await self.read_picture(path, key=key)

    async def _with_client(self, work: Callable[[GateClient], Awaitable[T]]) -> T:
        """Do `work`, and retry while there is no sandbox. Raises DomainError, GateError or SandboxLostError."""
        began, failures = time.monotonic(), 0
        while True:
            client: GateClient | None = None
            try:
                client = await self._open()
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

    async def _open(self) -> GateClient:
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
    files: FileService
    blobs: BlobStore
    pictures: PictureLimits = field(default_factory=PictureLimits)
    patience_seconds: float = PATIENCE_SECONDS

    def picture_store(self, session_id: UUID) -> PictureStore:
        return PictureStore(self.blobs, session_id, limits=self.pictures)

    def link(self, journal: RunJournal, *, pins: Pins, skills: SandboxContent) -> SandboxLink:
        return SandboxLink(
            journal,
            db=self.db,
            sandboxes=self.sandboxes,
            signer=self.signer,
            files=self.files,
            blobs=self.blobs,
            pictures=self.picture_store(journal.session_id),
            pins=pins,
            skills=skills,
            patience_seconds=self.patience_seconds,
        )


def free_name(name: str, taken: set[str]) -> str:
    """Return `name`, with a number before its extension if it is in `taken`, and add the result to `taken`."""
    stem, dot, extension = name.rpartition(".")
    base, suffix = (stem, dot + extension) if stem else (name, "")
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{base}-{number}{suffix}"
    taken.add(candidate)
    return candidate
