"""A scripted model behind the Chat Completions protocol, over a real socket, in this process or in one of its own.

The script is a list of turns. Which one is played follows from the request alone: it is the one whose place is the
number of assistant messages in the request. So a request that is sent again, by a client that retries or by a runner
that took over from a killed one, gets the same answer, whichever server process it reaches and in whatever order.
Only `Tries` counts: how often the server was asked for that place by conversations that begin with the same words.
Where the transcript is shortened, so that places can't be counted, give a function of the request instead of a list.

As a process: `python -m support.llm --port 0 --script script.json` prints `listening on URL`. The file holds a list of
turns, or `{"scripts": [{"contains": "words of the first user message", "turns": [...]}]}`; see `turn_from_json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from moorage_api.agent.tokens import PICTURE_TOKENS, count_tokens
from support.waiting import HANG_SECONDS


@dataclass(frozen=True)
class Call:
    function: str
    args: Mapping[str, Any] = field(default_factory=dict)
    arguments: str | None = None
    """Sent unchanged instead of `args`, for example text that is not JSON."""
    id: str = "call_0"
    """The default repeats one id, because real models do."""

    def text(self) -> str:
        return self.arguments if self.arguments is not None else json.dumps(self.args, ensure_ascii=False)


@dataclass(frozen=True)
class Say:
    """Text, tool calls or both."""

    text: str = ""
    calls: Sequence[Call] = ()
    reasoning: str = ""
    finish_reason: str | None = None


def Calls(*calls: Call) -> Say:
    return Say(calls=calls)


def Plan(title: str, message: str, steps: Sequence[str]) -> Say:
    return Calls(Call("make_plan", {"title": title, "message": message, "steps": list(steps)}))


def Update(steps: Sequence[str], message: str = "") -> Say:
    return Calls(Call("update_plan", {"message": message, "steps": list(steps)}))


def Finish(result: str = "Done.", *, success: bool = True, attachments: Sequence[str] = ()) -> Say:
    return Calls(Call("finish_step", {"success": success, "result": result, "attachments": list(attachments)}))


@dataclass(frozen=True)
class Raw:
    """Bodies of server-sent events. A str is sent unchanged, an object as JSON. No `[DONE]` is added."""

    events: Sequence[object]


@dataclass(frozen=True)
class Body:
    """The bytes of a response with the status 200, in pieces as they are given."""

    pieces: Sequence[bytes]
    content_type: str = "text/event-stream"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    code: int
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hang:
    """Accept the request and never answer."""


@dataclass(frozen=True)
class Drop:
    """Begin to answer and close the connection after `after` events."""

    turn: Say
    after: int = 1


@dataclass(frozen=True)
class Tries:
    """Answer the n-th request for this place with the n-th turn, and every later request with the last turn."""

    turns: Sequence[Turn]

    def __init__(self, *turns: Turn) -> None:
        object.__setattr__(self, "turns", turns)


GOT = "path of a GET"

Turn = Call | Say | Raw | Body | Status | Hang | Drop | Tries
Request = dict[str, Any]
Responder = Callable[[Request], Turn]


def _place(request: Request) -> int:
    return sum(message["role"] == "assistant" for message in request["messages"])


def _first_words(request: Request) -> str:
    return next((str(message["content"]) for message in request["messages"] if message["role"] == "user"), "")


def wish(request: Request) -> str:
    """What the request wants: the name of a function, "text", or "any" if the model chooses."""
    choice, tools = request.get("tool_choice"), request.get("tools") or []
    if isinstance(choice, dict):
        return str(choice["function"]["name"])
    if choice == "none" or not tools:
        return "text"
    return str(tools[0]["function"]["name"]) if len(tools) == 1 else "any"


def play_script(turns: Sequence[Turn]) -> Responder:
    """The turn whose place is the number of assistant messages in the request."""

    def choose(request: Request) -> Turn:
        place = _place(request)
        return turns[place] if place < len(turns) else Status(400, {"error": {"message": "The script is over"}})

    return choose


def by_first_message(scripts: Sequence[tuple[str, Sequence[Turn]]]) -> Responder:
    """The first script whose words are in the first user message."""

    def choose(request: Request) -> Turn:
        for words, turns in scripts:
            if words in _first_words(request):
                return play_script(turns)(request)
        return Status(400, {"error": {"message": "No script for this message"}})

    return choose


def turn_from_json(value: Mapping[str, Any]) -> Turn:
    """`{"plan": {title, message, steps}}`, `{"update": {steps, message}}`, `{"call": [function, args]}`,
    `{"calls": [[function, args], …]}`, `{"finish": {result, success, attachments}}`, `{"say": text}`,
    `{"status": code}`, `{"hang": true}` or `{"tries": [turn, …]}`.
    """
    ((kind, what),) = value.items()
    match kind:
        case "plan":
            return Plan(**what)
        case "update":
            return Update(**what)
        case "call":
            return Call(*what)
        case "calls":
            return Calls(*(Call(*item) for item in what))
        case "finish":
            return Finish(**what)
        case "say":
            return Say(what)
        case "status":
            return Status(what)
        case "hang":
            return Hang()
        case "tries":
            return Tries(*(turn_from_json(item) for item in what))
        case _:
            raise ValueError(f"no turn of the kind {kind}")


def responder_from_json(document: Any) -> Responder:
    if isinstance(document, list):
        return play_script([turn_from_json(item) for item in document])
    return by_first_message(
        [(item.get("contains", ""), [turn_from_json(turn) for turn in item["turns"]]) for item in document["scripts"]]
    )


class ScriptedModel:
    """Serves from its own thread inside a `with` block. `requests` holds the bodies in the order of arrival."""

    def __init__(
        self,
        script: Sequence[Turn] | Responder,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        delay_seconds: float = 0,
        chunk_chars: int = 7,
        chunk_delay_seconds: float = 0,
        sends_usage: bool = True,
        pages: Mapping[str, object] | None = None,
    ) -> None:
        """`pages`: documents that it answers to GET, by path, or a `Status` or `Hang`. Others get 404."""
        self.pages = dict(pages or {})
        self.pages_read: list[str] = []
        self.requests: list[Request] = []
        self.headers: list[dict[str, str]] = []
        """The headers of each of `requests`, with names in lower case."""
        self.delay_seconds = delay_seconds
        self.chunk_chars = chunk_chars
        self.chunk_delay_seconds = chunk_delay_seconds
        self.sends_usage = sends_usage
        self.picture_tokens = PICTURE_TOKENS
        """What a picture costs in `usage`. OpenAI counts 85 with low detail, Claude up to 1,600."""
        self.billed: dict[int, dict[str, Any]] = {}
        """The usage of the last whole answer for each place of the script."""
        self._choose = script if callable(script) else play_script(script)
        self._host = host
        self._port = port
        self._api_key = api_key
        self._tries: Counter[tuple[int, str]] = Counter()
        self._asked = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="scripted model", daemon=True)
        self._stopping = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(HANG_SECONDS):
            raise RuntimeError("the scripted model did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(HANG_SECONDS)

    async def wait_for_requests(self, count: int, *, timeout_seconds: float = HANG_SECONDS) -> None:
        """Return once that many requests have arrived. Raises TimeoutError."""

        def wait() -> bool:
            with self._asked:
                return self._asked.wait_for(lambda: len(self.requests) >= count, timeout_seconds)

        if not await asyncio.to_thread(wait):
            raise TimeoutError(f"{len(self.requests)} requests came, not {count}")

    def _serve(self) -> None:
        asyncio.run(self._serve_until_stopped())

    async def _serve_until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        handlers: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._handle(reader, writer))
            handlers.add(task)
            task.add_done_callback(handlers.discard)

        server = await asyncio.start_server(accept, self._host, self._port)
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for task in tuple(handlers):
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read_request(reader)) is not None:
                headers, body = request
                if path := headers.get(GOT):
                    self.pages_read.append(path)
                    found = self.pages.get(path)
                    if isinstance(found, Hang | Status):
                        await self._play(writer, found, {})
                    else:
                        await _send_document(writer, 200 if found is not None else 404, found, {})
                    continue
                if self._api_key is not None and headers.get("authorization") != f"Bearer {self._api_key}":
                    refusal = {"error": {"message": f"Incorrect API key: {headers.get('authorization', '')[7:]}"}}
                    await _send_document(writer, 401, refusal, {})
                    continue
                with self._asked:
                    self.requests.append(body)
                    self.headers.append(headers)
                    self._asked.notify_all()
                await asyncio.sleep(self.delay_seconds)
                if not await self._play(writer, self._choose(body), body):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # the client has closed the connection
        finally:
            writer.close()

    async def _play(self, writer: asyncio.StreamWriter, turn: Turn, request: Request) -> bool:
        """Answer the request. Returns False when the connection must be closed."""
        match turn:
            case Tries():
                seen = (_place(request), _first_words(request))
                number = self._tries[seen]
                self._tries[seen] += 1
                return await self._play(writer, turn.turns[min(number, len(turn.turns) - 1)], request)
            case Call():
                return await self._play(writer, Calls(turn), request)
            case Status():
                await _send_document(writer, turn.code, turn.body, turn.headers)
                return True
            case Hang():
                await asyncio.Event().wait()
                return False
            case Raw():
                texts = [item if isinstance(item, str) else json.dumps(item) for item in turn.events]
                return await self._stream(writer, texts, ends=True)
            case Body():
                return await self._send_pieces(writer, turn)
            case Drop():
                return await self._stream(writer, self._events(turn.turn)[: turn.after], ends=False)
            case Say():
                usage = self._usage_events(turn, request)
                return await self._stream(writer, [*self._events(turn), *usage, "[DONE]"], ends=True)

    async def _stream(self, writer: asyncio.StreamWriter, events: Sequence[str], *, ends: bool) -> bool:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        async for event in self._pace(events):
            data = f"data: {event}\n\n".encode()
            writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
            await writer.drain()
        if ends:
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return ends

    async def _send_pieces(self, writer: asyncio.StreamWriter, turn: Body) -> bool:
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {turn.content_type}", "Transfer-Encoding: chunked"]
        lines += [f"{name}: {value}" for name, value in turn.headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        for piece in turn.pieces:
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def _pace(self, events: Sequence[str]) -> AsyncIterator[str]:
        for event in events:
            yield event
            if self.chunk_delay_seconds:
                await asyncio.sleep(self.chunk_delay_seconds)

    def _events(self, turn: Say) -> list[str]:
        """The turn as chunks: reasoning, text, then the calls, each text cut into pieces."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
        deltas += [{"reasoning_content": piece} for piece in self._pieces(turn.reasoning)]
        deltas += [{"content": piece} for piece in self._pieces(turn.text)]
        for index, call in enumerate(turn.calls):
            head = {"index": index, "id": call.id, "type": "function"}
            deltas.append({"tool_calls": [head | {"function": {"name": call.function, "arguments": ""}}]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}
                for piece in self._pieces(call.text())
            ]
        chunks = [_chunk({"delta": delta, "finish_reason": None}) for delta in deltas]
        reason = turn.finish_reason or ("tool_calls" if turn.calls else "stop")
        return [*chunks, _chunk({"delta": {}, "finish_reason": reason})]

    def _usage_events(self, turn: Say, request: Request) -> list[str]:
        """The chunk that ends a stream with `include_usage`. The numbers follow from the request and the turn alone."""
        if not self.sends_usage or not (request.get("stream_options") or {}).get("include_usage"):
            return []
        written = turn.text + turn.reasoning + "".join(call.text() for call in turn.calls)
        cheaper = (PICTURE_TOKENS - self.picture_tokens) * json.dumps(request["messages"]).count('"image_url": {')
        prompt, cached = _count_prompt(request) - cheaper, 100 * _place(request)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": len(written),
            "total_tokens": prompt + len(written),
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": len(turn.reasoning)},
        }
        self.billed[_place(request)] = usage
        return [json.dumps(json.loads(_chunk({})) | {"choices": [], "usage": usage})]

    def _pieces(self, text: str) -> list[str]:
        return [text[start : start + self.chunk_chars] for start in range(0, len(text), self.chunk_chars)]


def _count_prompt(request: Request) -> int:
    """The tokens of the request, as the agent counts them, so that nothing depends on a difference of the counts."""
    tools = [tool["function"] for tool in request.get("tools", ())]
    described = [{"name": tool["name"], "about": tool["description"], "schema": tool["parameters"]} for tool in tools]
    return count_tokens(request["messages"]) + count_tokens(described)


def _chunk(choice: dict[str, Any]) -> str:
    return json.dumps(
        {
            "id": "chatcmpl-scripted",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "scripted",
            "choices": [{"index": 0} | choice],
        },
        ensure_ascii=False,
    )


async def _read_request(reader: asyncio.StreamReader) -> tuple[dict[str, str], Request] | None:
    """Return the headers and the body of one request, or None at the end of the connection.

    The header `GOT` is the path of a GET.
    """
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, path, *_ = first.split(" ")
    if method == "GET":
        headers[GOT] = path.partition("?")[0]
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return headers, json.loads(body or b"{}")


async def _send_document(
    writer: asyncio.StreamWriter, status: int, document: object, headers: Mapping[str, str]
) -> None:
    body = document if isinstance(document, str) else json.dumps(document if document is not None else {})
    lines = [f"HTTP/1.1 {status} Scripted", "Content-Type: application/json", f"Content-Length: {len(body.encode())}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
    await writer.drain()


def main() -> None:
    parser = argparse.ArgumentParser(description="A scripted OpenAI-compatible model")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--delay", type=float, default=0, help="seconds before each answer")
    parser.add_argument("--chunk-delay", type=float, default=0, help="seconds between chunks")
    parser.add_argument("--chunk-chars", type=int, default=7)
    options = parser.parse_args()
    model = ScriptedModel(
        responder_from_json(json.loads(options.script.read_text())),
        port=options.port,
        delay_seconds=options.delay,
        chunk_chars=options.chunk_chars,
        chunk_delay_seconds=options.chunk_delay,
    )
    with model:
        print(f"listening on {model.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
