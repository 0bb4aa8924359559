"""Arguments of a similar type are converted; other wrong arguments are refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from moorage_api.agent.toolsets.arguments import BadArgumentsError, check_arguments
from moorage_api.agent.toolsets.function_schema import flag, function, number, text, texts

SCHEMA = function(
    "f",
    "",
    {"name": text("")},
    {"count": number(""), "deep": flag(""), "files": texts(""), "kind": text("", choices=("a", "b"))},
).parameters


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"name": "x"}, {"name": "x"}),
        ({"name": "x", "count": "5"}, {"name": "x", "count": 5}),
        ({"name": "x", "count": 5.0}, {"name": "x", "count": 5}),
        ({"name": "x", "deep": "True"}, {"name": "x", "deep": True}),
        ({"name": 5}, {"name": "5"}),
        ({"name": {"a": 1}}, {"name": '{"a": 1}'}),
        ({"name": "x", "files": "/a"}, {"name": "x", "files": ["/a"]}),
        ({"name": "x", "files": '["/a", "/b"]'}, {"name": "x", "files": ["/a", "/b"]}),
        ({"name": "x", "files": ""}, {"name": "x", "files": []}),
        *(
            ({"name": "x", "files": text}, {"name": "x", "files": [text]})
            for text in ("[" * 100_000, "[" * 60 + "]" * 60)
        ),
        ({"name": "x", "count": None}, {"name": "x"}),
        ({"name": "x", "unknown": 1}, {"name": "x"}),
    ],
)
def test_arguments_of_a_similar_type_are_converted(given: dict[str, Any], taken: dict[str, Any]) -> None:
    assert check_arguments(SCHEMA, given) == taken


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "missing: name"),
        ({"name": None}, "name must be of type string"),
        ({"name": "x", "count": "five"}, "count must be of type integer"),
        ({"name": "x", "count": 1.5}, "count must be of type integer"),
        ({"name": "x", "count": True}, "count must be of type integer"),
        ({"name": "x", "count": "nan"}, "count must be of type integer"),
        ({"name": "x", "deep": 1}, "deep must be of type boolean"),
        ({"name": "x", "files": {"a": 1}}, "files must be of type array"),
        ({"name": "x", "kind": "c"}, "kind must be one of a, b"),
    ],
)
def test_wrong_arguments_are_refused_with_a_reason(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadArgumentsError, match=reason):
        check_arguments(SCHEMA, given)


def test_parameters_that_the_schema_does_not_type_are_accepted() -> None:
    schema = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}
    assert check_arguments(schema, {"a": None, "b": [1]}) == {"b": [1]}
    assert check_arguments({}, {"a": 1}) == {"a": 1}
