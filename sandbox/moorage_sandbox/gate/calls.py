"""Runs each call at most once per key, also when the caller, this gate or the box is restarted.

The ledger stores that a call is sent, with the boot id of the box, before it is sent. When a caller asks again, the
gate returns the stored result, waits for the running call, or sends the same key to the same box, which runs it only
if it has not run it yet. If the box has been restarted since, the outcome is `unknown` and the call does not run again.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from moorage_sandbox.gate.box_client import BoxClient, BoxGoneError, receive, send
from moorage_sandbox.gate.errors import INVALID_ANSWER, RefusalError
from moorage_sandbox.gate.ledger import CallLedger, digest_of
from moorage_sandbox.messages import CallError, CallRequest, CallResponse

BOX_WAIT_SECONDS = 20
"""How long a call waits for a box that restarts."""

BOX_RETRY_SECONDS = 0.05
ANSWER_MARGIN_SECONDS = 10
"""The box limits a call to its timeout. The gate waits this much longer, in case the box does not."""

UNKNOWN_MESSAGE = "The sandbox was restarted during this call: it may have run completely, partly or not at all"
KEY_REUSED_MESSAGE = "This key was used for a call with another function or other arguments"


class Calls:
    def __init__(self, box: BoxClient, ledger: CallLedger) -> None:
        self._box = box
        self._ledger = ledger
        self._running: dict[str, tuple[str, asyncio.Task[CallResponse]]] = {}
        self._boot_id: str | None = None

    async def run(self, key: str, request: CallRequest) -> CallResponse:
        """Run a call, or return the result of the first call with `key`.

        Raises RefusalError: `key_reused` for a different call with a known key, `box_unavailable` if the call did not
        run. The call goes on when the caller disconnects; a later request with the same key gets its result.
        """
        digest = digest_of(request.function, request.args)
        running = self._running.get(key)
        if running is None:
            task = asyncio.create_task(self._run_once(key, request, digest), name=f"call {key}")
            running = self._running[key] = (digest, task)
            task.add_done_callback(lambda done: self._on_ended(key, done))
        if running[0] != digest:
            raise RefusalError("key_reused", KEY_REUSED_MESSAGE)
        return await asyncio.shield(running[1])

    def _on_ended(self, key: str, task: asyncio.Task[CallResponse]) -> None:
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()  # marks the error as seen: all callers may have disconnected

    async def _run_once(self, key: str, request: CallRequest, digest: str) -> CallResponse:
        record = await self._ledger.find(key)
        if record is not None and record.digest != digest:
            raise RefusalError("key_reused", KEY_REUSED_MESSAGE)
        if record is not None and record.state == "finished" and record.answer is not None:
            return CallResponse.model_validate_json(record.answer)
        if record is not None and record.state == "forgotten":
            return unknown_outcome(key, "This call ran before; its result is no longer stored")
        response = await self._send_until_answered(key, request, digest, sent_to=record.boot_id if record else None)
        await self._ledger.finish(key, response.model_dump_json())
        return response

    async def _send_until_answered(
        self, key: str, request: CallRequest, digest: str, *, sent_to: str | None
    ) -> CallResponse:
        """Send the call again until the box answers. `sent_to` is the boot id of a box that may have got it already."""
        deadline = time.monotonic() + BOX_WAIT_SECONDS
        while True:
            try:
                if sent_to is None:
                    boot_id = self._boot_id or await self._box.boot_id()
                    await self._ledger.start(key, digest=digest, boot_id=boot_id)
                else:
                    boot_id = sent_to
                answer = await self._send(key, request, boot_id)
            except (BoxGoneError, RefusalError) as error:
                if isinstance(error, BoxGoneError):
                    sent_to = boot_id  # this box may have started the call, so no other box may run it
                self._boot_id = None
                if time.monotonic() > deadline:
                    message = f"The sandbox did not answer within {BOX_WAIT_SECONDS} s"
                    raise RefusalError("box_unavailable", message) from error
                await asyncio.sleep(BOX_RETRY_SECONDS)
                continue
            self._boot_id = str(answer.get("boot_id") or "") or None
            refused = answer.get("error")
            code = refused.get("code") if isinstance(refused, dict) else None
            if code == "rebooted" and sent_to is None:
                continue  # our boot id was old: this box refused the call, and the box before never got it
            if code in ("rebooted", "forgotten"):
                return unknown_outcome(key, UNKNOWN_MESSAGE)
            return to_response(key, answer)

    async def _send(self, key: str, request: CallRequest, boot_id: str) -> dict[str, Any]:
        message = {"op": "call", "key": key, "boot_id": boot_id, **request.model_dump()}
        async with self._box.connect() as connection:
            try:
                async with asyncio.timeout(request.timeout_seconds + ANSWER_MARGIN_SECONDS):
                    await send(connection, message)
                    return await receive(connection)
            except TimeoutError:
                message_text = f"The sandbox did not finish this call within {request.timeout_seconds:g} s"
                return {"ok": False, "boot_id": boot_id, "error": {"code": "timeout", "message": message_text}}


def unknown_outcome(key: str, message: str) -> CallResponse:
    return CallResponse(key=key, outcome="unknown", error=CallError(code="unknown", message=message))


def to_response(key: str, answer: dict[str, Any]) -> CallResponse:
    result = answer.get("result")
    if answer.get("ok") is True and isinstance(result, dict):
        return CallResponse(key=key, outcome="succeeded", result=result)
    error = answer.get("error")
    if not isinstance(error, dict):
        error = {"code": "internal", "message": INVALID_ANSWER}
    return CallResponse(
        key=key,
        outcome="failed",
        result=result if isinstance(result, dict) else {},
        error=CallError(code=str(error.get("code"))[:50], message=str(error.get("message"))[:4000]),
    )
