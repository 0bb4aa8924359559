"""Build examples of bodies from their schemas, so that every body has an example and it is never outdated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IDENTIFIER = "0192f0c1-2f4e-7d3a-9c55-6b7d8e9f0a1b"
MOMENT = "2026-05-04T09:30:00Z"

BY_FIELD: dict[str, Any] = {
    "username": "grace",
    "email": "grace@navy.example",
    "nickname": "Grace",
    "avatar": "https://pictures.example/grace.png",
    "password": "correct horse battery",
    "session_id": IDENTIFIER,
    "title": "Chart of last year's sales",
    "latest_message": "The chart is in chart.png.",
    "message": "Draw a chart of last year's sales",
    "timestamp": 1777887000,
    "event_id": "12",
    "event": "message",
    "filepath": "/home/ubuntu/workspace/chart.png",
    "filename": "chart.png",
    "key": f"files/{IDENTIFIER}/chart",
    "extension": ".png",
    "mime_type": "image/png",
    "content_type": "image/png",
    "content": "month,sales\n",
    "size": 48213,
    "base_url": "https://api.deepseek.com",
    "api_key": "",
    "model_name": "deepseek-flash",
    "output": "total 1\n",
    "ps1": "ubuntu@sandbox:~/workspace$",
    "command": "ls -l",
    "service": "postgres",
    "details": "PostgreSQL 18.6, 1 ms",
    "endpoint": "minio:9000",
    "bucket": "moorage",
    "object": f"uploads/{IDENTIFIER}-chart.png",
    "etag": "9e107d9d372bb6826bd81d3542a419d6",
    "presigned_get_url": "https://files.example/moorage/uploads/chart.png?X-Amz-Signature=0f",
    "authorize_url": "https://open.weixin.qq.com/connect/oauth2/authorize?appid=wx0&state=0f#wechat_redirect",
    "server_name": "time",
    "tool_id": "time",
    "tool_name": "time",
    "description": "What the time is, anywhere",
    "transport": "streamable_http",
    "url": "https://mcp.example/mcp",
    "slug": "pdf",
    "name": "pdf",
    "version": "0.1.0",
    "source_ref": "https://github.com/owner/repo/tree/main/skills/pdf",
    "id": IDENTIFIER,
    "a2a_id": IDENTIFIER,
    "total": 1,
}
BY_FORMAT: dict[str, Any] = {
    "uuid": IDENTIFIER,
    "date-time": MOMENT,
    "binary": "(the bytes)",
    "password": "correct horse battery",
}
BY_TYPE: dict[str, Any] = {"string": "text", "integer": 1, "number": 0.5, "boolean": True, "null": None}
WHOLE: dict[str, Any] = {
    "McpConfig": {"mcpServers": {"time": {"transport": "stdio", "command": "mcp-server-time", "args": []}}},
    "SkillInstallRequest": {
        "source_type": "github",
        "source_ref": "https://github.com/owner/repo/tree/main/skills/pdf",
    },
}
"""Examples of models with rules that are only in their validators, not in the schema."""

OPTIONAL_IN_REQUESTS = frozenset({"event_id", "timestamp", "api_key", "manifest", "skill_md"})
MAX_DEPTH = 30


def example_of(schema: Mapping[str, Any], components: Mapping[str, Any], *, name: str = "", depth: int = 0) -> Any:
    """Build a value that the schema allows."""
    if depth > MAX_DEPTH:
        return None
    if reference := schema.get("$ref"):
        model = str(reference).rpartition("/")[2]
        if model in WHOLE:
            return WHOLE[model]
        return example_of(components[model], components, name=name, depth=depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if options := schema.get(several):
            chosen = next((option for option in options if option.get("type") != "null"), options[0])
            return example_of(chosen, components, name=name, depth=depth + 1)
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return {
            field: example_of(part, components, name=field, depth=depth + 1)
            for field, part in schema.get("properties", {}).items()
            if field in schema.get("required", ()) or field not in OPTIONAL_IN_REQUESTS
        }
    if kind == "array":
        return [example_of(schema.get("items", {}), components, name=name, depth=depth + 1)]
    if name in BY_FIELD and _fits(BY_FIELD[name], kind):
        return BY_FIELD[name]
    if "default" in schema:
        return schema["default"]
    if schema.get("format") in BY_FORMAT:
        return BY_FORMAT[schema["format"]]
    if kind in ("integer", "number"):
        return schema.get("minimum", BY_TYPE[kind])
    return BY_TYPE.get(kind or "", {})


def _fits(value: Any, kind: str | None) -> bool:
    return {"string": str, "integer": int, "number": (int, float)}.get(kind or "", object) is object or isinstance(
        value,
        {"string": str, "integer": int, "number": (int, float)}[kind or ""],  # type: ignore[arg-type]
    )
