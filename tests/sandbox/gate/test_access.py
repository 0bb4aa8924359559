"""The gate checks each token: its signature, audience, scopes, lifetime and epoch."""

from __future__ import annotations

import time
from typing import Any

import httpx
import jwt
import pytest

from moorage_sandbox.client import GateClient
from moorage_sandbox.protocol import RUNNER_SCOPES, GateError
from support.gate import FakeBox, Gate
from support.waiting import HANG_SECONDS


async def refusal_of(client: GateClient, *, bind: bool = False) -> tuple[str, int]:
    async with client:
        asking = client.bind() if bind else client.call("9", "shell_execute", {}, timeout_seconds=HANG_SECONDS)
        with pytest.raises(GateError) as error:
            await asking
    return error.value.code, error.value.status


async def bind(gate: Gate, *, epoch: int = 1) -> None:
    async with gate.client(epoch=epoch) as client:
        await client.bind()


async def test_nothing_works_before_the_sandbox_is_bound(gate: Gate) -> None:
    assert await refusal_of(gate.client()) == ("not_bound", 409)


async def test_another_session_is_refused_for_good(gate: Gate, box: FakeBox) -> None:
    await bind(gate)
    assert await refusal_of(gate.client(session="s2"), bind=True) == ("forbidden", 403)
    await gate.kill()
    await gate.start()
    assert await refusal_of(gate.client(session="s2"), bind=True) == ("forbidden", 403)
    assert await refusal_of(gate.client(session="s2", epoch=9)) == ("forbidden", 403)
    assert box.ran == []


async def test_an_older_runner_is_refused_once_a_newer_one_was_here(gate: Gate, box: FakeBox) -> None:
    await bind(gate, epoch=5)
    assert await refusal_of(gate.client(epoch=4)) == ("stale_epoch", 409)
    assert await refusal_of(gate.client(epoch=4), bind=True) == ("stale_epoch", 409)
    async with gate.client(epoch=6) as newer:
        await newer.call("1", "shell_execute", {}, timeout_seconds=HANG_SECONDS)
    await gate.kill()
    await gate.start()
    assert await refusal_of(gate.client(epoch=5)) == ("stale_epoch", 409)
    assert box.ran == ["1"]


async def test_a_call_without_a_lease_is_refused(gate: Gate) -> None:
    await bind(gate)
    assert await refusal_of(gate.client(epoch=0)) == ("stale_epoch", 409)


async def test_the_apis_key_cannot_call_or_bind_or_write(gate: Gate, box: FakeBox) -> None:
    await bind(gate)
    assert await refusal_of(gate.client(key="api")) == ("forbidden", 403)
    assert await refusal_of(gate.client(key="api"), bind=True) == ("forbidden", 403)
    async with gate.client(key="api", epoch=0) as client:
        with pytest.raises(GateError) as error:
            await client.write_file("x", _once(b"abc"), size=3)
        assert (await client.view_shell("main")).output == "hello"
    assert (error.value.code, box.files) == ("forbidden", {})


async def test_a_key_that_is_not_in_the_trust_file_is_refused(gate: Gate) -> None:
    assert await refusal_of(gate.client(key="stranger"), bind=True) == ("unauthorized", 401)


async def test_a_token_for_another_sandbox_is_refused(gate: Gate) -> None:
    assert await refusal_of(gate.client(uid="another"), bind=True) == ("unauthorized", 401)


async def test_keys_rotate_without_a_restart(gate: Gate) -> None:
    await bind(gate)
    gate.keys.trust("runner-2", RUNNER_SCOPES)
    async with gate.client(key="runner-2") as client:
        await client.call("1", "shell_execute", {}, timeout_seconds=HANG_SECONDS)
    gate.keys.distrust("runner")
    assert await refusal_of(gate.client()) == ("unauthorized", 401)


async def test_an_invalid_trust_file_leaves_the_previous_keys_valid(gate: Gate) -> None:
    await bind(gate)
    gate.keys.trust_file.write_text("{")
    async with gate.client() as client:
        assert (await client.call("1", "shell_execute", {}, timeout_seconds=HANG_SECONDS)).outcome == "succeeded"


def claims(gate: Gate, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    valid = {"aud": gate.uid, "session": "s1", "epoch": 1, "scopes": ["bind"], "iat": now, "exp": now + 60}
    return {**valid, **changes}


NOW = int(time.time())
FORGED: dict[str, dict[str, Any]] = {
    "expired": {"iat": NOW - 300, "exp": NOW - 200},
    "made for too long": {"iat": NOW, "exp": NOW + 3600},
    "without an end": {"exp": None},
    "session of a wrong type": {"session": ["s1"]},
    "no session": {"session": ""},
    "epoch of a wrong type": {"epoch": "1"},
    "epoch true": {"epoch": True},
    "negative epoch": {"epoch": -1},
    "unknown scope": {"scopes": ["root"]},
    "scopes missing": {"scopes": None},
}


@pytest.mark.parametrize("changes", FORGED.values(), ids=FORGED.keys())
async def test_a_token_with_wrong_claims_is_refused(gate: Gate, changes: dict[str, Any]) -> None:
    payload = {name: value for name, value in claims(gate, **changes).items() if value is not None}
    token = jwt.encode(payload, gate.keys.private["runner"], algorithm="EdDSA", headers={"kid": "runner"})
    assert await bind_with(gate, token) == 401


async def test_tokens_without_a_good_signature_are_refused(gate: Gate) -> None:
    pem = "public key as a secret, at least 32 bytes long"
    unsigned = jwt.encode(claims(gate), "", algorithm="none", headers={"kid": "runner"})
    confused = jwt.encode(claims(gate), pem, algorithm="HS256", headers={"kid": "runner"})
    other_key = jwt.encode(claims(gate), gate.keys.private["api"], algorithm="EdDSA", headers={"kid": "runner"})
    for token in (unsigned, confused, other_key, "x", "a.b.c"):
        assert await bind_with(gate, token) == 401


async def test_a_scope_that_the_key_may_not_give_is_refused(gate: Gate) -> None:
    token = jwt.encode(claims(gate), gate.keys.private["api"], algorithm="EdDSA", headers={"kid": "api"})
    assert await bind_with(gate, token) == 403


async def bind_with(gate: Gate, token: str) -> int:
    async with httpx.AsyncClient(base_url=gate.url) as http:
        response = await http.post("/v1/bind", headers={"Authorization": f"Bearer {token}"})
        return response.status_code


async def _once(data: bytes) -> Any:
    yield data


async def test_health_needs_no_token(gate: Gate, box: FakeBox) -> None:
    async with httpx.AsyncClient(base_url=gate.url) as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
        await box.stop()
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/v1/files", params={"path": "x"})).json()["error"] == "unauthorized"
