"""Rules and transactions of sessions. Changes are published after the commit."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.database import Database, uuid7
from moorage_api.errors import DomainError, UnavailableError
from moorage_api.events import log
from moorage_api.events.hub import Hub
from moorage_api.events.schemas import FileInfo, MessageEvent
from moorage_api.objects import keys
from moorage_api.objects.store import BlobStore
from moorage_api.runs import queue
from moorage_api.sandboxes.provider import Sandboxes
from moorage_api.sessions.models import SessionRow
from moorage_api.sessions.repository import SessionRepository, create_session, list_sessions, touch_list
from moorage_api.sessions.schemas import ListSessionItem
from moorage_api.sessions.summary import apply_events
from moorage_api.users.account import Reader

logger = logging.getLogger(__name__)

LIST_LIMIT = 1000
SWEEP_BATCH = 100


@dataclass(frozen=True)
class PostedMessage:
    """A stored message: its seq in the log."""

    seq: int


class SessionService:
    def __init__(self, db: Database, hub: Hub, redis: Redis, sandboxes: Sandboxes, blobs: BlobStore) -> None:
        self._db = db
        self._hub = hub
        self._redis = redis
        self._sandboxes = sandboxes
        self._blobs = blobs

    async def create(self, *, owner_id: UUID) -> UUID:
        session_id = uuid7()
        await create_session(self._db, session_id, owner_id=owner_id)
        try:
            await self._sandboxes.register(session_id, owner_id=owner_id)
        except UnavailableError as error:
            logger.warning("Could not register a new session with the cluster; the runner will retry: %s", error)
        await self._hub.publish_list_change(owner_id)
        return session_id

    async def list_of(self, reader: Reader, *, everyone: bool = False) -> list[ListSessionItem]:
        return await list_sessions(self._db, None if everyone else reader.id, limit=LIST_LIMIT)

    async def get(self, session_id: UUID, *, reader: Reader) -> SessionRow:
        async with self._db() as tx:
            return await SessionRepository(tx).get(session_id, reader=reader)

    async def events(self, session_id: UUID, *, since_seq: int, limit: int | None) -> AsyncIterator[log.StoredEvent]:
        """Read the log page by page, without holding a connection between pages. The caller has checked access."""
        remaining = limit
        while remaining is None or remaining > 0:
            size = 500 if remaining is None else min(500, remaining)
            async with self._db() as tx:
                page = await log.read(tx, session_id, after=since_seq, limit=size)
            for event in page:
                since_seq = event.seq
                yield event
            if len(page) < size:
                return
            remaining = None if remaining is None else remaining - len(page)

    async def post_message(
        self, session_id: UUID, *, reader: Reader, message: str, attachments: Sequence[FileInfo]
    ) -> PostedMessage:
        """Store the message and its run in one transaction, publish the message, then wake a runner."""
        event = MessageEvent(role="user", message=message, attachments=list(attachments))
        async with self._db.begin() as tx:
            session = await SessionRepository(tx).get(session_id, reader=reader)
            run = await queue.lock_active_run(tx, session_id)
            stored = await log.append(tx, session_id, [event])
            await queue.deliver(tx, run, seq=stored[0].seq)
            await apply_events(tx, session_id, [event], owner_id=session.owner_id)
        await self._hub.publish(stored)
        await self._wake(queue.WAKE_CHANNEL if run.is_new else queue.control_channel(session_id))
        await self._hub.publish_list_change(session.owner_id)
        return PostedMessage(stored[0].seq)

    async def newest_run(self, session_id: UUID) -> queue.RunView | None:
        async with self._db() as tx:
            return await queue.newest_run(tx, session_id)

    async def attached_files(self, session_id: UUID) -> set[UUID]:
        """Ids of the files that were attached to messages. The caller has checked access."""
        async with self._db() as tx:
            return await log.attached_files(tx, session_id)

    async def last_seq(self, session_id: UUID) -> int:
        async with self._db() as tx:
            return await log.last_seq(tx, session_id)

    async def stop(self, session_id: UUID, *, reader: Reader) -> None:
        """Ask the active run to stop, or end a turn that waits for the user. Does nothing in an idle session."""
        async with self._db.begin() as tx:
            await SessionRepository(tx).get(session_id, reader=reader)
            active = await queue.request_stop(tx, session_id)
        if active:
            await self._wake(queue.control_channel(session_id))
            await self._wake(queue.WAKE_CHANNEL)

    async def clear_unread(self, session_id: UUID, *, reader: Reader) -> None:
        async with self._db.begin() as tx:
            sessions = SessionRepository(tx)
            row = await sessions.get_own(session_id, reader=reader)
            changed = row.unread_message_count != 0
            if changed:
                await sessions.clear_unread(session_id)
                await touch_list(tx, reader.id)
        if changed:
            await self._hub.publish_list_change(reader.id)

    async def delete(self, session_id: UUID, *, reader: Reader) -> None:
        """Delete the session for all users at once: its run can write no more and its streams end.

        Its sandbox, its objects and its row are removed afterwards, now or in a later sweep.
        """
        async with self._db.begin() as tx:
            await SessionRepository(tx).get_own(session_id, reader=reader)
            await self._mark_deleted_in(tx, [session_id])
            await touch_list(tx, reader.id)
        await self._announce_deleted([session_id])
        await self._hub.publish_list_change(reader.id)
        await self.sweep_deleted()

    async def delete_all_of(self, user_id: UUID) -> int:
        """Delete every session of a user. Returns how many could not be removed now, for example without a cluster."""
        async with self._db.begin() as tx:
            ids = await SessionRepository(tx).ids_of(user_id)
            await self._mark_deleted_in(tx, ids)
        await self._announce_deleted(ids)
        await self.sweep_deleted()
        async with self._db() as tx:
            return await SessionRepository(tx).count_of(user_id)

    async def sweep_deleted(self) -> None:
        """Remove sandboxes, objects and rows of deleted sessions, in this order. Failures are retried next time."""
        async with self._db() as tx:
            ids = await SessionRepository(tx).deleted_ids(limit=SWEEP_BATCH)
        for session_id in ids:
            try:
                await self._sandboxes.delete(session_id)
                await self._blobs.delete_prefix(keys.session_prefix(session_id))
            except DomainError as error:
                logger.warning("Could not remove the sandbox or objects of a deleted session; will retry: %s", error)
                continue
            async with self._db.begin() as tx:
                await SessionRepository(tx).remove(session_id)

    async def _mark_deleted_in(self, tx: AsyncSession, ids: Sequence[UUID]) -> None:
        await queue.end_all(tx, ids)
        await log.fence(tx, ids)
        await SessionRepository(tx).mark_deleted(ids)

    async def _announce_deleted(self, ids: Sequence[UUID]) -> None:
        for session_id in ids:
            await self._hub.publish_deleted(session_id)
            await self._wake(queue.control_channel(session_id))

    async def _wake(self, channel: str) -> None:
        try:
            await self._redis.publish(channel, "")
        except (RedisError, OSError) as error:
            logger.warning("Could not wake a runner through Redis; it polls every second: %s", type(error).__name__)
