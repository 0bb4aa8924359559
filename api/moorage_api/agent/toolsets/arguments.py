"""Check a tool call's arguments against its JSON Schema, and convert values that are nearly right."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from moorage_api.agent.model.incoming.json_objects import parse_list


class BadArgumentsError(Exception):
    """The arguments do not match the schema. The text is for the model."""


def check_arguments(schema: Mapping[str, Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments, with values of a similar type converted ("5" to 5). Raises BadArgumentsError.

    Checks types, enums and required parameters of the top level only. Unknown parameters are dropped if the schema
    says `additionalProperties: false`, otherwise kept. A null for an optional parameter means that it is left out.
    """
    properties: Mapping[str, Any] = schema.get("properties") or {}
    closed = schema.get("additionalProperties") is False
    result: dict[str, Any] = {}
    for name, value in args.items():
        if name not in properties:
            if not closed:
                result[name] = value
            continue
        if value is None and name not in schema.get("required", ()):
            continue
        result[name] = _check_value(name, properties[name], value)
    if missing := [name for name in schema.get("required", ()) if name not in result]:
        raise BadArgumentsError(f"missing: {', '.join(missing)}")
    return result


def _check_value(name: str, schema: Mapping[str, Any], value: Any) -> Any:
    kind = schema.get("type")
    converted = _convert(kind, value) if isinstance(kind, str) else value
    if converted is None and isinstance(kind, str):
        raise BadArgumentsError(f"{name} must be of type {kind}, not {json.dumps(value, ensure_ascii=False)[:80]}")
    if "enum" in schema and converted not in schema["enum"]:
        raise BadArgumentsError(f"{name} must be one of {', '.join(map(str, schema['enum']))}")
    return converted


def _convert(kind: str, value: Any) -> Any:
    """Convert the value to a JSON Schema type; None if that is not possible."""
    match kind:
        case "string":
            return value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False)
        case "boolean":
            if isinstance(value, str) and value.strip().lower() in ("true", "false"):
                return value.strip().lower() == "true"
            return value if isinstance(value, bool) else None
        case "integer":
            number = _as_number(value)
            return int(number) if number is not None and number == int(number) else None
        case "number":
            return _as_number(value)
        case "array":
            return _as_list(value)
        case "object":
            return value if isinstance(value, dict) else None
        case _:
            return value


def _as_number(value: Any) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _as_list(value: Any) -> list[Any] | None:
    """Convert a list, a list encoded as JSON text, or a single text to a list; None if that is not possible."""
    if not isinstance(value, str):
        return value if isinstance(value, list) else None
    decoded = parse_list(value)
    return decoded if decoded is not None else [value] if value else []
