"""Short helpers to write the JSON Schemas of functions."""

from __future__ import annotations

from typing import Any

from moorage_api.agent.ports import Function


def text(description: str, *, choices: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"type": "string", "description": description} | ({"enum": list(choices)} if choices else {})


def number(description: str) -> dict[str, Any]:
    return {"type": "integer", "description": description}


def flag(description: str) -> dict[str, Any]:
    return {"type": "boolean", "description": description}


def texts(description: str) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string"}, "description": description}


def function(
    name: str,
    description: str,
    required: dict[str, Any] | None = None,
    optional: dict[str, Any] | None = None,
    *,
    read_only: bool = False,
    is_remembered: bool = False,
) -> Function:
    """`required` and `optional` map parameter names to their schemas."""
    return Function(
        name=name,
        description=description,
        parameters={
            "type": "object",
            "properties": (required or {}) | (optional or {}),
            "required": list(required or {}),
            "additionalProperties": False,
        },
        read_only=read_only,
        is_remembered=is_remembered,
    )
