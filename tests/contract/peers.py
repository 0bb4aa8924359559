"""What the server under test talks to: a model, MCP servers, an agent, WeChat and GitHub, all scripted, on one socket.

The model steers by what the request says, so that it fits agents of any make:
- the last user message holds `[contract:NAME]`, which names a script;
- a function with a parameter `steps` is for planning; one with `success` or `result` ends a step; a request that offers
  no function wants text. Functions of the contract are called by their names.
"""

from __future__ import annotations

import json
import queue
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

Call = tuple[str, dict[str, Any]]

WORKSPACE = "/home/ubuntu/workspace"
MADE = f"{WORKSPACE}/made.txt"
PAGE = f"{WORKSPACE}/page.html"
LONG = "All of this is one long answer. " * 60
FINAL = "That is all that was asked for."
QUESTION = "Which colour?"
MCP_TOOL = "echo"
AGENT_ANSWER = "From afar."
WECHAT_OPENID = "openid-of-contract"
STILL_THERE_SECONDS = 1.0
"""How often an open MCP stream sends a comment. Only a write shows whether the client is still connected."""


def _shell(command: str) -> Call:
    return "shell_execute", {"session_id": "main", "exec_dir": WORKSPACE, "command": command}


SCRIPTS: dict[str, list[Call]] = {
    "hello": [],
    "long": [],
    "work": [
        _shell("echo contract-$((6 * 7))"),
        ("write_file", {"filepath": MADE, "content": "made by the contract\n"}),
        ("read_file", {"filepath": MADE}),
        ("message_notify_user", {"text": "Half way."}),
    ],
    "look": [
        ("write_file", {"filepath": PAGE, "content": "<title>Page</title><body bgcolor=red><h1>Contract</h1>"}),
        ("browser_navigate", {"url": f"file://{PAGE}"}),
    ],
    "ask": [("message_ask_user", {"text": QUESTION})],
    "slow-ask": [_shell("sleep 1"), ("message_ask_user", {"text": QUESTION})],
    "hang": [],
    "refuse": [],
}
WITHOUT_STEPS = {"hello", "long"}


def saying(script: str, text: str = "Please do it.") -> str:
    """A user message that selects this script of the model."""
    return f"{text} [contract:{script}]"


@dataclass
class Peers:
    """`url` is where the server under test reaches them. Used as a context."""

    host: str = "127.0.0.1"
    port: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    """The requests to the model."""
    keys: list[str] = field(default_factory=list)
    """The Authorization of each of these requests."""
    cards_read: int = 0
    agent_calls: list[dict[str, Any]] = field(default_factory=list)
    mcp_calls: list[dict[str, Any]] = field(default_factory=list)
    mcp_headers: list[str] = field(default_factory=list)
    mcp_streams: dict[str, queue.Queue[dict[str, Any]]] = field(default_factory=dict)
    """Answers on their way to the clients of MCP over SSE, by the session that each was given."""
    archives: dict[str, bytes] = field(default_factory=dict)
    """Tarballs that GitHub has, by "owner/repository/ref"."""
    scripts: dict[str, list[Call]] = field(default_factory=lambda: dict(SCRIPTS))
    release: threading.Event = field(default_factory=threading.Event)
    """Set at the end, so that all hanging requests continue."""

    def __enter__(self) -> Peers:
        peers = self

        class Handler(_Handler):
            of = peers

        self._server = ThreadingHTTPServer((self.host, self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="peers", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def model(self, model_name: str = "scripted") -> dict[str, Any]:
        """An LLMConfig."""
        return {
            "base_url": f"{self.url}/v1",
            "api_key": "sk-contract-key",
            "model_name": model_name,
            "temperature": 0.5,
            "max_tokens": 4096,
        }

    def offered_functions(self) -> dict[str, dict[str, Any]]:
        """Every function that a model was offered, with its parameters."""
        return {
            tool["function"]["name"]: tool["function"].get("parameters", {})
            for request in self.requests
            for tool in request.get("tools") or []
        }


def script_of(request: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """The script that the last marked user message names, and what was said since."""
    messages = request["messages"]
    for place in range(len(messages) - 1, -1, -1):
        found = re.findall(r"\[contract:([\w-]+)\]", json.dumps(messages[place].get("content")))
        if messages[place]["role"] == "user" and found:
            return found[-1], messages[place + 1 :]
    return "hello", []


def answer(request: dict[str, Any], scripts: dict[str, list[Call]]) -> str | Call:
    """The next text, or the next function call."""
    script, since = script_of(request)
    offered = {tool["function"]["name"]: tool["function"] for tool in request.get("tools") or []}
    parameters = {name: set(tool.get("parameters", {}).get("properties", {})) for name, tool in offered.items()}
    planning = next((name for name, has in parameters.items() if "steps" in has), None)
    ending = next((name for name, has in parameters.items() if {"success", "result"} & has), None)
    text = LONG if script == "long" else FINAL
    if planning and (ending is None or len(offered) == 1):
        if script in WITHOUT_STEPS:
            return planning, {"title": "Contract", "message": text, "steps": []}
        return planning, {"title": "Contract", "message": "I will do it.", "steps": ["Do what is asked"]}
    if not offered:
        return text
    called = [call["function"]["name"] for message in since for call in message.get("tool_calls") or []]
    for function, args in scripts.get(script, []):
        if function in called:
            called.remove(function)
        elif function in offered:
            return function, args
    if ending:
        values: dict[str, Any] = {"success": True, "result": "Done.", "attachments": [MADE] if script == "work" else []}
        return ending, {name: value for name, value in values.items() if name in parameters[ending]}
    return text


class _Handler(BaseHTTPRequestHandler):
    of: Peers
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Print no log."""

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"null")

    def _json(self, document: object, status: int = 200) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _empty(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        if path.endswith("/.well-known/agent-card.json"):
            self.of.cards_read += 1
            self._json(agent_card(f"{self.of.url}/agent"))
        elif path == "/sns/oauth2/access_token":
            refused = {"errcode": 40029, "errmsg": "invalid code"}
            token = {
                "access_token": "at",
                "expires_in": 7200,
                "refresh_token": "rt",
                "openid": WECHAT_OPENID,
                "scope": "snsapi_userinfo",
            }
            self._json(token if query.get("code") == ["good"] else refused)
        elif path == "/sns/userinfo":
            self._json({"openid": WECHAT_OPENID, "nickname": "Contract", "sex": 0, "headimgurl": "", "privilege": []})
        elif path == "/sse":
            self._mcp_stream()
        elif "/tar.gz/" in path:
            self._archive(path)
        else:
            self._empty(405 if path == "/mcp" else 404)

    def _archive(self, path: str) -> None:
        """Send a repository as GitHub packs it. A client may close the connection early."""
        repository, _, ref = unquote(path).strip("/").partition("/tar.gz/")
        if (archive := self.of.archives.get(f"{repository}/{ref}")) is None:
            self._empty(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-gzip")
        self.send_header("Content-Length", str(len(archive)))
        self.end_headers()
        try:
            self.wfile.write(archive)
        except ConnectionError:
            self.close_connection = True

    def do_DELETE(self) -> None:
        self._empty(405)

    def do_POST(self) -> None:
        body = self._body()
        try:
            match urlsplit(self.path).path:
                case "/v1/chat/completions":
                    self.of.keys.append(str(self.headers.get("authorization")))
                    self.of.requests.append(body)
                    self._complete(body)
                case "/mcp":
                    answered = self._mcp(body)
                    self._json(answered) if answered else self._empty(202)
                case "/sse/messages":
                    self._mcp_message(body)
                case "/hang":
                    self.of.release.wait(60)
                    self._empty(503)
                case "/agent":
                    self.of.agent_calls.append(body)
                    text = {"kind": "text", "text": AGENT_ANSWER}
                    reply = {"kind": "message", "role": "agent", "messageId": "1", "parts": [text]}
                    self._json({"jsonrpc": "2.0", "id": body.get("id"), "result": reply})
                case _:
                    self._empty(404)
        except ConnectionError:
            self.close_connection = True  # the client has closed the connection

    def _complete(self, request: dict[str, Any]) -> None:
        script, _ = script_of(request)
        if script == "refuse":
            self._json({"error": {"message": "Incorrect API key", "code": "invalid_api_key"}}, 401)
            return
        if script == "hang":
            self.of.release.wait(60)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for delta in deltas(answer(request, self.of.scripts), pause=0.02 if script == "long" else 0):
            self.wfile.write(f"data: {json.dumps(delta)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _mcp(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """The answer to a message of MCP; none to a notification."""
        self.of.mcp_headers.append(str(self.headers.get("x-contract")))
        if "id" not in message:
            return None
        result: dict[str, Any]
        match message["method"]:
            case "initialize":
                result = {
                    "protocolVersion": message["params"]["protocolVersion"],
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "contract", "version": "1"},
                }
            case "tools/list":
                schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
                result = {"tools": [{"name": MCP_TOOL, "description": "Says it again", "inputSchema": schema}]}
            case "tools/call":
                self.of.mcp_calls.append(message["params"])
                text = message["params"]["arguments"].get("text", "")
                result = {"content": [{"type": "text", "text": f"echo: {text}"}], "isError": False}
            case "ping":
                result = {}
            case _:
                error = {"code": -32601, "message": "Method not found"}
                return {"jsonrpc": "2.0", "id": message["id"], "error": error}
        return {"jsonrpc": "2.0", "id": message["id"], "result": result}

    def _mcp_stream(self) -> None:
        """MCP over SSE: say where messages go, then send the answers to them, until the client hangs up.

        Source: Model Context Protocol 2024-11-05, "HTTP with SSE".
        """
        session = uuid4().hex
        answers = self.of.mcp_streams.setdefault(session, queue.Queue())
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        frame = f"event: endpoint\ndata: /sse/messages?session={session}\n\n"
        try:
            while True:
                self.wfile.write(frame.encode())
                self.wfile.flush()
                try:
                    frame = f"event: message\ndata: {json.dumps(answers.get(timeout=STILL_THERE_SECONDS))}\n\n"
                except queue.Empty:
                    frame = ": still there\n\n"
        except OSError:
            del self.of.mcp_streams[session]

    def _mcp_message(self, message: dict[str, Any]) -> None:
        (session,) = parse_qs(urlsplit(self.path).query)["session"]
        if (answers := self.of.mcp_streams.get(session)) is None:
            self._empty(404)
            return
        if answered := self._mcp(message):
            answers.put(answered)
        self._empty(202)


def deltas(answer: str | Call, *, pause: float) -> Iterator[dict[str, Any]]:
    """Chunks of a completion: text in small pieces, or one call."""

    def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "scripted", "choices": [choice]}

    yield chunk({"role": "assistant", "content": None})
    if isinstance(answer, str):
        pieces: list[dict[str, Any]] = [{"content": piece} for piece in _pieces(answer)]
        reason = "stop"
    else:
        head = {"index": 0, "id": "call_0", "type": "function", "function": {"name": answer[0], "arguments": ""}}
        yield chunk({"tool_calls": [head]})
        texts = _pieces(json.dumps(answer[1]))
        pieces = [{"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in texts]
        reason = "tool_calls"
    for piece in pieces:
        if pause:
            time.sleep(pause)
        yield chunk(piece)
    yield chunk({}, reason)


def _pieces(text: str) -> list[str]:
    return [text[start : start + 24] for start in range(0, len(text), 24)]


def agent_card(url: str) -> dict[str, Any]:
    """A card that reads as one of A2A 1.0 and of 0.3."""
    return {
        "name": "Contract agent",
        "description": "Answers everything with the same words",
        "version": "1.0.0",
        "protocolVersion": "0.3.0",
        "url": url,
        "preferredTransport": "JSONRPC",
        "capabilities": {"streaming": False, "pushNotifications": False},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "talk", "name": "Talk", "description": "Talks", "tags": ["talk"]}],
    }
