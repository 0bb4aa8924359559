"""The default limits. These checks run alone, on a server with default limits (CONTRACT_LIMITS=default)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from contract.peers import Peers, saying
from contract.server import HANG_SECONDS, Caller, ServerUnderTest, name, parse_envelope, until
from contract.spec import proves
from contract.watch import Watch

pytestmark = pytest.mark.defaults

WINDOW_SECONDS = 60
WRITES = 60
GUESSES = 2 * WRITES + 5
SENTENCE = "请求过多，请稍后重试"
NONE = "00000000-0000-0000-0000-000000000000"


def check_refusal(response: httpx.Response) -> None:
    """Source: api.md, "Rate limit"."""
    answer = parse_envelope(response)
    assert (answer.status, answer.msg) == (429, SENTENCE)
    seconds = answer.data["retry_after"]
    assert type(seconds) is int
    assert 1 <= seconds <= 60
    assert int(response.headers["retry-after"]) == seconds


def send_many(caller: Caller, count: int, method: str, path: str) -> list[httpx.Response]:
    """Send `count` requests, eight at a time. More at once would meet the limit of ten streams first."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: caller.send(method, path, patient=False), range(count)))


def most_let_through(limit: int, *, since: float) -> int:
    """The most requests that all windows between `since`, by the monotonic clock, and now allow."""
    return limit * (int((time.monotonic() - since) / WINDOW_SECONDS) + 2)


@proves("limits.window", "limits.body")
@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("GET", "/api/auth/me", 120),
        ("POST", f"/api/sessions/{NONE}/stop", 60),
        ("POST", f"/api/sessions/{NONE}/chat", 60),
    ],
    ids=["reads", "writes", "chats"],
)
def test_a_window_allows_no_more_than_its_limit(server: ServerUnderTest, method: str, path: str, limit: int) -> None:
    """Windows are fixed, so two windows allow twice the limit."""
    user, other = server.register(), server.register()
    began = time.monotonic()
    responses: list[httpx.Response] = []
    refused: list[httpx.Response] = []
    while not refused:  # a slow machine may need a second attempt to fill a window before it ends
        assert time.monotonic() - began < HANG_SECONDS, "nothing is refused"
        responses += send_many(user, 2 * limit + 5, method, path)
        refused = [response for response in responses if response.status_code == 429]
    assert limit <= len(responses) - len(refused) <= most_let_through(limit, since=began)
    for response in refused[:3] + refused[-3:]:
        check_refusal(response)
    assert other.send(method, path, patient=False).status_code != 429


@proves("limits.lease", "POST /api/sessions/stream: 429", "POST /api/sessions/{session_id}/chat: 429")
def test_ten_streams_may_be_open_and_a_closed_one_makes_room(server: ServerUnderTest) -> None:
    user = server.register()
    session = user.new_session()
    with ExitStack() as stack:
        watches = [stack.enter_context(Watch(user)) for _ in range(10)]
        assert {watch.status for watch in watches} == {200}
        for path in ("/api/sessions/stream", f"/api/sessions/{session}/chat"):
            with user.stream(path, patient=False) as response:
                assert response.status_code == 429
                check_refusal(response)
        watches[0].__exit__(None, None, None)

        def has_room() -> bool:
            with user.stream("/api/sessions/stream", patient=False) as response:
                return response.status_code == 200

        until(has_room, "a closed stream makes room")


@proves("WS /api/sessions/{session_id}/vnc: 1013")
def test_five_screens_may_be_open(server: ServerUnderTest, peers: Peers) -> None:
    user = server.register()
    session = user.new_session()
    assert user.chat(session, saying("work")).ending.event == "done"
    address = f"{server.url.replace('http', 'ws', 1)}/api/sessions/{session}/vnc?token={user.token}"

    def dial() -> ClientConnection:
        return connect(address, max_size=None, open_timeout=HANG_SECONDS, proxy=None)

    with ExitStack() as stack:
        for _ in range(5):
            assert stack.enter_context(dial()).recv(timeout=HANG_SECONDS)
        with dial() as refused, pytest.raises(ConnectionClosed) as closed:
            refused.recv(timeout=HANG_SECONDS)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013


@proves("limits.free")
def test_probes_status_and_documentation_are_not_limited(nobody: Caller) -> None:
    """Each path gets more requests than a window allows, if the machine can send them within a minute."""
    for path in ("/healthz", "/api/status", "/docs"):
        assert {response.status_code for response in send_many(nobody, 150, "GET", path)} == {200}


@proves("limits.login")
def test_guessing_is_counted_before_a_login(server: ServerUnderTest) -> None:
    """All guesses come from one address and fill its window together, with any user name.

    They are sent at once: a guess is counted before its password is hashed, which takes long on a busy machine.
    """
    user = server.register()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)  # threads share no connection
    with httpx.Client(base_url=server.url, limits=limits, timeout=HANG_SECONDS, trust_env=False) as http:
        check_guesses(user, Caller(http))


def check_guesses(user: Caller, nobody: Caller) -> None:
    def guess(number: int) -> httpx.Response:
        body = {"username": user.username if number % 2 else name(), "password": "a wrong one"}
        return nobody.send("POST", "/api/auth/login", json=body, patient=number == 0)

    assert guess(0).status_code == 401
    began = time.monotonic()
    with ThreadPoolExecutor(WRITES + 4) as pool:
        responses = list(pool.map(guess, range(1, GUESSES + 1)))
    assert {response.status_code for response in responses} == {401, 429}
    tried = [response for response in responses if response.status_code == 401]
    assert len(tried) <= most_let_through(WRITES, since=began)
    check_refusal(next(response for response in responses if response.status_code == 429))
