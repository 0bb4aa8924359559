"""Tool calls, at most once for each key, across restarts of the caller, of this gate and of the box.

A call is noted as sent, with the box's boot id, before it is sent. Asked again, we answer the stored result, join the
call that still runs, or send the same key to the same box, which joins or starts it by itself. A box that is another
one by now cannot know: the outcome is `unknown`, and nothing runs a second time.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from moorage_sandbox.gate.box_client import BoxClient, BoxGoneError, receive, send
from moorage_sandbox.gate.errors import RefusedError
from moorage_sandbox.gate.ledger import CallLedger, digest_of
from moorage_sandbox.messages import CallError, CallRequest, CallResponse

BOX_WAIT_SECONDS = 20
"""How long a call waits for a box that is being restarted."""

BOX_RETRY_SECONDS = 0.05
ANSWER_MARGIN_SECONDS = 10
"""The box bounds its own work by the call's timeout; this is for one that does not."""

UNKNOWN_MESSAGE = "The sandbox was restarted while this ran: it may have run completely, partly or not at all"


class Calls:
    def __init__(self, box: BoxClient, ledger: CallLedger) -> None:
        self._box = box
        self._ledger = ledger
        self._running: dict[str, tuple[str, asyncio.Task[CallResponse]]] = {}
        self._boot_id: str | None = None

    async def run(self, key: str, request: CallRequest) -> CallResponse:
        """Raises RefusedError: `key_reused` for another call under a known key, `box_unavailable` when nothing ran.

        A caller that goes away leaves the call running: it asks again, or another one does.
        """
        digest = digest_of(request.function, request.args)
        running = self._running.get(key)
        if running is None:
            task = asyncio.create_task(self._run_once(key, request, digest), name=f"call {key}")
            running = self._running[key] = (digest, task)
            task.add_done_callback(lambda done: self._ended(key, done))
        if running[0] != digest:
            raise RefusedError("key_reused", "This key stands for another call")
        return await asyncio.shield(running[1])

    def _ended(self, key: str, task: asyncio.Task[CallResponse]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # its callers may all be gone; the error was theirs to see

    async def _run_once(self, key: str, request: CallRequest, digest: str) -> CallResponse:
        entry = await self._ledger.find(key)
        if entry is not None and entry.digest != digest:
            raise RefusedError("key_reused", "This key stands for another call")
        if entry is not None and entry.state == "finished" and entry.answer is not None:
            return CallResponse.model_validate_json(entry.answer)
        if entry is not None and entry.state == "forgotten":
            return unknown(key, "This call ran before; its result is not kept any more")
        response = await self._send_until_answered(key, request, digest, sent_to=entry.boot_id if entry else None)
        await self._ledger.finish(key, response.model_dump_json())
        return response

    async def _send_until_answered(
        self, key: str, request: CallRequest, digest: str, *, sent_to: str | None
    ) -> CallResponse:
        """`sent_to` is the boot id of the box that may have got this call already."""
        deadline = time.monotonic() + BOX_WAIT_SECONDS
        while True:
            try:
                if sent_to is None:
                    boot_id = self._boot_id or await self._box.boot_id()
                    await self._ledger.start(key, digest=digest, boot_id=boot_id)
                else:
                    boot_id = sent_to
                answer = await self._send(key, request, boot_id)
            except (BoxGoneError, RefusedError) as away:
                if isinstance(away, BoxGoneError):
                    sent_to = boot_id  # it may have begun: from now on only this box may go on with it
                self._boot_id = None
                if time.monotonic() > deadline:
                    raise RefusedError("box_unavailable", "The sandbox does not come back") from away
                await asyncio.sleep(BOX_RETRY_SECONDS)
                continue
            self._boot_id = str(answer.get("boot_id") or "") or None
            error = answer.get("error")
            code = error.get("code") if isinstance(error, dict) else None
            if code == "rebooted" and sent_to is None:
                continue  # our note of its boot id was old; this box refused, the one before never got it
            if code in ("rebooted", "forgotten"):
                return unknown(key, UNKNOWN_MESSAGE)
            return response_of(key, answer)

    async def _send(self, key: str, request: CallRequest, boot_id: str) -> dict[str, Any]:
        message = {"op": "call", "key": key, "boot_id": boot_id, **request.model_dump()}
        async with self._box.connect() as connection:
            try:
                async with asyncio.timeout(request.timeout_seconds + ANSWER_MARGIN_SECONDS):
                    await send(connection, message)
                    return await receive(connection)
            except TimeoutError:
                message_text = f"The sandbox did not finish this within {request.timeout_seconds:g} s"
                return {"ok": False, "boot_id": boot_id, "error": {"code": "timeout", "message": message_text}}


def unknown(key: str, message: str) -> CallResponse:
    return CallResponse(key=key, outcome="unknown", error=CallError(code="unknown", message=message))


def response_of(key: str, answer: dict[str, Any]) -> CallResponse:
    result = answer.get("result")
    if answer.get("ok") is True and isinstance(result, dict):
        return CallResponse(key=key, outcome="succeeded", result=result)
    error = answer.get("error")
    if not isinstance(error, dict):
        error = {"code": "internal", "message": "The sandbox answered something unreadable"}
    return CallResponse(
        key=key,
        outcome="failed",
        result=result if isinstance(result, dict) else {},
        error=CallError(code=str(error.get("code"))[:50], message=str(error.get("message"))[:4000]),
    )
