"""Each key runs at most once, also if the caller, the gate or the box is killed in between."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from moorage_sandbox.protocol import GateError
from support.gate import FakeBox, Gate
from support.waiting import HANG_SECONDS, until


async def test_a_repeated_call_gets_the_first_answer_and_runs_once(gate: Gate, box: FakeBox) -> None:
    async with gate.client() as client:
        await client.bind()
        first = await client.call("1", "shell_execute", {"command": "x"}, timeout_seconds=HANG_SECONDS)
        second = await client.call("1", "shell_execute", {"command": "x"}, timeout_seconds=HANG_SECONDS)
    assert (first.outcome, first.result, box.ran) == ("succeeded", {"ran": 1}, ["1"])
    assert second == first


async def test_callers_of_one_running_call_share_its_answer(gate: Gate, box: FakeBox) -> None:
    async with gate.client() as client, gate.client() as other:
        await client.bind()
        calls = [
            asyncio.create_task(one.call("1", "slow", {}, timeout_seconds=HANG_SECONDS)) for one in (client, other)
        ]
        await until(lambda: box.ran == ["1"], "the box runs the call")
        box.hold.set()
        answers = await asyncio.gather(*calls)
    assert answers[0] == answers[1]
    assert box.ran == ["1"]


async def test_another_call_under_a_known_key_is_refused(gate: Gate, box: FakeBox) -> None:
    async with gate.client() as client:
        await client.bind()
        await client.call("1", "shell_execute", {"command": "x"}, timeout_seconds=HANG_SECONDS)
        with pytest.raises(GateError) as refused:
            await client.call("1", "shell_execute", {"command": "y"}, timeout_seconds=HANG_SECONDS)
    assert (refused.value.code, refused.value.status, box.ran) == ("key_reused", 409, ["1"])


async def test_a_call_goes_on_when_its_caller_disconnects(gate: Gate, box: FakeBox) -> None:
    async with gate.client() as client:
        await client.bind()
        leaving = asyncio.create_task(client.call("1", "slow", {}, timeout_seconds=HANG_SECONDS))
        await until(lambda: box.ran == ["1"], "the box runs the call")
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        box.hold.set()
        again = await client.call("1", "slow", {}, timeout_seconds=HANG_SECONDS)
    assert (again.outcome, box.ran) == ("succeeded", ["1"])


async def test_a_killed_gate_joins_the_call_that_still_runs(gate: Gate, box: FakeBox) -> None:
    async with gate.client() as client:
        await client.bind()
        lost = asyncio.create_task(client.call("1", "slow", {}, timeout_seconds=HANG_SECONDS))
        await until(lambda: box.ran == ["1"], "the box runs the call")
        await gate.kill()
        with pytest.raises(GateError, match="does not answer"):
            await lost
        await gate.start()
        again = asyncio.create_task(client.call("1", "slow", {}, timeout_seconds=HANG_SECONDS))
        box.hold.set()
        answer = await again
    assert (answer.outcome, box.ran) == ("succeeded", ["1"])


async def test_a_killed_gate_still_has_the_stored_answer(gate: Gate, box: FakeBox) -> None:
    async with gate.client() as client:
        await client.bind()
        first = await client.call("1", "shell_execute", {}, timeout_seconds=HANG_SECONDS)
        await gate.kill()
        await box.reboot()
        await gate.start()
        second = await client.call("1", "shell_execute", {}, timeout_seconds=HANG_SECONDS)
    assert (second, box.ran) == (first, ["1"])


async def test_a_call_whose_box_died_is_unknown_and_never_runs_again(gate: Gate, box: FakeBox) -> None:
    box.vanish = True
    async with gate.client() as client:
        await client.bind()
        call = asyncio.create_task(client.call("1", "shell_execute", {}, timeout_seconds=HANG_SECONDS))
        await until(lambda: box.ran == ["1"], "the box runs the call")
        await box.reboot()
        answer = await call
        again = await client.call("1", "shell_execute", {}, timeout_seconds=HANG_SECONDS)
        other = await client.call("2", "shell_execute", {}, timeout_seconds=HANG_SECONDS)
    assert (answer.outcome, again.outcome, other.outcome) == ("unknown", "unknown", "succeeded")
    assert box.ran == ["1", "2"]


async def test_a_new_box_takes_new_calls_at_once(gate: Gate, box: FakeBox) -> None:
    async with gate.client() as client:
        await client.bind()
        await client.call("1", "shell_execute", {}, timeout_seconds=HANG_SECONDS)
        await box.reboot()
        answer = await client.call("2", "shell_execute", {}, timeout_seconds=HANG_SECONDS)
    assert (answer.outcome, box.ran) == ("succeeded", ["1", "2"])


async def test_a_call_waits_for_a_box_that_is_being_restarted(gate: Gate, box: FakeBox) -> None:
    async with gate.client() as client:
        await client.bind()
        await box.stop()
        call = asyncio.create_task(client.call("1", "shell_execute", {}, timeout_seconds=HANG_SECONDS))
        await asyncio.sleep(0.2)
        await box.start()
        assert (await call).outcome == "succeeded"


async def test_a_failed_call_says_why(gate: Gate) -> None:
    async with gate.client() as client:
        await client.bind()
        answer = await client.call("1", "fail", {}, timeout_seconds=HANG_SECONDS)
    assert answer.outcome == "failed"
    assert answer.error is not None
    assert (answer.error.code, answer.error.message) == ("not_found", "no such file")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"function": "x"}', b'{"function": "../x", "args": {}}', b"\xff"], ids=repr
)
async def test_an_invalid_body_is_refused(gate: Gate, box: FakeBox, body: bytes) -> None:
    async with gate.client() as client, httpx.AsyncClient(base_url=gate.url) as http:
        await client.bind()
        response = await http.post("/v1/calls/1", content=body, headers=client.headers("call"))  # type: ignore[arg-type]
    assert (response.status_code, response.json()["error"], box.ran) == (400, "invalid", [])
