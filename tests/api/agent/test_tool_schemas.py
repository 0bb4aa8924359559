"""Schemas of tools in the form that every provider takes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage_api.agent.model.outgoing.schemas import fill_empty_objects, simplify_schema
from support.llm import Request
from support.providers.gateways import gemini_properties, gemini_schemas
from support.providers.hosted import kimi_schemas
from support.providers.odd_tools import ODD_SCHEMA
from support.providers.server import Issued

KINDS = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null", "any", 7])
KEYWORDS = st.sampled_from(["$schema", "const", "default", "examples", "format", "not", "if", "additionalProperties"])
LEAVES = st.none() | st.booleans() | st.integers() | st.text() | st.just({"$ref": "#/properties/a"})


def nested(schemas: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas with others in them, right and wrong ones."""
    odd = {
        "type": KINDS | st.lists(KINDS),
        "properties": st.dictionaries(st.sampled_from("abc"), schemas) | schemas,
        "required": st.lists(st.sampled_from("abcd")) | st.booleans(),
        "items": schemas | st.lists(schemas),
        "enum": st.lists(st.integers() | st.text()),
        "anyOf": st.lists(schemas) | schemas,
        "oneOf": st.lists(schemas),
        "allOf": st.lists(schemas),
        "description": st.text() | st.integers(),
        "$ref": st.sampled_from(["#", "#/properties/a", "#/$defs/none", "https://example.org", ""]),
    }
    more = st.dictionaries(KEYWORDS, LEAVES)
    return st.builds(lambda one, two: {**one, **two}, st.fixed_dictionaries({}, optional=odd), more) | LEAVES


SCHEMAS = st.recursive(LEAVES, nested, max_leaves=8)


def request_with(schema: dict[str, Any]) -> Request:
    return {"messages": [], "tools": [{"type": "function", "function": {"name": "do", "parameters": schema}}]}


@given(SCHEMAS)
def test_no_strict_provider_refuses_a_simple_schema(schema: Any) -> None:
    simple = fill_empty_objects(simplify_schema(schema if isinstance(schema, dict) else {}))
    request = request_with(simple)
    assert [rule(request, Issued()) for rule in (gemini_schemas, gemini_properties, kimi_schemas)] == [None] * 3
    assert len(json.dumps(simple)) < 1_000_000


def test_what_a_model_needs_is_kept() -> None:
    simple = simplify_schema(ODD_SCHEMA)
    properties = simple["properties"]
    assert simple["required"] == ["mode"]
    assert properties["mode"] == {"type": "string"}
    assert properties["level"] == {"type": "integer"}
    assert properties["either"] == {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "number"}}]}
    assert properties["maybe"] == {"type": "boolean"}
    assert properties["both"]["properties"].keys() == {"a", "b"}
    assert properties["node"]["properties"]["name"] == {"type": "string", "enum": ["n"]}
    assert properties["node"]["properties"]["next"]["properties"].keys() == {"next", "name"}
    assert properties["pair"] == {"type": "array", "items": {"type": "string"}}
    assert properties["additionalProperties"] == {"type": "string"}, "a property may have the name of a keyword"


@pytest.mark.parametrize("width", [1, 30])
def test_a_schema_that_refers_to_itself_ends(width: int) -> None:
    tree = {"type": "object", "properties": {f"child{number}": {"$ref": "#"} for number in range(width)}}
    assert len(json.dumps(simplify_schema(tree))) < 200_000
