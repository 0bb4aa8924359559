"""Answers built from stream chunks, in the many forms that servers send."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_api.agent.model.incoming.answers import (
    Answer,
    AnswerBuilder,
    BadStreamError,
    RawCall,
    calls_in_text,
    objects_in,
    parse_object,
)


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields}]}


def part(arguments: Any = None, *, index: Any = 0, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"index": index, "id": id, "function": function}


TWO = (RawCall("ls", '{"a": 1}'), RawCall("cat", '{"b": 2}'))

CASES: dict[str, tuple[list[Any], Answer]] = {
    "text": ([delta(role="assistant", content=""), delta(content="Hel"), delta(content="lo")], Answer("Hello")),
    "null content": ([delta(content=None), delta(content="Hi"), delta()], Answer("Hi")),
    "content parts": ([delta(content=[{"type": "text", "text": "Hi"}])], Answer("Hi")),
    "no choices": ([{"choices": []}, {"usage": {}}, delta(content="Hi"), {"choices": None}], Answer("Hi")),
    "null delta": ([{"choices": [{"delta": None}]}, delta(content="Hi")], Answer("Hi")),
    "reasoning is no text": (
        [delta(reasoning_content="hm"), delta(content="Hi")],
        Answer("Hi", foreign='{"reasoning_content": "hm"}'),
    ),
    "thoughts in the text": ([delta(content="<thi"), delta(content="nk>hm</think>\n\nHi")], Answer("Hi")),
    "thoughts without end": ([delta(content="<think>hm")], Answer("")),
    "arguments in pieces": (
        [
            delta(tool_calls=[part("", id="x", name="ls")]),
            delta(tool_calls=[part('{"a"')]),
            delta(tool_calls=[part(": 1}")]),
        ],
        Answer("", TWO[:1]),
    ),
    "two calls, interleaved": (
        [
            delta(tool_calls=[part('{"a"', id="x", name="ls"), part("", index=1, id="y", name="cat")]),
            delta(tool_calls=[part('{"b": 2}', index=1), part(": 1}")]),
        ],
        Answer("", TWO),
    ),
    "one id for two calls": (
        [
            delta(tool_calls=[part('{"a": 1}', id="same", name="ls")]),
            delta(tool_calls=[part('{"b": 2}', index=1, id="same", name="cat")]),
        ],
        Answer("", TWO),
    ),
    "one index for two calls": (
        [
            delta(tool_calls=[part('{"a": 1}', id="x", name="ls")]),
            delta(tool_calls=[part('{"b": 2}', id="y", name="cat")]),
        ],
        Answer("", TWO),
    ),
    "no index": (
        [
            delta(tool_calls=[part('{"a"', index=None, id="x", name="ls")]),
            delta(tool_calls=[part(": 1}", index=None)]),
            delta(tool_calls=[part('{"b": 2}', index=None, id="y", name="cat")]),
        ],
        Answer("", TWO),
    ),
    "id and name repeated": (
        [
            delta(tool_calls=[part('{"a"', id="x", name="ls")]),
            delta(tool_calls=[part(": 1}", id="x", name="ls")]),
        ],
        Answer("", TWO[:1]),
    ),
    "arguments as an object": ([delta(tool_calls=[part({"a": 1}, id="x", name="ls")])], Answer("", TWO[:1])),
    "a call without a name": ([delta(tool_calls=[part("{}")])], Answer("")),
    "a whole message": ([{"choices": [{"message": {"content": "Hi"}}]}], Answer("Hi")),
    "an emoji cut in two": ([delta(content="Hi \ud83d"), delta(content="\udcc4!")], Answer("Hi \N{PAGE FACING UP}!")),
    "half an emoji": ([delta(content="Hi \ud83d")], Answer("Hi \N{REPLACEMENT CHARACTER}")),
    "cut": ([delta(content="Hi"), {"choices": [{"delta": {}, "finish_reason": "length"}]}], Answer("Hi", (), True)),
}


@pytest.mark.parametrize(("chunks", "answer"), CASES.values(), ids=CASES.keys())
def test_chunks_become_an_answer(chunks: list[Any], answer: Answer) -> None:
    builder = AnswerBuilder()
    for chunk in chunks:
        builder.feed(chunk)
    assert builder.answer() == answer


@pytest.mark.parametrize(
    "chunk",
    [
        42,
        "text",
        None,
        {"choices": ["x"]},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"delta": {"content": 5}}]},
        {"choices": [{"delta": {"tool_calls": ["x"]}}]},
        {"choices": [{"delta": {"tool_calls": [{"function": "x"}]}}]},
        {"choices": [{"delta": {"content": "x" * 4_000_001}}]},
    ],
)
def test_an_invalid_chunk_is_refused(chunk: object) -> None:
    with pytest.raises(BadStreamError):
        AnswerBuilder().feed(chunk)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("  ", {}),
        ('{"a": 1}', {"a": 1}),
        ('{"a": "line\nbreak"}', {"a": "line\nbreak"}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('{"a": 1', None),
        ("[1]", None),
        ("null", None),
        ("[" * 100_000, None),
        ('{"a":' * 60 + "1" + "}" * 60, None),
        ('{"a": NaN}', None),
        ('{"a": -Infinity}', None),
        ('{"a": 1e999}', None),
        ('{"a": 1.5}', {"a": 1.5}),
        ('{"\\ud83d\\udcc4": ["\\ud83d"]}', {"\N{PAGE FACING UP}": ["\N{REPLACEMENT CHARACTER}"]}),
    ],
)
def test_arguments_are_parsed_or_refused(text: str, value: object) -> None:
    assert parse_object(text) == value


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "ls", "arguments": {"a": 1}}',
        '{"function": {"name": "ls", "arguments": "{\\"a\\": 1}"}}',
        '{"function": "ls", "args": {"a": 1}}',
        '```json\n{"name": "ls", "parameters": {"a": 1}}\n```',
        '[{"name": "ls", "arguments": {"a": 1}}]',
        '<tool_call>\n{"name": "ls", "arguments": {"a": 1}}\n</tool_call>',
        '<tool_call>{"name": "ls", "arguments": {"a": 1}}',
    ],
)
def test_a_call_left_in_the_text_is_found(text: str) -> None:
    assert calls_in_text(text, {"ls"}) == (RawCall("ls", '{"a": 1}'),)


QUOTED = [
    'I will look.\n```json\n{"name": "ls", "parameters": {"a": 1}}\n```',
    'The page says:\n<tool_call>{"name": "ls", "arguments": {"a": 1}}</tool_call>',
    '<tool_call>{"name": "ls", "arguments": {"a": 1}}</tool_call>\nThat is what the page says.',
    '[{"name": "ls", "arguments": {}}, {"name": "rm", "arguments": {}}]',
    '```json\n{"name": "ls"}\n```\nand\n```json\n{"name": "ls"}\n```',
]


@pytest.mark.parametrize("text", QUOTED)
def test_a_text_that_quotes_a_call_stays_text(text: str) -> None:
    assert calls_in_text(text, {"ls"}) == ()


@pytest.mark.parametrize("text", ["Hello", '{"name": "rm"}', '{"steps": []}', "```json\nnot json\n```", '{"name": 5}'])
def test_text_without_a_call_stays_text(text: str) -> None:
    assert calls_in_text(text, {"ls"}) == ()


def test_json_objects_are_found_as_the_whole_text_or_in_code_blocks() -> None:
    assert list(objects_in(' {"a": 1} ')) == [{"a": 1}]
    assert list(objects_in('Here:\n```json\n{"a": 1}\n```\nDone.')) == [{"a": 1}]
    assert list(objects_in('I wrote {"a": 1} there.')) == []
