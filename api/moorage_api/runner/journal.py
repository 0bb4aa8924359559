"""Store what the agent does during one leased run: implements the agent's `Journal` port on the database.

Every write checks the run's epoch and raises FencedError if another runner has taken the run over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from moorage_api.agent.ports import Message, UserMessage
from moorage_api.database import Database
from moorage_api.errors import FencedError
from moorage_api.events.hub import Hub
from moorage_api.events.log import (
    StoredEvent,
    append,
    calling_seq,
    hold_epoch,
    make_storable,
    user_messages,
)
from moorage_api.events.schemas import ChatEvent, FileInfo, MessageEvent
from moorage_api.runs import queue
from moorage_api.runs.queue import FinalStatus, LeasedRun, Signals
from moorage_api.runs.repository import ConversationRepository
from moorage_api.sandboxes.service import clear_notice
from moorage_api.sessions.summary import apply_events, find_owner
from moorage_api.usage.ledger import begin_call, count_calls, store_calls
from moorage_api.usage.pricing import PricedCall

logger = logging.getLogger(__name__)

PARTIAL_INTERVAL_SECONDS = 0.1
STATUS_BY_ENDING: Mapping[str, FinalStatus] = {"done": "done", "wait": "waiting", "error": "failed"}


class UnreadMessagesError(Exception):
    """The run could not end because the user has sent a new message. Nothing was stored; go on from the old state."""


class RunJournal:
    """Created by `open_journal`. Writes are serialized by a lock; the worker delivers signals with `apply_signals`."""

    def __init__(
        self,
        db: Database,
        hub: Hub,
        run: LeasedRun,
        *,
        transcript: list[Message],
        state: dict[str, Any],
        owner_id: UUID,
    ) -> None:
        self._db = db
        self._hub = hub
        self.run = run
        self.owner_id = owner_id
        self._transcript = transcript
        self._state = state
        self._writing = asyncio.Lock()
        self._signals = Signals(stop_requested=False, has_unread=False)
        self._changed = asyncio.Event()
        self._partial_sent_at: dict[str, float] = {}
        self.pending_notice = ""
        """Notice about the sandbox that the next recorded messages contain. It is then removed from the session."""
        self.finished = False
        self._calls: list[PricedCall] = []
        """Model calls that have ended and are not stored yet."""

    @property
    def session_id(self) -> UUID:
        return self.run.session_id

    @property
    def transcript(self) -> Sequence[Message]:
        return self._transcript

    @property
    def state(self) -> dict[str, Any]:
        return self._state

    @property
    def interrupted(self) -> bool:
        return self._signals.stop_requested or self._signals.has_unread

    @property
    def stop_requested(self) -> bool:
        return self._signals.stop_requested

    async def wait_interrupted(self) -> None:
        """Return once `interrupted` is true."""
        while not self.interrupted:
            self._changed.clear()
            await self._changed.wait()

    def apply_signals(self, signals: Signals) -> None:
        """Apply the newest signals that were read from the run's row."""
        self._signals = signals
        self._changed.set()

    async def begin_model_call(self, call: PricedCall) -> None:
        """Store a call before it is sent, so that it is counted even if this runner is killed."""
        await begin_call(self._db, call, session_id=self.session_id, user_id=self.owner_id)

    def add_model_call(self, call: PricedCall) -> None:
        """Store the call in the next transaction of this run, which is the one of its answer."""
        self._calls.append(call)

    @asynccontextmanager
    async def _put_back_on_error(self, calls: Sequence[PricedCall]) -> AsyncIterator[None]:
        """Keep the calls for the next transaction, except after a cancellation: then they may be stored already."""
        try:
            yield
        except Exception:
            self._calls = [*calls, *self._calls]
            raise

    async def store_left_calls(self) -> None:
        """Store the calls whose answers are lost, because this runner stops or has lost the lease. They were billed."""
        calls, self._calls = self._calls, []
        if not calls:
            return
        try:
            async with self._db.begin() as tx:
                await store_calls(tx, calls, session_id=self.session_id, user_id=self.owner_id)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            logger.warning("%d model calls are missing in the ledger: %s", len(calls), type(error).__name__)
            return
        count_calls(calls)

    async def record(
        self,
        *events: ChatEvent,
        messages: Sequence[Message] = (),
        state: Mapping[str, Any] | None = None,
        consumed_seq: int | None = None,
    ) -> list[int]:
        """See `Journal.record`. An event that ends the turn also ends the run, or raises UnreadMessagesError."""
        async with self._writing:
            if self.finished:
                raise FencedError("This run has ended")
            watched = await self._is_watched(events)
            calls, self._calls = self._calls, []
            async with self._put_back_on_error(calls), self._db.begin() as tx:
                stored, list_changed = await self._write(
                    tx, events, messages=messages, state=state, consumed_seq=consumed_seq, watched=watched
                )
                await store_calls(tx, calls, session_id=self.session_id, user_id=self.owner_id)
            count_calls(calls)
            self._transcript.extend(messages)
            if messages:
                self.pending_notice = ""
            if state is not None:
                self._state = dict(state)
            if consumed_seq is not None:
                self._signals = Signals(self._signals.stop_requested, has_unread=False)
        await self._hub.publish(stored)
        if list_changed:
            await self._hub.publish_list_change(self.owner_id)
        return [event.seq for event in stored]

    async def _write(
        self,
        tx: AsyncSession,
        events: Sequence[ChatEvent],
        *,
        messages: Sequence[Message],
        state: Mapping[str, Any] | None,
        consumed_seq: int | None,
        watched: bool,
    ) -> tuple[list[StoredEvent], bool]:
        ending = next((STATUS_BY_ENDING[event.type] for event in events if event.type in STATUS_BY_ENDING), None)
        if ending is not None:
            status: FinalStatus = "stopped" if ending == "done" and self.stop_requested else ending
            if not await queue.finish(tx, self.run, status=status, consumed_seq=consumed_seq):
                self._signals = Signals(stop_requested=False, has_unread=True)  # newer than the last signals
                raise UnreadMessagesError("The user has sent a new message")
        elif consumed_seq is not None:
            await queue.mark_read(tx, self.run, seq=consumed_seq)
        if events:
            stored = await append(tx, self.session_id, events, epoch=self.run.epoch)
        else:
            stored = []
            await self._fence(tx)
        await self._write_state(tx, messages, state)
        list_changed = await apply_events(tx, self.session_id, events, owner_id=self.owner_id, watched=watched)
        self.finished = ending is not None
        return stored, list_changed

    async def _fence(self, tx: AsyncSession) -> None:
        if not await hold_epoch(tx, self.session_id, epoch=self.run.epoch):
            raise FencedError

    async def _write_state(
        self, tx: AsyncSession, messages: Sequence[Message], state: Mapping[str, Any] | None
    ) -> None:
        conversation = ConversationRepository(tx)
        if messages:
            await conversation.add_messages(self.session_id, messages, stored_count=len(self._transcript))
            if self.pending_notice:
                await clear_notice(tx, self.session_id, notice=self.pending_notice)
        if state is not None:
            await conversation.write_state(self.session_id, state)

    async def show_partial(self, event: MessageEvent) -> None:
        now = time.monotonic()
        stream_id = event.stream_id or ""
        if now - self._partial_sent_at.get(stream_id, 0) < PARTIAL_INTERVAL_SECONDS:
            return
        self._partial_sent_at = {stream_id: now}
        data = event.model_dump(mode="json", exclude={"type"}, exclude_none=True)
        await self._hub.publish_partial(self.session_id, make_storable(data))

    async def unread_messages(self) -> list[UserMessage]:
        async with self._db() as tx:
            after = max(await queue.consumed_seq(tx, self.run), self.run.first_seq - 1)
            events = await user_messages(tx, self.session_id, after=after)
        return [
            UserMessage(
                event.seq,
                event.data["message"],
                tuple(FileInfo.model_validate(item) for item in event.data.get("attachments", ())),
            )
            for event in events
        ]

    async def calling_seq(self, tool_call_id: str) -> int:
        """See `Journal.calling_seq`."""
        async with self._db() as tx:
            seq = await calling_seq(tx, self.session_id, tool_call_id=tool_call_id)
        assert seq is not None, "the `calling` event is stored before the call starts"
        return seq

    async def _is_watched(self, events: Sequence[ChatEvent]) -> bool:
        """Whether a client streams this session now. Redis is asked only for events that count as unread."""
        counted = any(
            event.type == "wait" or (isinstance(event, MessageEvent) and event.role == "assistant") for event in events
        )
        return counted and await self._hub.is_watched(self.session_id)


async def open_journal(db: Database, hub: Hub, run: LeasedRun) -> RunJournal:
    """Read what earlier runners stored for this run. Raises FencedError if the session has been deleted."""
    async with db() as tx:
        owner_id = await find_owner(tx, run.session_id)
        if owner_id is None:
            raise FencedError("The session has been deleted")
        conversation = ConversationRepository(tx)
        transcript = await conversation.messages(run.session_id)
        state = await conversation.state(run.session_id)
        journal = RunJournal(db, hub, run, transcript=transcript, state=state, owner_id=owner_id)
        journal.apply_signals(await queue.read_signals(tx, run))
        return journal
