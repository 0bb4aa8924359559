"""Connections to the gate that runner and api keep open."""

from __future__ import annotations

from support.gate import Gate
from support.sockets import DELAYED_ACK_SECONDS, answers_after, fastest_answer


async def test_an_answer_on_a_kept_alive_connection_waits_for_no_acknowledgement(gate: Gate) -> None:
    assert await fastest_answer(f"{gate.url}/healthz") < DELAYED_ACK_SECONDS


async def test_a_connection_is_kept_longer_than_any_client_of_ours_uses_it(gate: Gate) -> None:
    port = int(gate.url.rsplit(":", 1)[1])
    assert await answers_after(6, "/healthz", port=port) == [b"HTTP/1.1 200 OK"] * 2
