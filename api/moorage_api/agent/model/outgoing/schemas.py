"""Rewrite a tool's JSON Schema with the few keywords that every provider knows.

A schema of an MCP server may hold anything. Gemini refuses unknown keywords (openswarm#24), lists of types (zed#53919)
and enums of numbers (azure-devops-mcp#145). Kimi refuses a type beside `anyOf` (vercel/ai#18921) and a missing type
(pi#4138). Calls are still checked against the original.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 12
MAX_SCHEMAS = 1_000
"""A schema that refers to itself is cut here."""
ANY: dict[str, Any] = {"type": "string"}
FILLER = {"unused": {"type": "string", "description": "Leave this empty"}}


def simplify_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of an object, with type, description, properties, required, items, enum and anyOf only."""
    simple = _Simplifier(schema).simplify(schema, depth=0)
    return simple if simple.get("type") == "object" else {"type": "object", "properties": {}}


def fill_empty_objects(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with at least one property in each object."""
    filled = dict(schema)
    if schema.get("type") == "object":
        properties = schema.get("properties") or FILLER
        filled["properties"] = {name: _fill(item) for name, item in properties.items()}
    if isinstance(items := schema.get("items"), dict):
        filled["items"] = fill_empty_objects(items)
    if isinstance(options := schema.get("anyOf"), list):
        filled["anyOf"] = [_fill(item) for item in options]
    return filled


def _fill(schema: Any) -> Any:
    return fill_empty_objects(schema) if isinstance(schema, dict) else schema


class _Simplifier:
    """Follows references within `root`."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._count = 0

    def simplify(self, schema: Any, *, depth: int) -> dict[str, Any]:
        schema = self._resolve(schema)
        self._count += 1
        if not isinstance(schema, Mapping) or depth > MAX_DEPTH or self._count > MAX_SCHEMAS:
            return dict(ANY)
        about = {"description": schema["description"]} if isinstance(schema.get("description"), str) else {}
        options = self._options(schema)
        if len(options) > 1:
            return about | {"anyOf": [self.simplify(option, depth=depth + 1) for option in options]}
        if options:
            return self.simplify(options[0], depth=depth + 1) | about
        return about | self._simplify_one(schema, depth)

    def _simplify_one(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        kind = _type_of(schema)
        simple: dict[str, Any] = {"type": kind}
        if kind == "object":
            named = _properties(schema)
            simple["properties"] = {name: self.simplify(item, depth=depth + 1) for name, item in named.items()}
            required = schema.get("required")
            if kept := [name for name in required if name in named] if isinstance(required, list) else []:
                simple["required"] = kept
        if kind == "array":
            items = schema.get("items", schema.get("prefixItems"))
            simple["items"] = self.simplify(items[0] if isinstance(items, list) and items else items, depth=depth + 1)
        values = _values(schema)
        if kind == "string" and values and all(isinstance(value, str) for value in values):
            simple["enum"] = values
        return simple

    def _options(self, schema: Mapping[str, Any]) -> list[Any]:
        """The alternatives, without null; empty if there is only the schema itself."""
        for key in ("anyOf", "oneOf", "allOf"):
            if isinstance(options := schema.get(key), list) and options and "properties" not in schema:
                resolved = [self._resolve(option) for option in options]
                if key == "allOf":
                    return [_join(resolved)]
                return [option for option in resolved if not _is_null(option)] or [ANY]
        if isinstance(kinds := schema.get("type"), list):
            kinds = [kind for kind in kinds if kind != "null"] or ["string"]
            return [{**schema, "type": kind} for kind in kinds]
        return []

    def _resolve(self, schema: Any) -> Any:
        """Follow a reference such as `#/$defs/name`. One that leads nowhere stands for any value."""
        for _ in range(MAX_DEPTH):
            if not isinstance(schema, Mapping) or not isinstance(schema.get("$ref"), str):
                return schema
            found: Any = self._root
            for name in schema["$ref"].removeprefix("#").strip("/").split("/"):
                found = found.get(name, ANY) if isinstance(found, Mapping) and name else found
            beside = {key: value for key, value in schema.items() if key != "$ref"}
            schema = {**(found if isinstance(found, Mapping) else ANY), **beside}
        return ANY


def _join(schemas: list[Any]) -> dict[str, Any]:
    """All of them at once: the properties of each, and the other keywords of the last that has them."""
    joined: dict[str, Any] = {}
    for schema in schemas:
        if isinstance(schema, Mapping):
            properties = {**_properties(joined), **_properties(schema)}
            joined = {**joined, **schema} | ({"properties": properties} if properties else {})
    return joined


def _is_null(schema: Any) -> bool:
    return isinstance(schema, Mapping) and schema.get("type") == "null"


def _type_of(schema: Mapping[str, Any]) -> str:
    kind = schema.get("type")
    if kind in ("object", "array", "string", "number", "integer", "boolean"):
        return str(kind)
    if "properties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number"}
    return next((names[type(value)] for value in _values(schema) if type(value) in names), "string")


def _values(schema: Mapping[str, Any]) -> list[Any]:
    values = schema.get("enum")
    if isinstance(values, list):
        return values
    return [schema["const"]] if "const" in schema else []


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}
