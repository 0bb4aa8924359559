"""The WebSocket that shows a sandbox's screen."""

from __future__ import annotations

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from contract.peers import Peers, saying
from contract.server import HANG_SECONDS, Caller, ServerUnderTest
from contract.spec import proves

VNC = "WS /api/sessions/{session_id}/vnc"
NONE = "00000000-0000-0000-0000-000000000000"


def dial(server: ServerUnderTest, session: str, token: str | None) -> ClientConnection:
    address = f"{server.url.replace('http', 'ws', 1)}/api/sessions/{session}/vnc"
    if token is not None:
        address += f"?token={token}"
    return connect(address, subprotocols=[Subprotocol("binary")], max_size=None, open_timeout=HANG_SECONDS, proxy=None)


def closing_code(socket: ClientConnection) -> int | None:
    """Read until the server closes the socket and return its close code."""
    try:
        while True:
            socket.recv(timeout=HANG_SECONDS)
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None


def close_code(server: ServerUnderTest, session: str, token: str | None) -> int | None:
    """The close code of a refusal. The handshake must succeed, because a browser sees no code otherwise."""
    with dial(server, session, token) as socket:
        return closing_code(socket)


@pytest.fixture(scope="module")
def sandbox_session(alice: Caller, peers: Peers) -> str:
    """A session of alice's that has a sandbox."""
    session = alice.new_session()
    assert alice.chat(session, saying("work")).ending.event == "done"
    return session


@proves(f"{VNC}: success")
@pytest.mark.parametrize("by", ["owner", "admin"])
def test_the_screen_greets_in_rfb(
    server: ServerUnderTest, alice: Caller, admin: Caller, sandbox_session: str, by: str
) -> None:
    with dial(server, sandbox_session, (alice if by == "owner" else admin).token) as socket:
        assert socket.subprotocol == "binary"
        greeting = socket.recv(timeout=HANG_SECONDS)
        assert isinstance(greeting, bytes)
        assert greeting.startswith(b"RFB 003.")
        socket.send(greeting)
        assert isinstance(socket.recv(timeout=HANG_SECONDS), bytes)


@proves(f"{VNC}: 4401")
@pytest.mark.parametrize("token", [None, "", "nonsense", "x" * 5000], ids=["none", "empty", "nonsense", "too long"])
def test_without_a_good_token_it_closes_with_4401(
    server: ServerUnderTest, sandbox_session: str, token: str | None
) -> None:
    assert close_code(server, sandbox_session, token) == 4401


@proves(f"{VNC}: 4403")
def test_another_users_screen_closes_with_4403(server: ServerUnderTest, bob: Caller, sandbox_session: str) -> None:
    assert close_code(server, sandbox_session, bob.token) == 4403


@proves(f"{VNC}: 4404")
def test_without_a_sandbox_it_closes_with_4404(server: ServerUnderTest, alice: Caller) -> None:
    assert close_code(server, alice.new_session(), alice.token) == 4404
    assert close_code(server, NONE, alice.token) == 4404


@proves("envelope.origin")
def test_a_foreign_page_sees_no_screen(server: ServerUnderTest, alice: Caller, sandbox_session: str) -> None:
    address = f"{server.url.replace('http', 'ws', 1)}/api/sessions/{sandbox_session}/vnc?token={alice.token}"
    with connect(address, origin=Origin("https://elsewhere.example"), open_timeout=HANG_SECONDS, proxy=None) as socket:
        assert closing_code(socket) == 4403


@proves("accounts.banned")
def test_a_ban_closes_the_screen(server: ServerUnderTest, admin: Caller, peers: Peers) -> None:
    user = server.register()
    session = user.new_session()
    assert user.chat(session, saying("work")).ending.event == "done"
    with dial(server, session, user.token) as socket:
        socket.recv(timeout=HANG_SECONDS)
        admin.put(f"/api/admin/users/{user.id}/status", json={"status": "banned"})
        assert closing_code(socket) in (4401, 4403)
