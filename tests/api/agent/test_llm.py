"""One request to a model over a real socket: which errors are retried, which are not, and what their texts say."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest

from moorage_api.agent.model.incoming.answers import Answer, AnswerBuilder, RawCall
from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.servers.errors import LlmError, WindowFullError
from moorage_api.agent.toolsets.function_schema import function, text
from moorage_api.outbound import Outbound
from support.llm import Call, Calls, Drop, Hang, Raw, Responder, Say, ScriptedModel, Status, Tries, Turn

KEY = "sk-very-secret"
QUESTION = [{"role": "user", "content": "Hello?"}]
TOOL = function("ls", "List", {"path": text("Where")})
HELLO = Say("Hello there, how are you?")

Serve = Callable[..., ScriptedModel]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(script: list[Turn] | Responder, **options: Any) -> ScriptedModel:
            return stack.enter_context(ScriptedModel(script, **options))

        yield start


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., LlmClient]]:
    clients: list[LlmClient] = []

    def make(model: ScriptedModel | str, **options: Any) -> LlmClient:
        url = model if isinstance(model, str) else model.url
        given: dict[str, Any] = {"backoff_seconds": 0.01, "outbound": Outbound(), "api_key": KEY} | options
        client = LlmClient(url, model="scripted", **given)
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.aclose()


Connect = Callable[..., LlmClient]


def error_in_stream(message: str) -> Raw:
    return Raw([{"error": {"message": message, "type": "server_error"}}])


RECOVERED: dict[str, Turn] = {
    "429": Tries(Status(429, {"error": {"message": "slow down"}}), HELLO),
    "500": Tries(Status(500, "<html>oops</html>"), HELLO),
    "503 twice": Tries(Status(503), Status(503), HELLO),
    "an error inside a stream": Tries(error_in_stream("overloaded"), HELLO),
    "a stream that is no JSON": Tries(Raw(["{nonsense"]), HELLO),
    "a stream of other things": Tries(Raw([42, "x"]), HELLO),
    "a connection cut half way": Tries(Drop(HELLO, after=3), HELLO),
    "a connection cut at once": Tries(Drop(HELLO, after=0), HELLO),
}


@pytest.mark.parametrize("turn", RECOVERED.values(), ids=RECOVERED.keys())
async def test_a_temporary_error_is_retried(serve: Serve, connect: Connect, turn: Turn) -> None:
    answer = await connect(serve([turn])).ask(QUESTION, max_retries=2)
    assert answer == Answer("Hello there, how are you?")


LASTING_ERRORS: dict[str, tuple[Turn, str, str]] = {
    "429": (Status(429, {"error": {"message": "slow down"}}), "llm_rate_limited", "slow down"),
    "500": (Status(500, "<html>oops</html>"), "llm_unavailable", "answered 500"),
    "an error inside a stream": (error_in_stream("overloaded"), "llm_unavailable", "overloaded"),
    "a stream that is no JSON": (Raw(["{nonsense"]), "llm_failed", "not a chat completion"),
}


@pytest.mark.parametrize(("turn", "code", "words"), LASTING_ERRORS.values(), ids=LASTING_ERRORS.keys())
async def test_a_lasting_error_is_raised_after_the_last_retry(
    serve: Serve, connect: Connect, turn: Turn, code: str, words: str
) -> None:
    model = serve([turn])
    with pytest.raises(LlmError, match=words) as caught:
        await connect(model).ask(QUESTION, max_retries=2)
    assert caught.value.code == code
    assert len(model.requests) == 3


NOT_RETRIED: dict[str, tuple[Turn, str, str]] = {
    "401": (Status(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}), "llm_unauthorized", "api_key"),
    "403": (Status(403), "llm_unauthorized", "api_key"),
    "402": (Status(402, {"error": {"message": "Insufficient Balance"}}), "llm_unauthorized", "Insufficient Balance"),
    "no quota": (
        Status(429, {"error": {"message": "You have no quota", "code": "insufficient_quota"}}),
        "llm_unauthorized",
        "no quota",
    ),
    "404": (Status(404, {"error": {"message": "no such model"}}), "llm_not_found", "model_name"),
    "400": (Status(400, {"error": {"message": f"bad messages from {KEY}"}}), "llm_refused", "bad messages"),
}


@pytest.mark.parametrize(("turn", "code", "words"), NOT_RETRIED.values(), ids=NOT_RETRIED.keys())
async def test_an_error_that_a_retry_cannot_help_is_raised_at_once_and_without_the_key(
    serve: Serve, connect: Connect, turn: Turn, code: str, words: str
) -> None:
    model = serve([turn])
    with pytest.raises(LlmError, match=words) as caught:
        await connect(model).ask(QUESTION, max_retries=5)
    assert caught.value.code == code
    assert KEY not in str(caught.value)
    assert len(model.requests) == 1


@pytest.mark.parametrize(
    "turn",
    [
        Status(400, {"error": {"message": "This is too long", "code": "context_length_exceeded"}}),
        Status(400, {"error": {"message": "This model's maximum context length is 4096 tokens"}}),
        Status(413),
        error_in_stream("exceeds the context window"),
    ],
)
async def test_a_request_longer_than_the_window_raises_an_error_of_its_own(
    serve: Serve, connect: Connect, turn: Turn
) -> None:
    with pytest.raises(WindowFullError):
        await connect(serve([turn])).ask(QUESTION)


async def test_the_error_for_an_unreachable_server_contains_its_url(connect: Connect) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(LlmError, match=f"{url} could not be reached; check the base URL") as caught:
            await connect(url).ask(QUESTION, max_retries=1)
    assert caught.value.code == "llm_unavailable"


async def test_a_server_that_was_never_reached_is_not_waited_for(connect: Connect) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = connect(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", patience_seconds=3_600)
        with pytest.raises(LlmError, match="could not be reached"):
            await client.ask(QUESTION, max_retries=1)


async def test_a_server_that_sends_something_else_is_not_waited_for(serve: Serve, connect: Connect) -> None:
    with pytest.raises(LlmError, match="not a chat completion"):
        await connect(serve([Raw(["{nonsense"])]), patience_seconds=3_600).ask(QUESTION, max_retries=1)


async def test_a_server_that_was_reached_once_is_waited_for(serve: Serve, connect: Connect) -> None:
    trouble = [Drop(HELLO, after=0)] * 5
    model = serve([Tries(Status(503), *trouble, HELLO)])
    assert await connect(model, patience_seconds=60).ask(QUESTION, max_retries=1) == Answer(HELLO.text)


@pytest.mark.parametrize("url", ["not a url", "ftp://example.org", "", "http://", "http://[::1/v1"])
async def test_an_invalid_base_url_is_reported_as_an_llm_error(connect: Connect, url: str) -> None:
    with pytest.raises(LlmError) as caught:
        await connect(url).ask(QUESTION, max_retries=0)
    assert caught.value.code == "llm_unavailable"


async def test_a_server_that_never_answers_is_a_timeout(serve: Serve, connect: Connect) -> None:
    model = serve([Hang()])
    with pytest.raises(LlmError, match="did not answer in time"):
        await connect(model, idle_seconds=1).ask(QUESTION, max_retries=1)
    assert len(model.requests) == 2


async def test_retry_after_is_honoured(serve: Serve, connect: Connect) -> None:
    model = serve([Tries(Status(429, headers={"Retry-After": "0.3"}), HELLO)])
    began = time.monotonic()
    await connect(model).ask(QUESTION, max_retries=1)
    assert time.monotonic() - began >= 0.3


async def test_a_request_can_be_cancelled(serve: Serve, connect: Connect) -> None:
    model = serve([Hang()])
    asking = asyncio.create_task(connect(model).ask(QUESTION))
    await model.wait_for_requests(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_calls_and_reasoning_arrive_and_reasoning_is_no_text(serve: Serve, connect: Connect) -> None:
    model = serve([Say("Let me look.", [Call("ls", {"path": "/a"}), Call("ls", {"path": "/b"})], reasoning="Hm.")])
    answer = await connect(model).ask(QUESTION, tools=[TOOL])
    calls = (RawCall("ls", '{"path": "/a"}'), RawCall("ls", '{"path": "/b"}'))
    assert answer == Answer("Let me look.", calls, foreign='{"reasoning_content": "Hm."}')


HALF = Raw([{"choices": [{"delta": {"content": "Hi"}}]}])
MARKED = Raw([*HALF.events, "[DONE]"])


async def test_an_answer_with_a_reason_for_its_end_is_whole_without_the_done_marker(
    serve: Serve, connect: Connect
) -> None:
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    assert await connect(serve([Raw([*HALF.events, end])])).ask(QUESTION) == Answer("Hi")


@pytest.mark.parametrize("half", [HALF, MARKED])
async def test_an_answer_that_ends_without_a_reason_is_asked_for_again(
    serve: Serve, connect: Connect, half: Raw
) -> None:
    assert await connect(serve([Tries(half, HELLO)])).ask(QUESTION) == Answer(HELLO.text)


async def test_an_answer_that_ends_in_the_middle_twice_is_an_error(serve: Serve, connect: Connect) -> None:
    model = serve([HALF])
    with pytest.raises(LlmError, match="ended its answer in the middle"):
        await connect(model).ask(QUESTION, max_retries=9)
    assert len(model.requests) == 2


async def test_a_server_that_never_gives_a_reason_but_marks_the_end_can_be_used(serve: Serve, connect: Connect) -> None:
    model = serve([MARKED])
    assert await connect(model).ask(QUESTION) == Answer("Hi")
    assert len(model.requests) == 2


async def test_a_server_that_does_not_stream_is_understood(serve: Serve, connect: Connect) -> None:
    model = serve([Status(200, {"choices": [{"message": {"role": "assistant", "content": "Hi"}}]})])
    assert await connect(model).ask(QUESTION) == Answer("Hi")


async def test_an_error_in_a_document_of_status_200_is_an_error(serve: Serve, connect: Connect) -> None:
    model = serve([Status(200, {"error": {"message": "no GPU left"}})])
    with pytest.raises(LlmError, match="no GPU left"):
        await connect(model).ask(QUESTION, max_retries=0)


async def test_progress_is_reported_until_the_answer_is_complete(serve: Serve, connect: Connect) -> None:
    seen: list[str] = []

    async def watch(builder: AnswerBuilder) -> None:
        seen.append(builder.answer().text)

    await connect(serve([HELLO])).ask(QUESTION, on_progress=watch)
    assert seen[-1] == "Hello there, how are you?"
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))
    assert len(set(seen)) > 3


REFUSED: dict[str, tuple[str, str, str | None]] = {
    "tool_choice": ("tool_choice", "deepseek-reasoner does not support this tool_choice", None),
    "temperature": ("temperature", "Unsupported value: 'temperature' does not support 0.7", None),
    "toolChoice": ("tool_choice", "The value at toolConfig.toolChoice.any is invalid for this model", None),
    "forced calls": ("tool_choice", "Forced function calling (mode = ANY) is not supported for this model", None),
    "tool_choice in thinking mode": ("tool_choice", "Thinking mode does not support this tool_choice", None),
    "max_tokens": ("max_tokens", "Use 'max_completion_tokens' instead of 'max_tokens'", "max_completion_tokens"),
}


@pytest.mark.parametrize(("name", "words", "instead"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_refused_parameter_is_left_out_from_then_on(
    serve: Serve, connect: Connect, name: str, words: str, instead: str | None
) -> None:
    def answer(request: dict[str, Any]) -> Turn:
        return Status(400, {"error": {"message": words}}) if name in request else Calls(Call("ls", {"path": "/"}))

    model = serve(answer)
    client = connect(model)
    await client.ask(QUESTION, tools=[TOOL], force=True)
    await client.ask(QUESTION, tools=[TOOL], force=True)
    assert [name in request for request in model.requests] == [True, False, False]
    assert instead is None or instead in model.requests[-1]


ASKED: list[dict[str, Any]] = [
    *QUESTION,
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "ls", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "call00001", "content": "a.txt"},
]
MISSING = [
    "The `reasoning_content` in the thinking mode must be passed back to the API.",
    "Missing `reasoning_content` field in the assistant message at message index 2.",
    "thinking is enabled but reasoning_content is missing in assistant tool call message at index 2",
]


@pytest.mark.parametrize("words", MISSING)
async def test_a_field_that_an_older_answer_lacks_is_filled(serve: Serve, connect: Connect, words: str) -> None:
    def answer(request: dict[str, Any]) -> Turn:
        filled = all("reasoning_content" in message for message in request["messages"] if message.get("tool_calls"))
        return HELLO if filled else Status(400, {"error": {"message": words}})

    model = serve(answer)
    await connect(model).ask(ASKED, tools=[TOOL])
    assert len(model.requests) == 2
    assert "thinking" not in model.requests[-1]


@pytest.mark.parametrize("words", MISSING)
async def test_thinking_is_switched_off_when_a_filled_history_is_refused_too(
    serve: Serve, connect: Connect, words: str
) -> None:
    def answer(request: dict[str, Any]) -> Turn:
        is_off = request.get("thinking") == {"type": "disabled"}
        return HELLO if is_off else Status(400, {"error": {"message": words}})

    model = serve(answer)
    client = connect(model)
    await client.ask(ASKED, tools=[TOOL])
    await client.ask(ASKED, tools=[TOOL])
    assert ["thinking" in request for request in model.requests] == [False, False, True, True]


@pytest.mark.parametrize("is_lost", [True, False])
async def test_that_thinking_is_off_is_stored_only_for_a_server_that_loses_thoughts(
    serve: Serve, connect: Connect, is_lost: bool
) -> None:
    """A session in which another model answered before must not switch thinking off for all others."""
    stored: dict[str, Any] = {}

    async def store(facts: Mapping[str, Any]) -> None:
        stored.update(facts)

    def answer(request: dict[str, Any]) -> Turn:
        if not any(message.get("tool_calls") for message in request["messages"]):
            return Say(calls=[Call("ls")], reasoning="" if is_lost else "I look")
        return HELLO if "thinking" in request else Status(400, {"error": {"message": MISSING[0]}})

    client = connect(serve(answer), on_learnt=store)
    await client.ask(QUESTION, tools=[TOOL])
    assert await client.ask(ASKED, tools=[TOOL]) == Answer(HELLO.text)
    assert ("is_thinking_off" in stored) == is_lost


async def test_the_key_is_sent_and_an_empty_one_does_no_harm(serve: Serve, connect: Connect) -> None:
    assert await connect(serve([HELLO], api_key=KEY)).ask(QUESTION) == Answer(HELLO.text)
    assert await connect(serve([HELLO]), api_key="").ask(QUESTION) == Answer(HELLO.text)
