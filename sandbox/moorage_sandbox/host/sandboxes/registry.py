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

logger = logging.getLogger(__name__)


class LimitReachedError(Exception):
    """Another sandbox may not run. The text is for people."""


class Registry:
    """`uid_base` and `uid_count` are the range of kernel users for sandboxes."""

    def __init__(self, shared: SharedResources, *, max_sandboxes: int, uid_base: int, uid_count: int) -> None:
        self._shared = shared
        self._max_sandboxes = max_sandboxes
        self._uid_base = uid_base
        self._uid_count = uid_count
        self._sandboxes: dict[UUID, HostSandbox] = {}
        self._endings: dict[UUID, asyncio.Task[None]] = {}
        self._deletions: set[asyncio.Task[None]] = set()
        self._slots = find_stored_slots(shared.layout.sandboxes)

    def get(self, session_id: UUID) -> HostSandbox | None:
        return self._sandboxes.get(session_id)

    def all(self) -> list[HostSandbox]:
        return list(self._sandboxes.values())

    async def ensure(self, session_id: UUID) -> HostSandbox:
        """Return the sandbox of this session; create it if it is missing or has failed. It may still start.

        Raises LimitReachedError, or OSError when its directories cannot be made.
        """
        while True:
            if (ending := self._endings.get(session_id)) is not None:
                await asyncio.shield(ending)
            elif (sandbox := self._sandboxes.get(session_id)) is not None and sandbox.phase is Phase.FAILED:
                await asyncio.shield(self._end(session_id, sandbox, delete=False))
            else:
                # No await follows, so a second caller at the same time finds the sandbox that the first one made.
                return sandbox if sandbox is not None else self._make(session_id)

    async def delete(self, session_id: UUID) -> bool:
        """End the sandbox and delete its files, also those of an earlier host. False if both were missing."""
        while (ending := self._endings.get(session_id)) is not None:
            await asyncio.shield(ending)
        existed = session_id in self._sandboxes or self._shared.layout.stored_files(session_id).root.exists()
        await asyncio.shield(self._end(session_id, self._sandboxes.get(session_id), delete=True))
        return existed

    async def close(self) -> None:
        """End all sandboxes at the same time. Their files are kept."""
        await asyncio.gather(*self._endings.values(), return_exceptions=True)
        await asyncio.gather(*(sandbox.stop() for sandbox in self._sandboxes.values()), return_exceptions=True)
        self._sandboxes.clear()
        for deletion in self._deletions:
            deletion.cancel()
        await asyncio.gather(*self._deletions, return_exceptions=True)

    def empty_trash(self) -> None:
        """Delete the files that an earlier host did not finish deleting."""
        for path in self._shared.layout.trash.iterdir():
            self.delete_later(path)

    def _make(self, session_id: UUID) -> HostSandbox:
        if sum(one.phase is not Phase.FAILED for one in self.all()) >= self._max_sandboxes:
            raise LimitReachedError(f"This machine runs at most {self._max_sandboxes} sandboxes at the same time")
        stored = self._shared.layout.stored_files(session_id)
        record = layout.read_record(stored) or self._new_record(session_id)
        sandbox = HostSandbox(record, identity_of(record.slot, uid_base=self._uid_base), self._shared)
        layout.write_record(stored, record)
        self._slots[session_id] = record.slot
        sandbox.start()
        self._sandboxes[session_id] = sandbox
        return sandbox

    def take_slot(self, key: UUID) -> int:
        """Reserve a slot until `release_slot`. Raises LimitReachedError."""
        slot = self._free_slot()
        self._slots[key] = slot
        return slot

    def release_slot(self, key: UUID) -> None:
        self._slots.pop(key, None)

    def _free_slot(self) -> int:
        taken = set(self._slots.values())
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        if is_root() and (slot + 1) * UIDS_PER_SANDBOX > self._uid_count:
            raise LimitReachedError(
                "All kernel users for sandboxes are in use: delete old sessions or raise --uid-count"
            )
        return slot

    def _new_record(self, session_id: UUID) -> SandboxRecord:
        slot = self._free_slot()
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return SandboxRecord(session_id=session_id, uid=str(uuid4()), slot=slot, created=created)

    def _end(self, session_id: UUID, sandbox: HostSandbox | None, *, delete: bool) -> asyncio.Task[None]:
        """Start ending a sandbox, as a task that goes on when the caller is cancelled."""
        task = asyncio.create_task(self._run_end(session_id, sandbox, delete=delete))
        self._endings[session_id] = task
        return task

    async def _run_end(self, session_id: UUID, sandbox: HostSandbox | None, *, delete: bool) -> None:
        try:
            if sandbox is not None:
                await sandbox.stop()
            self._sandboxes.pop(session_id, None)
            if delete:
                discarded = layout.move_to_trash(
                    self._shared.layout.stored_files(session_id), trash=self._shared.layout.trash
                )
                self._slots.pop(session_id, None)
                if discarded is not None:
                    self.delete_later(discarded)
        finally:
            self._endings.pop(session_id, None)

    def delete_later(self, path: Path) -> None:
        task = asyncio.create_task(asyncio.to_thread(layout.delete_tree, path))
        self._deletions.add(task)
        task.add_done_callback(self._on_deleted)

    def _on_deleted(self, task: asyncio.Task[None]) -> None:
        self._deletions.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.warning("The files of a deleted sandbox could not be deleted: %s", error)


def find_stored_slots(sandboxes: Path) -> dict[UUID, int]:
    """Return the slots of earlier sandboxes whose files are kept."""
    slots = {}
    for path in sandboxes.iterdir():
        record = layout.read_record(layout.StoredFiles(path))
        if record is not None:
            slots[record.session_id] = record.slot
    return slots
