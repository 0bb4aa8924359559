"""Complete FastAPI's OpenAPI document: error statuses from the table of routes, error envelopes and examples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from moorage_api.http.openapi.examples import example_of
from moorage_api.http.openapi.streams import SUCCESS, VNC, VNC_PATH
from moorage_api.http.routes import BY_KEY, Access, Rule

TAGS = [
    {"name": "auth", "description": "Accounts and logins"},
    {"name": "sessions", "description": "Conversations, each with its own sandbox"},
    {"name": "files", "description": "Files that users upload and agents save"},
    {"name": "app-config", "description": "Configuration for all users; only admins change it"},
    {"name": "usage", "description": "Tokens and costs of model calls, and the prices of models"},
    {"name": "user-tools", "description": "A user's own choice of tools"},
    {"name": "skills", "description": "Skills that agents can use"},
    {"name": "admin", "description": "Accounts of all users, for admins"},
    {"name": "status", "description": "Whether the servers that the platform needs work"},
    {"name": "health", "description": "Probes and metrics; never rate limited"},
    {"name": "legacy", "description": "Removed endpoints; they answer HTTP 410"},
]

ERROR = "ErrorEnvelope"
ERROR_SCHEMA: dict[str, Any] = {
    "title": ERROR,
    "description": "The body of every error. `code` repeats the HTTP status; programs can branch on `data.error`.",
    "type": "object",
    "required": ["code", "msg", "data"],
    "properties": {
        "code": {"type": "integer"},
        "msg": {"type": "string", "description": "Text for people"},
        "data": {"anyOf": [{"type": "object", "additionalProperties": True}, {"type": "null"}]},
    },
}

ERRORS: dict[int, tuple[str, Any]] = {
    400: ("The request asks for something impossible", {"error": "invalid"}),
    401: ("The token is missing, invalid or expired; refresh it or log in", {"error": "unauthenticated"}),
    403: ("This user may not do this", {"error": "forbidden"}),
    404: ("It does not exist", {"error": "not_found"}),
    409: ("It conflicts with something that exists", {"error": "conflict"}),
    413: ("The body is too large", {"error": "too_large", "limit_bytes": 2097152}),
    422: (
        "Fields are missing or invalid",
        {"error": "validation", "fields": [{"field": "body.password", "message": "Field required"}]},
    ),
    429: ("Too many requests or connections; try again after `Retry-After` seconds", {"retry_after": 12}),
    503: ("A server that the platform needs does not answer; try again shortly", {"error": "unavailable"}),
}
MESSAGES = {429: "请求过多，请稍后重试"}

ALSO: dict[str, tuple[int, ...]] = {
    "POST /api/auth/register": (409,),
    "POST /api/auth/login": (401, 403),
    "POST /api/auth/refresh": (401, 403),
    "GET /api/auth/wechat/authorize": (400, 401, 403),
    "GET /api/auth/wechat/callback": (400,),
    "GET /api/status/minio": (401, 403),
    "POST /api/app-config/llm/options": (409,),
    "POST /api/app-config/a2a-servers": (409,),
    "POST /api/app-config/mcp-servers": (409,),
    "POST /api/v2/skills/install": (403, 404, 409),
    "POST /api/sessions/{session_id}/chat": (409,),
    "POST /api/sessions/{session_id}/file": (409,),
    "POST /api/sessions/{session_id}/shell": (409,),
    "GET /api/pictures/{name}": (403,),
    "GET /api/usage": (400,),
    "GET /api/admin/usage": (400,),
}
"""Error statuses of a route in addition to those that follow from its rule."""

NEEDS_TOKEN = {Access.USER, Access.OWNER, Access.OWNER_OR_ADMIN, Access.ADMIN, Access.CONFIG}
NEEDS_NOTHING = {"GET /healthz", "GET /metrics"}


def complete_document(document: dict[str, Any]) -> dict[str, Any]:
    """Complete the document in place, and return it."""
    components = document.setdefault("components", {}).setdefault("schemas", {})
    components[ERROR] = ERROR_SCHEMA
    for unused in ("HTTPValidationError", "ValidationError"):
        components.pop(unused, None)
    document["tags"] = TAGS
    for key, operation in list_operations(document):
        rule = BY_KEY[key]
        responses = operation["responses"]
        if key in SUCCESS:
            for status in [status for status in responses if status in ("200", "302")]:
                responses[status] = SUCCESS[key]
        for status in list_statuses(rule, operation):
            responses[str(status)] = error_response(status)
        operation["responses"] = dict(sorted(responses.items()))
        add_examples(operation, components)
    document["paths"][VNC_PATH] = {"get": {**VNC, "responses": {**VNC["responses"], "404": error_response(404)}}}
    return document


def list_operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            key = f"{method.upper()} {path}"
            if key not in BY_KEY and path.endswith("/{below}"):
                key = f"{method.upper()} {path.removesuffix('{below}')}{{below:anything}}"
            yield key, operation


def list_statuses(rule: Rule, operation: dict[str, Any]) -> set[int]:
    """Error statuses that this route can have."""
    found = set(ALSO.get(rule.key, ()))
    if rule.access in NEEDS_TOKEN:
        found |= {401, 403}
    if "{" in rule.path and "410" not in operation["responses"]:
        found.add(404)
    if "requestBody" in operation:
        found |= {400, 413, 422}
    if "422" in operation["responses"]:
        found.add(422)
    if rule.bucket is not None and not rule.counts_itself:
        found.add(429)
    if rule.key not in NEEDS_NOTHING and rule.key != "GET /api/status":
        found.add(503)
    return found


def error_response(status: int) -> dict[str, Any]:
    description, data = ERRORS[status]
    response: dict[str, Any] = {
        "description": description,
        "content": {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{ERROR}"},
                "example": {"code": status, "msg": MESSAGES.get(status, description), "data": data},
            }
        },
    }
    if status == 429:
        response["headers"] = {
            "Retry-After": {"description": "Whole seconds, at least 1", "schema": {"type": "integer", "minimum": 1}}
        }
    return response


def add_examples(operation: dict[str, Any], components: dict[str, Any]) -> None:
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for body in bodies:
        for media in body.get("content", {}).values():
            if "example" not in media and "examples" not in media and media.get("schema"):
                media["example"] = example_of(media["schema"], components)
