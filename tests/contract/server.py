"""The server under test as its clients see it: envelopes, users, event streams."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

PASSWORD = "correct horse battery"
PATIENCE_SECONDS = 130.0
"""How long a request may wait altogether when it is limited: two windows of a limit."""
HANG_SECONDS = 120.0
"""How long a check waits for something that should happen soon. The bound only ends a hang: a busy server may take many
times as long as an idle one.
"""
TURN_SECONDS = 240.0
"""How long one turn of the agent may take. A sandbox may have to be made first."""

ENDINGS = ("done", "wait", "error")


def name(prefix: str = "contract") -> str:
    return f"{prefix}-{uuid4().hex[:12]}"


@dataclass(frozen=True)
class Answer:
    """A response whose envelope is valid."""

    status: int
    code: int
    msg: str
    data: Any
    headers: httpx.Headers


def parse_envelope(response: httpx.Response) -> Answer:
    """Check and parse an envelope. Errors repeat the HTTP status, with two exceptions in the contract."""
    kind = response.headers.get("content-type", "")
    assert kind.startswith("application/json"), f"{response.status_code} of {kind}: {response.text[:300]}"
    body = response.json()
    assert {"code", "msg", "data"} <= set(body), body
    assert isinstance(body["code"], int)
    assert isinstance(body["msg"], str)
    if response.status_code != 200:
        assert body["code"] == response.status_code, body
    return Answer(response.status_code, body["code"], body["msg"], body["data"], response.headers)


@dataclass
class Caller:
    """A client that sends requests, with or without a token."""

    http: httpx.Client = field(repr=False)
    token: str = field(default="", repr=False)
    id: str = ""
    username: str = ""
    refresh_token: str = field(default="", repr=False)
    made: list[tuple[Caller, str]] = field(default_factory=list, repr=False)
    """Every session that this suite created, with its owner."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def send(self, method: str, path: str, *, patient: bool = True, **request: Any) -> httpx.Response:
        """Send a request. After a 429 wait for Retry-After and send it again, unless `patient` is false."""
        headers = {**self.headers, **request.pop("headers", {})}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            response = self.http.request(method, path, headers=headers, **request)
            if response.status_code != 429 or not patient or time.monotonic() > deadline:
                return response
            time.sleep(float(response.headers["retry-after"]))

    def ask(self, method: str, path: str, *, expect: int = 200, **request: Any) -> Answer:
        """Send a request and check its status."""
        response = self.send(method, path, **request)
        assert response.status_code == expect, f"{method} {path}: {response.status_code} {response.text[:500]}"
        return parse_envelope(response)

    def get(self, path: str, **request: Any) -> Any:
        return self._good("GET", path, **request)

    def post(self, path: str, **request: Any) -> Any:
        return self._good("POST", path, **request)

    def put(self, path: str, **request: Any) -> Any:
        return self._good("PUT", path, **request)

    def delete(self, path: str, **request: Any) -> Any:
        return self._good("DELETE", path, **request)

    def _good(self, method: str, path: str, **request: Any) -> Any:
        answer = self.ask(method, path, **request)
        assert answer.code == 200, answer
        return answer.data

    # The first steps of many checks

    def new_session(self) -> str:
        session = str(self.post("/api/sessions")["session_id"])
        self.made.append((self, session))
        return session

    def upload(self, filename: str = "notes.txt", content: bytes = b"hello", kind: str = "text/plain") -> Any:
        return self.post("/api/files", files={"file": (filename, content, kind)})

    @contextmanager
    def stream(self, path: str, *, patient: bool = True, **request: Any) -> Iterator[httpx.Response]:
        """An open event stream, or a refusal whose body was read. A 429 is handled as in `send`."""
        headers = {**self.headers, **request.pop("headers", {})}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with self.http.stream("POST", path, headers=headers, **request) as response:
                if response.status_code != 200:
                    response.read()
                if response.status_code != 429 or not patient or time.monotonic() > deadline:
                    yield response
                    return
            time.sleep(float(response.headers["retry-after"]))

    def chat(self, session: str, message: str | None = None, **body: Any) -> Turn:
        """Send a message, or only follow the session, until the stream ends."""
        headers = body.pop("headers", {})
        sent = {"message": message, **body} if message is not None else body
        turn = Turn()
        deadline = time.monotonic() + TURN_SECONDS
        with self.stream(f"/api/sessions/{session}/chat", json=sent, headers=headers) as response:
            assert response.status_code == 200, response.text
            for item in parse_frames(response):
                turn.add(item)
                assert time.monotonic() < deadline, f"The turn does not end: {turn.types()}"
        return turn


@dataclass(frozen=True)
class TimedFrame:
    """One event of a stream, or a comment (`event` is ""). `at` is when it came, by the monotonic clock."""

    event: str
    id: str
    data: dict[str, Any]
    at: float
    text: str

    @property
    def is_partial(self) -> bool:
        return self.data.get("partial") is True


def parse_frames(response: httpx.Response) -> Iterator[TimedFrame]:
    """The frames and comments of an open stream, in the order of arrival."""
    assert response.headers["content-type"].startswith("text/event-stream"), response.headers
    lines: list[str] = []
    for line in response.iter_lines():
        if line:
            lines.append(line)
            continue
        if lines:
            yield _frame(lines)
        lines = []


def _frame(lines: list[str]) -> TimedFrame:
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        assert key not in fields, f"One {key} a frame: {lines}"
        fields[key] = value.removeprefix(" ")
    data = json.loads(fields["data"]) if "data" in fields else {}
    return TimedFrame(fields.get("event", ""), fields.get("id", ""), data, time.monotonic(), "\n".join(lines))


@dataclass
class Turn:
    """What one chat stream carried, and when its request was sent, by the monotonic clock."""

    frames: list[TimedFrame] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def add(self, frame: TimedFrame) -> None:
        if frame.event:
            self.frames.append(frame)

    @property
    def stored(self) -> list[TimedFrame]:
        return [frame for frame in self.frames if "seq" in frame.data]

    @property
    def partial(self) -> list[TimedFrame]:
        return [frame for frame in self.frames if frame.is_partial]

    @property
    def ending(self) -> TimedFrame:
        return self.frames[-1]

    def types(self) -> list[str]:
        return [frame.event for frame in self.stored]

    def all(self, event: str, **having: Any) -> list[dict[str, Any]]:
        return [
            frame.data
            for frame in self.stored
            if frame.event == event and all(frame.data.get(key) == value for key, value in having.items())
        ]


@dataclass
class ServerUnderTest:
    """Opens clients on the server under test; closes them all at the end."""

    url: str
    admin_username: str
    admin_password: str
    made: list[tuple[Caller, str]] = field(default_factory=list)
    _clients: list[httpx.Client] = field(default_factory=list)

    def nobody(self) -> Caller:
        """A client without a token. The timeout is for one read, and heartbeats keep a stream open."""
        client = httpx.Client(base_url=self.url, timeout=httpx.Timeout(HANG_SECONDS), trust_env=False)
        self._clients.append(client)
        return Caller(client, made=self.made)

    def with_token(self, token: str) -> Caller:
        caller = self.nobody()
        caller.token = token
        return caller

    def admin(self) -> Caller:
        return self.login(username=self.admin_username, password=self.admin_password)

    def login(self, **body: str) -> Caller:
        return self._enter("/api/auth/login", body)

    def register(self, **body: str) -> Caller:
        return self._enter("/api/auth/register", {"username": name(), "password": PASSWORD, **body})

    def _enter(self, path: str, body: dict[str, str]) -> Caller:
        caller = self.nobody()
        answer = caller.post(path, json=body)
        caller.token = answer["tokens"]["access_token"]
        caller.refresh_token = answer["tokens"]["refresh_token"]
        caller.id = answer["user"]["id"]
        caller.username = answer["user"]["username"]
        return caller

    def delete_sessions(self, *, but: int = 0) -> None:
        """Delete the sessions, except the first `but`. Sessions that are already gone are ignored."""
        while len(self.made) > but:
            owner, session = self.made.pop()
            owner.send("POST", f"/api/sessions/{session}/delete")

    def close(self) -> None:
        for client in self._clients:
            client.close()


def until(look: Callable[[], bool], what: str, seconds: float = HANG_SECONDS) -> None:
    """Wait until `look` returns true. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"Not within {seconds:g} s: {what}"
        time.sleep(0.05)
