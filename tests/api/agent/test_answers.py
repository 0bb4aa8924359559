"""Answers built from stream chunks, in the many forms that servers send."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_api.agent.model.incoming import foreign
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

REFUSAL = '{"refusal": "I cannot"}'
PARTS = '{"content": [{"type": "text", "text": "H"}, {"type": "output_text", "text": "i"}]}'

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
    "a tail at another index": (
        [
            delta(tool_calls=[part('{"a": 1}', id="x", name="ls")]),
            delta(tool_calls=[part('{"b"', id="y", name="cat")]),
            delta(tool_calls=[part(": 2}", index=1)]),
        ],
        Answer("", TWO),
    ),
    "an index that grows with each chunk": (
        [
            delta(tool_calls=[part('{"a"', id="x", name="ls")]),
            delta(tool_calls=[part(": ", index=1)]),
            delta(tool_calls=[part("1}", index=2)]),
        ],
        Answer("", TWO[:1]),
    ),
    "a new id with each chunk": (
        [
            delta(tool_calls=[part("", id="a", name="ls")]),
            delta(tool_calls=[part('{"a"', id="b")]),
            delta(tool_calls=[part(": 1}", id="c")]),
            delta(tool_calls=[part('{"b": 2}', index=1, id="d", name="cat")]),
        ],
        Answer("", TWO),
    ),
    "neither index nor id, in one chunk": (
        [delta(tool_calls=[part('{"a": 1}', index=None, name="ls"), part('{"b": 2}', index=None, name="cat")])],
        Answer("", TWO),
    ),
    "neither index nor id, chunk by chunk": (
        [
            delta(tool_calls=[part('{"a"', index=None, name="ls")]),
            delta(tool_calls=[part(": 1}", index=None)]),
            delta(tool_calls=[part('{"b": 2}', index=None, name="cat")]),
        ],
        Answer("", TWO),
    ),
    "the same function twice without index and id": (
        [delta(tool_calls=[part(f'{{"a": {number}}}', index=None, name="ls")]) for number in (1, 2)],
        Answer("", (TWO[0], RawCall("ls", '{"a": 2}'))),
    ),
    "ids without an index, interleaved": (
        [
            delta(tool_calls=[part('{"a"', index=None, id="x", name="ls")]),
            delta(tool_calls=[part('{"b"', index=None, id="y", name="cat")]),
            delta(tool_calls=[part(": 1}", index=None, id="x")]),
            delta(tool_calls=[part(": 2}", index=None, id="y")]),
        ],
        Answer("", TWO),
    ),
    "an empty id": ([delta(tool_calls=[part('{"a": 1}', id="", name="ls")])], Answer("", TWO[:1])),
    "an id in a later chunk": (
        [delta(tool_calls=[part("", name="ls")]), delta(tool_calls=[part('{"a": 1}', id="x")])],
        Answer("", TWO[:1]),
    ),
    "the name in a later chunk": (
        [delta(tool_calls=[part('{"a"', id="x")]), delta(tool_calls=[part(": 1}", name="ls")])],
        Answer("", TWO[:1]),
    ),
    "an index that is text": (
        [
            delta(tool_calls=[part('{"a": 1}', index="0", name="ls")]),
            delta(tool_calls=[part('{"b": 2}', index="1", name="cat")]),
        ],
        Answer("", TWO),
    ),
    "the name in pieces": (
        [delta(tool_calls=[part("", name="l")]), delta(tool_calls=[part('{"a": 1}', name="s")])],
        Answer("", TWO[:1]),
    ),
    "the name longer with each chunk": (
        [delta(tool_calls=[part("", name="l")]), delta(tool_calls=[part('{"a": 1}', name="ls")])],
        Answer("", TWO[:1]),
    ),
    "arguments behind an empty object": (
        [
            delta(tool_calls=[part("{}", id="x", name="ls")]),
            delta(tool_calls=[part('{"a"')]),
            delta(tool_calls=[part(": 1}")]),
        ],
        Answer("", TWO[:1]),
    ),
    "arguments that come again as a whole": (
        [
            delta(tool_calls=[part('{"a"', id="x", name="ls")]),
            delta(tool_calls=[part(": 1}")]),
            delta(tool_calls=[part('{"a": 1}', id="x", name="ls")]),
        ],
        Answer("", TWO[:1]),
    ),
    "arguments that are longer with each chunk": (
        [delta(tool_calls=[part(text, name="ls")]) for text in ('{"a"', '{"a": ', '{"a": 1}')],
        Answer("", TWO[:1]),
    ),
    "arguments of two calls in one": (
        [delta(tool_calls=[part('{"a": 1}', name="ls")]), delta(tool_calls=[part('{"a": 2}')])],
        Answer("", (TWO[0], RawCall("ls", '{"a": 2}'))),
    ),
    "arguments that are null": ([delta(tool_calls=[part(None, name="ls")])], Answer("", (RawCall("ls", ""),))),
    "arguments that are the text null": (
        [delta(tool_calls=[part("null", name="ls")])],
        Answer("", (RawCall("ls", "{}"),)),
    ),
    "arguments that are an empty list": (
        [delta(tool_calls=[part([], name="ls")])],
        Answer("", (RawCall("ls", "{}"),)),
    ),
    "calls that are one object": ([delta(tool_calls=part('{"a": 1}', name="ls"))], Answer("", TWO[:1])),
    "the older field": (
        [
            delta(function_call={"name": "ls", "arguments": '{"a"'}),
            delta(function_call={"arguments": ": 1}"}),
            {"choices": [{"delta": {}, "finish_reason": "function_call"}]},
        ],
        Answer("", TWO[:1]),
    ),
    "the older field beside the newer": (
        [delta(tool_calls=[part('{"a": 1}', name="ls")], function_call={"name": "ls", "arguments": '{"a": 1}'})],
        Answer("", TWO[:1]),
    ),
    "a call and a text in two choices": (
        [{"choices": [{"message": {"content": "Hi"}}, {"message": {"tool_calls": [part('{"a": 1}', name="ls")]}}]}],
        Answer("Hi", TWO[:1]),
    ),
    "a second choice": (
        [{"choices": [{"index": 0, "delta": {"content": "Hi"}}, {"index": 1, "delta": {"content": "Ho"}}]}],
        Answer("Hi"),
    ),
    "the whole message at the end": (
        [delta(content="H"), delta(content="i"), {"choices": [{"delta": {}, "message": {"content": "Hi"}}]}],
        Answer("Hi"),
    ),
    "parts that are texts": ([delta(content=["H", {"type": "output_text", "text": "i"}])], Answer("Hi", foreign=PARTS)),
    "one part": ([delta(content={"type": "text", "text": "Hi"})], Answer("Hi")),
    "a refusal": ([delta(content=None, refusal="I can"), delta(refusal="not")], Answer("I cannot", foreign=REFUSAL)),
    "thoughts with other tags": ([delta(content="[THINK]hm[/THINK]Hi")], Answer("Hi")),
    "thoughts of Gemini": ([delta(content="<thought>hm</thought>\nHi")], Answer("Hi")),
    "thoughts without a beginning": ([delta(content="hm, hm\n</think>\n\nHi")], Answer("Hi")),
    "words about a tag": ([delta(content="It ends with `</think>`\nor so")], Answer("It ends with `</think>`\nor so")),
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
        *(('{"a":' * depth + "1" + "}" * depth, None) for depth in (60, 400, 600, 900)),
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


NO_CALLS = ["Hello", '{"name": "rm"}', '{"steps": []}', "```json\nnot json\n```", '{"name": 5}', '{"name": null}']
ODD_NAMES = ['{"name": {"a": 1}}', '{"name": ["ls"]}', '[{"function": {"name": {}}}]', '{"function": ["ls"]}']


@pytest.mark.parametrize("text", [*NO_CALLS, *ODD_NAMES])
def test_text_without_a_call_stays_text(text: str) -> None:
    assert calls_in_text(text, {"ls"}) == ()


def test_json_objects_are_found_as_the_whole_text_or_in_code_blocks() -> None:
    assert list(objects_in(' {"a": 1} ')) == [{"a": 1}]
    assert list(objects_in('Here:\n```json\n{"a": 1}\n```\nDone.')) == [{"a": 1}]
    assert list(objects_in('I wrote {"a": 1} there.')) == []


def test_a_field_with_a_name_of_ours_is_ignored() -> None:
    builder = AnswerBuilder()
    call = {"index": 0, "id": "c", "function": {"name": "ls", "arguments": "{}"}, "moorage_offer": "x"}
    builder.feed({"choices": [{"delta": {"moorage_pictures": [{"key": "k"}], "tool_calls": [call]}}]})
    assert builder.answer() == Answer("", (RawCall("ls", "{}"),))
    kept = {"model": "m", "fields": '{"moorage_pictures": [{"key": "k"}]}', "calls": []}
    stored = {"role": "assistant", "content": "x", "moorage_foreign": kept}
    assert foreign.restore([stored], "m") == [{"role": "assistant", "content": "x"}]


@pytest.mark.parametrize("function", [{"name": "ls"}, {"name": "x" * 4_000_001}], ids=["many calls", "long names"])
def test_calls_without_end_are_refused(function: dict[str, str]) -> None:
    parts = [{"index": place, "id": f"call-{place}", "function": function} for place in range(1_001)]
    with pytest.raises(BadStreamError, match=r"more than 1000 calls|longer than"):
        AnswerBuilder().feed({"choices": [{"delta": {"tool_calls": parts}}]})
