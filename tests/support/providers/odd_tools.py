"""A tool of an MCP server whose schema has everything that some provider refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from moorage_api.agent.ports import Function, ToolCall, ToolResult

ODD_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Odd",
    "type": "object",
    "additionalProperties": False,
    "patternProperties": {"^x-": {}},
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "name": {"const": "n"}}}},
    "properties": {
        "mode": {"type": ["string", "null"], "default": None, "examples": ["fast"]},
        "level": {"enum": [1, 2, 3]},
        "either": {"type": "object", "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "number"}}]},
        "maybe": {"oneOf": [{"type": "null"}, {"type": "boolean"}]},
        "both": {"allOf": [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "integer"}}}]},
        "node": {"$ref": "#/$defs/node"},
        "pair": {"type": "array", "items": [{"type": "string"}, {"type": "number"}]},
        "list": {"type": "array"},
        "empty": {"type": "object", "propertyNames": {"minLength": 1}},
        "anything": {},
        "all": True,
        "additionalProperties": {"type": "string", "exclusiveMinimum": 3},
    },
    "required": ["mode"],
}


class OddTools:
    """`calls` holds the arguments of the calls that ran."""

    name: Literal["mcp"] = "mcp"

    def __init__(self) -> None:
        self.calls: list[Mapping[str, Any]] = []

    def functions(self) -> Sequence[Function]:
        return [Function("mcp_odd_do", "Do something odd", ODD_SCHEMA)]

    async def call(self, call: ToolCall) -> ToolResult:
        self.calls.append(call.args)
        return ToolResult("succeeded", "It is done.", {})
