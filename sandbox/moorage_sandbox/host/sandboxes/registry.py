"""All sandboxes of this host, by session."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

from moorage_sandbox.host.confinement.identities import UIDS_PER_SANDBOX, identity_of, is_root
from moorage_sandbox.host.sandboxes import layout
from moorage_sandbox.host.sandboxes.layout import SandboxRecord
from moorage_sandbox.host.sandboxes.parts import SharedResources
from moorage_sandbox.host.sandboxes.sandbox import HostSandbox, Phase
from moorage_sandbox.host.settings import HostSettings

log = logging.getLogger(__name__)


class LimitReachedError(Exception):
    """No more sandboxes may run. The text is for people."""


class Registry:
    def __init__(self, settings: HostSettings, surroundings: SharedResources) -> None:
        self._settings = settings
        self._shared = surroundings
        self._sandboxes: dict[UUID, HostSandbox] = {}
        self._endings: dict[UUID, asyncio.Task[None]] = {}
        self._deletions: set[asyncio.Task[None]] = set()
        self._slots = kept_slots(surroundings.layout.sandboxes)

    def get(self, session_id: UUID) -> HostSandbox | None:
        return self._sandboxes.get(session_id)

    def all(self) -> list[HostSandbox]:
        return list(self._sandboxes.values())

    async def ensure(self, session_id: UUID) -> HostSandbox:
        """The sandbox of this session, made if there is none or if it failed. It may still be starting.

        Raises LimitReachedError, or OSError when its directories cannot be made.
        """
        while True:
            if (ending := self._endings.get(session_id)) is not None:
                await asyncio.shield(ending)
            elif (sandbox := self._sandboxes.get(session_id)) is not None and sandbox.phase is Phase.FAILED:
                await asyncio.shield(self._end(session_id, sandbox, delete=False))
            else:
                # From here on nothing is awaited: of two callers the second finds what the first has made.
                return sandbox if sandbox is not None else self._make(session_id)

    async def delete(self, session_id: UUID) -> bool:
        """End the sandbox and delete its files, also those of an earlier run. False when there was nothing."""
        while (ending := self._endings.get(session_id)) is not None:
            await asyncio.shield(ending)
        existed = session_id in self._sandboxes or self._shared.layout.kept(session_id).root.exists()
        await asyncio.shield(self._end(session_id, self._sandboxes.get(session_id), delete=True))
        return existed

    async def close(self) -> None:
        """End all sandboxes at once; their files stay."""
        await asyncio.gather(*self._endings.values(), return_exceptions=True)
        await asyncio.gather(*(sandbox.stop() for sandbox in self._sandboxes.values()), return_exceptions=True)
        self._sandboxes.clear()
        for deletion in self._deletions:
            deletion.cancel()
        await asyncio.gather(*self._deletions, return_exceptions=True)

    def empty_trash(self) -> None:
        """Delete what an earlier host had no time for."""
        for path in self._shared.layout.trash.iterdir():
            self.delete_later(path)

    def _make(self, session_id: UUID) -> HostSandbox:
        if sum(one.phase is not Phase.FAILED for one in self.all()) >= self._settings.max_sandboxes:
            raise LimitReachedError(f"This machine runs at most {self._settings.max_sandboxes} sandboxes at a time")
        kept = self._shared.layout.kept(session_id)
        record = layout.read_record(kept) or self._new_record(session_id)
        sandbox = HostSandbox(record, identity_of(record.slot, uid_base=self._settings.uid_base), self._shared)
        layout.write_record(kept, record)
        self._slots[session_id] = record.slot
        sandbox.start()
        self._sandboxes[session_id] = sandbox
        return sandbox

    def take_slot(self, key: UUID) -> int:
        """A slot that is nobody else's until `release_slot`. Raises LimitReachedError."""
        slot = self._free_slot()
        self._slots[key] = slot
        return slot

    def release_slot(self, key: UUID) -> None:
        self._slots.pop(key, None)

    def _free_slot(self) -> int:
        taken = set(self._slots.values())
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        if is_root() and (slot + 1) * UIDS_PER_SANDBOX > self._settings.uid_count:
            raise LimitReachedError("No user is left for another sandbox: delete old sessions or widen --uid-count")
        return slot

    def _new_record(self, session_id: UUID) -> SandboxRecord:
        slot = self._free_slot()
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return SandboxRecord(session_id=session_id, uid=str(uuid4()), slot=slot, created=created)

    def _end(self, session_id: UUID, sandbox: HostSandbox | None, *, delete: bool) -> asyncio.Task[None]:
        """Runs to its end even if whoever asked has gone."""
        task = asyncio.create_task(self._run_end(session_id, sandbox, delete=delete))
        self._endings[session_id] = task
        return task

    async def _run_end(self, session_id: UUID, sandbox: HostSandbox | None, *, delete: bool) -> None:
        try:
            if sandbox is not None:
                await sandbox.stop()
            self._sandboxes.pop(session_id, None)
            if delete:
                discarded = layout.discard(self._shared.layout.kept(session_id), trash=self._shared.layout.trash)
                self._slots.pop(session_id, None)
                if discarded is not None:
                    self.delete_later(discarded)
        finally:
            self._endings.pop(session_id, None)

    def delete_later(self, path: Path) -> None:
        task = asyncio.create_task(asyncio.to_thread(layout.delete, path))
        self._deletions.add(task)
        task.add_done_callback(self._deleted)

    def _deleted(self, task: asyncio.Task[None]) -> None:
        self._deletions.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("Files of a deleted sandbox are left: %s", error)


def kept_slots(sandboxes: Path) -> dict[UUID, int]:
    """Slots in use by sandboxes that were made before and whose files are kept."""
    slots = {}
    for path in sandboxes.iterdir():
        record = layout.read_record(layout.StoredFiles(path))
        if record is not None:
            slots[record.session_id] = record.slot
    return slots
