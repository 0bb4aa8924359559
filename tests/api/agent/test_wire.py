"""What servers send instead of the protocol, over a real socket. The cases are those that public trackers report."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from typing import Any

import pytest

from moorage_api.agent.model.incoming.answers import Answer, AnswerLimits, RawCall
from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.servers.errors import LlmError
from moorage_api.agent.toolsets.function_schema import function, text
from moorage_api.outbound import Outbound
from support.llm import Body, Raw, Say, ScriptedModel, Status, Tries, Turn

KEY = "sk-very-secret"
QUESTION = [{"role": "user", "content": "Hello?"}]
TOOL = function("ls", "List", {"path": text("Where")})


async def ask(turn: Turn, **options: Any) -> tuple[Answer, ScriptedModel]:
    with ScriptedModel([turn]) as model:
        given: dict[str, Any] = {"backoff_seconds": 0.01, "outbound": Outbound(), "api_key": KEY} | options
        async with LlmClient(model.url, model="scripted", **given) as client:
            return await client.ask(QUESTION, tools=[TOOL], max_retries=1), model


async def refuse(turn: Turn, **options: Any) -> tuple[LlmError, int]:
    with ScriptedModel([turn]) as model:
        given: dict[str, Any] = {"backoff_seconds": 0.01, "outbound": Outbound(), "api_key": KEY} | options
        async with LlmClient(model.url, model="scripted", **given) as client:
            with pytest.raises(LlmError) as caught:
                await client.ask(QUESTION, tools=[TOOL], max_retries=1)
        return caught.value, len(model.requests)


def delta(content: str, *, end: str | None = None, **more: Any) -> str:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": end}
    return json.dumps({"choices": [choice]} | more, ensure_ascii=False)


HELLO = [delta("Grüß "), delta("dich 📄"), delta("", end="stop")]
TEXT = Answer("Grüß dich 📄")


def events(end: str = "\n", *, before: str = "", between: str = "") -> bytes:
    lines = [before, *(f"{between}data: {data}{end}{end}" for data in HELLO), f"data: [DONE]{end}{end}"]
    return "".join(lines).encode()


def single_bytes(data: bytes) -> Sequence[bytes]:
    return [data[place : place + 1] for place in range(len(data))]


DOCUMENT = json.dumps(
    {"choices": [{"message": {"role": "assistant", "content": TEXT.text}, "finish_reason": "stop"}]}, indent=1
).encode()

STREAMS: dict[str, Body] = {
    "as it should be": Body([events()]),
    "CRLF": Body([events("\r\n")]),
    "CR only": Body([events("\r")]),
    "CRLF in single bytes": Body(single_bytes(events("\r\n"))),
    "CR in single bytes": Body(single_bytes(events("\r"))),
    "borders inside of characters": Body(single_bytes(events())),
    "a byte order mark": Body([b"\xef\xbb\xbf" + events()]),
    "comments": Body([events(before=": hello\n\n", between=": OPENROUTER PROCESSING\n\n")]),
    "pings": Body([events(between='event: ping\ndata: {"type": "ping"}\n\n')]),
    "pings that are text": Body([events(between="event: ping\ndata: alive\n\n")]),
    "empty data": Body([events(between="data:\n\ndata: \n\ndata: null\n\n")]),
    "ids and retries": Body([events(between="id: 1\nretry: 3000\n")]),
    "no space": Body([events().replace(b"data: ", b"data:")]),
    "an event with a name": Body([events(between="event: message\n")]),
    "no end marker": Body([events().replace(b"data: [DONE]\n\n", b"")]),
    "an end marker in quotes": Body([events().replace(b"[DONE]", b'"[DONE]"')]),
    "no blank line at the end": Body([events().rstrip()]),
    "a huge comment": Body([b": " + b"x" * 3_000_000 + b"\n\n" + events()]),
    "choices that are null": Body([events(between='data: {"choices": null}\n\n')]),
    "usage in each chunk": Body(
        [events(between='data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}\n\n')]
    ),
    "another content type": Body([events()], content_type="application/json"),
    "no stream": Body([DOCUMENT], content_type="application/json"),
    "no stream and another content type": Body([DOCUMENT], content_type="text/plain"),
    "no stream in single bytes with a mark": Body(single_bytes(b"\xef\xbb\xbf" + DOCUMENT), content_type="text/json"),
}


@pytest.mark.parametrize("body", STREAMS.values(), ids=STREAMS.keys())
async def test_an_answer_is_read_however_its_bytes_come(body: Body) -> None:
    answer, model = await ask(body)
    assert answer == TEXT
    assert len(model.requests) == 1


def in_stream(document: object, *, name: str = "", before: Sequence[str] = ()) -> Body:
    head = f"event: {name}\n" if name else ""
    words = document if isinstance(document, str) else json.dumps(document)
    return Body(["".join([*(f"data: {data}\n\n" for data in before), f"{head}data: {words}\n\n"]).encode()])


SAID = "no GPU left"
ERRORS: dict[str, Turn] = {
    "at the beginning": in_stream({"error": {"message": SAID}}),
    "in the middle": in_stream({"error": {"message": SAID}}, before=HELLO[:1]),
    "behind a reason": in_stream({"error": {"message": SAID}}, before=HELLO),
    "a text as error": in_stream({"error": SAID}),
    "a list": in_stream([{"error": {"code": 503, "message": SAID}}]),
    "vLLM": in_stream({"object": "error", "message": SAID, "type": "InternalServerError", "code": 500}),
    "Anthropic": in_stream({"type": "error", "error": {"type": "overloaded_error", "message": SAID}}, name="error"),
    "an event error with plain text": in_stream(SAID, name="error"),
    "an event error without the key": in_stream({"message": SAID}, name="error"),
    "a detail": in_stream({"detail": SAID}),
    "MiniMax": in_stream({"choices": None, "base_resp": {"status_code": 1000, "status_msg": SAID}}),
    "in the choice": in_stream({"choices": [{"delta": {}, "error": {"message": SAID, "code": 502}}]}),
    "OpenRouter": in_stream(
        {"error": {"code": 502, "message": SAID}, "choices": [{"delta": {}, "finish_reason": "error"}]},
        before=HELLO[:1],
    ),
    "a document": Status(200, {"error": {"message": SAID}}),
    "a document without the key": Status(200, {"code": "rate_limit_daily", "message": SAID}),
    "a document without choices": Status(200, {"id": "x", "choices": [], "note": SAID}),
    "a page": Body([f"<html><body>\n<h1>{SAID}</h1>\n</body></html>".encode()], content_type="text/html"),
    "plain text": Body([SAID.encode()], content_type="text/plain"),
    "another text in the stream": in_stream(SAID),
}


@pytest.mark.parametrize("turn", ERRORS.values(), ids=ERRORS.keys())
async def test_an_error_with_the_status_200_is_an_error_in_the_servers_words(turn: Turn) -> None:
    error, requests = await refuse(turn)
    assert SAID in str(error)
    assert requests == 2


AT_ONCE: dict[str, tuple[dict[str, Any], str]] = {
    "a bad request": ({"type": "invalid_request_error", "message": "bad messages"}, "llm_refused"),
    "a number": ({"code": 400, "message": "bad messages"}, "llm_refused"),
    "a number as text": ({"code": "400", "message": "bad messages"}, "llm_refused"),
    "a wrong key": ({"code": "invalid_api_key", "message": f"Incorrect key {KEY}"}, "llm_unauthorized"),
    "no credit": ({"code": "insufficient_quota", "message": "You have no quota"}, "llm_unauthorized"),
    "no such model": ({"type": "not_found_error", "message": "no model x"}, "llm_not_found"),
}


@pytest.mark.parametrize(("document", "code"), AT_ONCE.values(), ids=AT_ONCE.keys())
async def test_an_error_in_a_stream_that_a_retry_cannot_help_is_raised_at_once(
    document: dict[str, Any], code: str
) -> None:
    error, requests = await refuse(in_stream({"error": document}), patience_seconds=3_600)
    assert error.code == code
    assert document["message"].split()[0] in str(error)
    assert KEY not in str(error)
    assert requests == 1


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529])
async def test_trouble_that_passes_is_tried_again(status: int) -> None:
    answer, model = await ask(Tries(Status(status, "<html><h1>Bad gateway</h1></html>"), Say("Hi")))
    assert answer == Answer("Hi")
    assert len(model.requests) == 2


DOCUMENTS: dict[str, object] = {
    "an object": {"error": {"message": SAID}},
    "a list": [{"error": {"message": SAID, "status": "DENIED"}}],
    "a text": {"error": SAID},
    "a detail": {"detail": SAID},
    "errors": {"errors": [{"message": SAID}]},
    "raw": {"error": {"message": "Provider returned error", "metadata": {"raw": json.dumps({"message": SAID})}}},
    "a page": f"<html><head><title>x</title></head><body><p>{SAID}</p></body></html>",
    "plain text": SAID,
}


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 422])
@pytest.mark.parametrize("body", DOCUMENTS.values(), ids=DOCUMENTS.keys())
async def test_the_user_reads_the_servers_own_words(status: int, body: object) -> None:
    error, requests = await refuse(Status(status, body), patience_seconds=3_600)
    assert SAID in str(error)
    assert requests == 1


REASONS = ["error", "network_error", "insufficient_system_resource", "abort", "MALFORMED_FUNCTION_CALL"]


@pytest.mark.parametrize("reason", [*REASONS, "function_call_filter: MALFORMED_FUNCTION_CALL"])
async def test_an_answer_that_its_server_broke_off_is_asked_for_again_once(reason: str) -> None:
    broken = Raw([delta("Half"), delta("", end=reason), "[DONE]"])
    answer, model = await ask(Tries(broken, Say("Whole")))
    assert answer == Answer("Whole")
    assert len(model.requests) == 2
    error, requests = await refuse(broken, patience_seconds=3_600)
    assert reason.lower() in str(error)
    assert requests == 2


ENDS: dict[str, tuple[bool, bool]] = {
    "stop": (False, False),
    "end_turn": (False, False),
    "eos_token": (False, False),
    "something_new": (False, False),
    "length": (True, False),
    "MAX_TOKENS": (True, False),
    "content_filter": (False, True),
    "SAFETY": (False, True),
    "sensitive": (False, True),
    "refusal": (False, True),
}


@pytest.mark.parametrize(("reason", "ends"), ENDS.items(), ids=ENDS.keys())
async def test_the_reason_says_whether_an_answer_is_whole(reason: str, ends: tuple[bool, bool]) -> None:
    answer, _ = await ask(Raw([delta("Hi"), delta("", end=reason)]))
    assert answer.text == "Hi"
    assert (answer.is_cut, answer.is_filtered) == ends


@pytest.mark.parametrize("wait", [{"Retry-After": "86400"}, {"retry-after-ms": "86400000"}])
async def test_a_wait_that_is_too_long_ends_in_words_at_once(wait: dict[str, str]) -> None:
    error, requests = await refuse(Status(429, {"error": {"message": "daily limit"}}, wait), patience_seconds=300)
    assert requests == 1
    assert error.code == "llm_rate_limited"
    assert "daily limit" in str(error)
    assert "asks to wait 24 h: send a message again after 20" in str(error)


async def test_a_server_that_asks_for_no_wait_again_and_again_is_not_hammered() -> None:
    waits: list[float] = []

    async def on_wait(_: str, seconds: float) -> None:
        waits.append(seconds)

    busy = Status(429, {"error": {"message": "slow"}}, {"Retry-After": "0"})
    with ScriptedModel([Tries(*[busy] * 5, Say("Hi"))]) as model:
        async with LlmClient(
            model.url, KEY, "scripted", outbound=Outbound(), backoff_seconds=0.02, patience_seconds=60
        ) as client:
            await client.ask(QUESTION, max_retries=1, on_wait=on_wait)
    assert waits[:2] == [0, 0]
    assert all(seconds > 0.02 for seconds in waits[2:])


async def test_a_compressed_answer_that_was_not_asked_for_is_explained() -> None:
    error, _ = await refuse(Body([gzip.compress(events())], headers={"Content-Encoding": "gzip"}))
    assert "compressed (gzip), but we asked for identity" in str(error)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_a_number_that_is_no_json_does_not_end_the_session(number: str) -> None:
    body = Raw([f'{{"choices": [{{"delta": {{"content": "Hi", "score": {number}, "n": [{number}, 1]}}}}]}}', HELLO[2]])
    answer, _ = await ask(body)
    assert json.loads(answer.foreign) == {"n": [None, 1]}


async def test_a_document_that_is_too_deep_is_an_error_in_words() -> None:
    error, _ = await refuse(Raw([f'{{"choices": [{{"delta": {{"x": {"[" * 900}{"]" * 900}}}}}]}}', HELLO[2]]))
    assert "not a chat completion" in str(error)


def parts(*deltas: dict[str, Any], end: str | None = None) -> list[str]:
    """Chunks. With `end`, a chunk with this reason follows each of them, as some gateways send it."""
    chunks = []
    for given in deltas:
        chunks.append(json.dumps({"choices": [{"index": 0, "delta": given, "finish_reason": None}]}))
        if end is not None:
            chunks.append(delta("", end=end))
    return chunks


CALL_PARTS: list[dict[str, Any]] = [
    {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "ls", "arguments": ""}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"path": '}}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"/home"}'}}]},
]
CALL = RawCall("ls", '{"path": "/home"}')


async def test_a_reason_behind_each_part_is_not_the_end_of_the_answer() -> None:
    """Some gateways send it (1jehuang/jcode#1326). There only the mark says that the answer is whole."""
    answer, model = await ask(Raw([*parts(*CALL_PARTS, end="stop"), "[DONE]"]))
    assert (answer.calls, len(model.requests)) == ((CALL,), 1)
    cut = Raw(parts(*CALL_PARTS[:2], end="stop"))
    answer, model = await ask(Tries(cut, Say("Whole")))
    assert (answer.text, len(model.requests)) == ("Whole", 2)


async def test_a_second_reason_does_not_remove_the_calls() -> None:
    """RayBytes/ChatMock#114."""
    answer, _ = await ask(Raw([*parts(*CALL_PARTS), delta("", end="tool_calls"), delta("", end="stop"), "[DONE]"]))
    assert answer.calls == (CALL,)


async def test_calls_that_come_only_in_the_message_at_the_end_are_read() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "ls", "arguments": '{"path": "/home"}'}}
    message = {"role": "assistant", "content": "I look.", "tool_calls": [call]}
    last = {"choices": [{"index": 0, "delta": {}, "message": message, "finish_reason": "tool_calls"}]}
    answer, _ = await ask(Raw([delta("I look."), last, "[DONE]"]))
    assert (answer.text, answer.calls) == ("I look.", (CALL,))


UNREAD: dict[str, tuple[int, object]] = {
    # gryszzz/open-thymos#97, tashfeenahmed/freellmapi#291
    "Groq": (
        400,
        {
            "error": {
                "message": "Failed to call a function. Please adjust your prompt. See 'failed_generation'.",
                "type": "invalid_request_error",
                "code": "tool_use_failed",
                "failed_generation": '<function=ls={"path": "/home"}</function>',
            }
        },
    ),
    # ollama/ollama#17638
    "Ollama": (500, {"error": {"message": 'error parsing tool call: raw=\'{"path": "/"}]\', err=invalid character'}}),
    "Ollama in a stream": (0, {"error": "error parsing tool call: raw='{', err=unexpected end of JSON input"}),
    "llama.cpp": (500, {"error": {"code": 500, "message": "Failed to parse input at pos 48: <tool_call>"}}),
}


@pytest.mark.parametrize(("status", "document"), UNREAD.values(), ids=UNREAD.keys())
async def test_a_call_that_its_own_server_cannot_read_is_asked_for_again_once(status: int, document: object) -> None:
    """Then it is an answer without a call, so that the model learns what was wrong."""
    refusal: Turn = Status(status, document) if status else Raw([delta("I look. "), document])
    answer, model = await ask(Tries(refusal, Say("Whole")))
    assert (answer.text, len(model.requests)) == ("Whole", 2)
    answer, model = await ask(refusal, patience_seconds=3_600)
    assert (answer.calls, answer.lacks_call, len(model.requests)) == ((), True, 2)


ENDLESS: dict[str, tuple[dict[str, Any], ...]] = {
    # NousResearch/hermes-agent#100716 and #94224
    "text": ({"content": "I look again. "},),
    "thoughts": ({"reasoning_content": "!"},),
    "thoughts of three sentences": tuple({"reasoning": f"Thought {number}. "} for number in range(3)),
    # cloudrift-ai/emmy#819
    "blank arguments": (CALL_PARTS[0], *[{"tool_calls": [{"index": 0, "function": {"arguments": "\n" * 50}}]}] * 99),
}


@pytest.mark.parametrize("turn", ENDLESS.values(), ids=ENDLESS.keys())
async def test_an_answer_without_end_is_stopped_and_asked_for_again_once(turn: Sequence[dict[str, Any]]) -> None:
    endless = Raw([*parts(*turn) * 3_000, delta("", end="stop"), "[DONE]"])
    limits = AnswerLimits(max_repeated_chars=2_000)
    answer, model = await ask(Tries(endless, Say("Whole")), answer_limits=limits)
    assert (answer.text, len(model.requests)) == ("Whole", 2)
    error, requests = await refuse(endless, answer_limits=limits, patience_seconds=3_600)
    assert (error.code, requests) == ("llm_failed", 2)
    assert "was stopped: it " in str(error)
    assert "MOORAGE_LLM_REPEATED_CHARS" in str(error)


async def test_a_file_of_equal_lines_is_no_endless_answer() -> None:
    content = json.dumps({"path": "0\n" * 20_000})
    call = {"index": 0, "id": "a", "type": "function", "function": {"name": "ls", "arguments": ""}}
    pieces = [
        {"tool_calls": [call | {"function": {"arguments": content[at : at + 500]}}]}
        for at in range(0, len(content), 500)
    ]
    answer, model = await ask(
        Raw([*parts({"tool_calls": [call]}, *pieces), delta("", end="tool_calls"), "[DONE]"]),
        answer_limits=AnswerLimits(max_repeated_chars=2_000),
    )
    assert (answer.calls[0].arguments, len(model.requests)) == (content, 1)


async def test_an_answer_that_is_too_long_names_the_setting() -> None:
    error, requests = await refuse(Say("".join(map(str, range(9_000)))), answer_limits=AnswerLimits(max_chars=10_000))
    assert "was stopped: it is longer than 10000 characters (MOORAGE_LLM_ANSWER_CHARS)" in str(error)
    assert requests == 2
