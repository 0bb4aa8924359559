"""Connections to the gate that runner and api keep open."""

from __future__ import annotations

from support.gate import Gate
from support.sockets import DELAYED_ACK_SECONDS, fastest_answer


async def test_an_answer_on_a_kept_alive_connection_waits_for_no_acknowledgement(gate: Gate) -> None:
    assert await fastest_answer(f"{gate.url}/healthz") < DELAYED_ACK_SECONDS
