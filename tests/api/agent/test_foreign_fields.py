"""Fields that only a model understands: collected from its chunks, stored, and given back to that model only."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moorage_api.agent.messages import call_message, tool_message, user_message
from moorage_api.agent.model.incoming import foreign
from moorage_api.agent.model.incoming.answers import AnswerBuilder, BadStreamError
from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.state import OpenCall
from moorage_api.outbound import Outbound
from support.agent import Bench, shell_output
from support.llm import Raw, Request, Say, ScriptedModel, Turn, wish

SIGNATURE = {"google": {"thought_signature": "AbC+/=="}}
SHELL = {"session_id": "main", "exec_dir": "/home/ubuntu", "command": "ls"}


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields}]}


def thinking(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text} | more


def detail(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "reasoning.text", "text": text, "index": 0, "format": "anthropic-claude-v1"} | more


MESSAGE_FIELDS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "texts are concatenated": (
        [delta(reasoning_content="I "), delta(reasoning_content="think", content=None), delta(reasoning_content=None)],
        {"reasoning_content": "I think"},
    ),
    "an empty text stays": ([delta(reasoning_content=""), delta(content="Hi")], {"reasoning_content": ""}),
    "a repeated piece is not lost": ([delta(reasoning="ha"), delta(reasoning="ha")], {"reasoning": "haha"}),
    "an emoji cut in two is joined": ([delta(reasoning="\ud83d"), delta(reasoning="\udcc4")], {"reasoning": "📄"}),
    "items with an index": (
        [
            delta(reasoning_details=[detail("I ")]),
            delta(reasoning_details=[detail("think")]),
            delta(reasoning_details=[{"type": "reasoning.text", "signature": "sig", "index": 0}]),
            delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "xyz", "id": "t1", "index": 0}]),
        ],
        {
            "reasoning_details": [
                detail("I think", signature="sig"),
                {"type": "reasoning.encrypted", "data": "xyz", "id": "t1", "index": 0},
            ]
        },
    ),
    "thinking blocks without an index": (
        [
            delta(thinking_blocks=[thinking("I ", signature=None)]),
            delta(thinking_blocks=[thinking("think", signature=None)]),
            delta(thinking_blocks=[thinking("", signature="sig1")]),
            delta(thinking_blocks=[thinking("", signature="sig2")]),
            delta(thinking_blocks=[{"type": "redacted_thinking", "data": "r1"}]),
            delta(thinking_blocks=[{"type": "redacted_thinking", "data": "r2"}]),
        ],
        {
            "thinking_blocks": [
                thinking("I think", signature="sig1"),
                thinking("", signature="sig2"),
                {"type": "redacted_thinking", "data": "r1"},
                {"type": "redacted_thinking", "data": "r2"},
            ]
        },
    ),
    "a whole list is not merged with itself": (
        [{"choices": [{"message": {"content": "Hi", "thinking_blocks": [thinking("a"), thinking("b")]}}]}],
        {"thinking_blocks": [thinking("a"), thinking("b")]},
    ),
    "opaque texts that are repeated": (
        [delta(reasoning_opaque="abc", reasoning_id="r1"), delta(reasoning_opaque="abc", reasoning_id="r1")],
        {"reasoning_opaque": "abc", "reasoning_id": "r1"},
    ),
    "a whole list that is repeated": (
        [delta(reasoning_details=[detail("I think", signature="s")]) for _ in range(2)],
        {"reasoning_details": [detail("I think", signature="s")]},
    ),
    "blocks that are repeated at the end": (
        [
            delta(thinking_blocks=[thinking("I ")]),
            delta(thinking_blocks=[thinking("think", signature="s")]),
            delta(thinking_blocks=[thinking("I think", signature="s")]),
        ],
        {"thinking_blocks": [thinking("I think", signature="s")]},
    ),
    "behind the reason": (
        [
            {"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]},
            delta(extra_content=SIGNATURE),
            {"choices": [], "usage": {}},
        ],
        {"extra_content": SIGNATURE},
    ),
    "nothing between the pieces": (
        [delta(reasoning="I "), delta(reasoning=None), delta(), delta(reasoning="think")],
        {"reasoning": "I think"},
    ),
    "items with two indexes": (
        [
            delta(reasoning_details=[detail("a"), detail("x") | {"index": 1}]),
            delta(reasoning_details=[detail("y") | {"index": 1}]),
            delta(reasoning_details=[detail("b")]),
        ],
        {"reasoning_details": [detail("ab"), detail("xy") | {"index": 1}]},
    ),
    "the state of a phase": ([delta(phase="begin", status="a"), delta(phase="end")], {"phase": "end", "status": "a"}),
    "objects are merged and scalars replaced": (
        [delta(extra={"a": {"b": 1}, "n": 1.0}), delta(extra={"a": {"c": [True, None]}, "n": 2.5})],
        {"extra": {"a": {"b": 1, "c": [True, None]}, "n": 2.5}},
    ),
    "content parts that are no text": (
        [
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "I "}]}]),
            delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "think"}]}]),
            delta(content="Hi "),
            delta(content="you"),
        ],
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "I think"}]},
                {"type": "text", "text": "Hi you"},
            ]
        },
    ),
}


@pytest.mark.parametrize(("chunks", "fields"), MESSAGE_FIELDS.values(), ids=MESSAGE_FIELDS.keys())
def test_the_fields_of_a_message_are_collected(chunks: list[dict[str, Any]], fields: dict[str, Any]) -> None:
    builder = AnswerBuilder()
    for chunk in chunks:
        builder.feed(chunk)
    builder.answer()
    assert json.loads(builder.answer().foreign) == fields


def part(**fields: Any) -> dict[str, Any]:
    return delta(tool_calls=[fields])


LS = {"name": "ls", "arguments": "{}"}
CALL_FIELDS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "with the call": ([part(index=0, id="a", function=LS, extra_content=SIGNATURE)], {"extra_content": SIGNATURE}),
    "behind the call, without an index": (
        [part(index=0, id="a", function=LS), part(extra_content=SIGNATURE)],
        {"extra_content": SIGNATURE},
    ),
    "behind the call, with its index only": (
        [part(index=0, id="a", function=LS), part(index=0, extra_content=SIGNATURE)],
        {"extra_content": SIGNATURE},
    ),
    "repeated with each chunk": (
        [part(index=0, id="a", function=LS, extra_content=SIGNATURE), part(index=0, extra_content=SIGNATURE)],
        {"extra_content": SIGNATURE},
    ),
    "in the function": (
        [part(index=0, id="a", function=LS | {"provider_specific_fields": {"thought_signature": "s"}})],
        {"function": {"provider_specific_fields": {"thought_signature": "s"}}},
    ),
    "in pieces in the function": (
        [
            part(index=0, id="a", function=LS | {"thoughts": "I "}),
            part(index=0, function={"thoughts": "think", "arguments": ""}),
        ],
        {"function": {"thoughts": "I think"}},
    ),
    "as a list with indexes": (
        [
            part(index=0, id="a", function=LS, reasoning_details=[detail("I ")]),
            part(index=0, reasoning_details=[detail("think", signature="s")]),
        ],
        {"reasoning_details": [detail("I think", signature="s")]},
    ),
    "in the id": ([part(index=0, id="call_1__thought__c2ln", function=LS)], {"id": "call_1__thought__c2ln"}),
}


@pytest.mark.parametrize(("chunks", "fields"), CALL_FIELDS.values(), ids=CALL_FIELDS.keys())
def test_the_fields_of_a_call_are_collected(chunks: list[dict[str, Any]], fields: dict[str, Any]) -> None:
    builder = AnswerBuilder()
    for chunk in chunks:
        builder.feed(chunk)
    (call,) = builder.answer().calls
    assert json.loads(call.foreign) == fields


def test_endless_reasoning_is_refused() -> None:
    with pytest.raises(BadStreamError):
        AnswerBuilder().feed(delta(reasoning="x" * 4_000_001))


def test_a_call_gets_its_own_id_back_and_so_does_its_result() -> None:
    call = OpenCall(number=1, function="ls")
    raw_fields = json.dumps({"id": "call_1__thought__c2ln"})
    builder = AnswerBuilder()
    builder.feed(part(index=0, id="a", function=LS))
    message = call_message("", [call], builder.answer().calls)
    stored = [
        foreign.attach(message, "m", text="", fields="", calls=[raw_fields]),
        tool_message(call, "files"),
        user_message("Thanks"),
    ]
    message, result, _ = foreign.restore(stored, "m")
    assert message["tool_calls"][0]["id"] == result["tool_call_id"] == "call_1__thought__c2ln"
    message, result, _ = foreign.restore(stored, "another")
    assert message["tool_calls"][0]["id"] == result["tool_call_id"] == call.id


PARTED = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "Hi\n"}]


def test_the_parts_of_an_answer_come_back_although_its_text_was_trimmed() -> None:
    message = {"role": "assistant", "content": "Hi"}
    stored = foreign.attach(message, "m", text="Hi\n", fields=json.dumps({"content": PARTED}))
    assert foreign.restore([stored], "m") == [{"role": "assistant", "content": PARTED}]
    assert foreign.restore([stored], "another") == [message]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(
    st.text(min_size=1, max_size=12).filter(lambda key: key not in {"role", "content", "tool_calls", "tool_call_id"}),
    JSON_VALUES.filter(lambda value: value is not None),
    max_size=4,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(fields=FIELDS)
def test_any_fields_of_a_whole_message_come_back_byte_for_byte_to_their_model_only(fields: dict[str, Any]) -> None:
    builder = AnswerBuilder()
    builder.feed({"choices": [{"message": {"content": "Hi"} | fields, "finish_reason": "stop"}]})
    message = {"role": "assistant", "content": "Hi"}
    stored = foreign.attach(message, "mine", text="Hi", fields=builder.answer().foreign)
    stored = json.loads(json.dumps(stored, sort_keys=True))  # jsonb sorts keys, too
    (restored,) = foreign.restore([stored], "mine")
    assert {key: json.dumps(value) for key, value in restored.items() if key not in message} == {
        key: json.dumps(value) for key, value in fields.items()
    }
    assert foreign.restore([stored], "another") == [message]


def thinking_turn(name: str, arguments: dict[str, Any], number: int) -> Raw:
    """An answer with fields of its own on the message and, behind the arguments, on the call."""
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return Raw(
        [
            delta(role="assistant", reasoning_content=f"Thought {number} "),
            delta(reasoning_content="goes on.\x00\ud83d"),
            delta(reasoning_content="\udcc4", tool_calls=[call]),
            delta(tool_calls=[{"extra_content": {"google": {"thought_signature": f"sig{number}"}}}]),
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
            "[DONE]",
        ]
    )


def check_fields(request: Request) -> list[int]:
    """The numbers of the answers whose fields are in the request, unchanged."""
    numbers = []
    for message in request["messages"]:
        for call in message.get("tool_calls", ()):
            number = int(call["extra_content"]["google"]["thought_signature"].removeprefix("sig"))
            assert message["reasoning_content"] == f"Thought {number} goes on.\x00📄"
            numbers.append(number)
    return numbers


class ThinkingModel:
    """Plans, runs commands, and finishes. It counts its answers itself, as the transcript may be shortened."""

    def __init__(self, commands: int) -> None:
        self.answers = 0
        self.commands = commands

    def __call__(self, request: Request) -> Turn:
        if wish(request) == "text":
            return Say("Done", reasoning="End.")
        self.answers += 1
        if wish(request) == "make_plan":
            return thinking_turn("make_plan", {"title": "T", "message": "M", "steps": ["a"]}, 1)
        if self.answers <= self.commands + 1:
            return thinking_turn("shell_execute", SHELL | {"command": f"ls {self.answers}"}, self.answers)
        return thinking_turn("finish_step", {"success": True, "result": "r", "attachments": []}, self.answers)


async def test_each_request_holds_the_fields_of_all_earlier_answers_and_another_model_gets_none() -> None:
    with ScriptedModel(ThinkingModel(3)) as model:
        bench = Bench(model)
        bench.log.say("Go")
        await bench.run()
        for place, request in enumerate(model.requests):
            assert check_fields(request) == list(range(1, place + 1))
        first_of_another = len(model.requests)
        bench.log.say("And now?")
        async with LlmClient(model.url, "", "another", outbound=Outbound()) as other:
            await bench.run(llm=other)
        words = json.dumps(model.requests[first_of_another])
        assert "Thought" not in words
        assert "sig" not in words
        assert "ls 2" in words
        assert foreign.STORED not in json.dumps(model.requests)
    assert bench.log.types()[-1] == "done"


async def test_messages_that_a_small_window_keeps_also_keep_their_fields() -> None:
    with ScriptedModel(ThinkingModel(30)) as model:
        bench = Bench(model, context_tokens=12_000)
        bench.gate.answer = lambda _function, _args: shell_output("x" * 4_000)
        bench.log.say("Go")
        await bench.run()
        kept = [check_fields(request) for request in model.requests]
    assert bench.log.types()[-1] == "done"
    assert any(len(numbers) < place for place, numbers in enumerate(kept)), "the window was too large for this test"
