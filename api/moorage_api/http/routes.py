"""The table of all routes: who may call each one, and in which bucket it counts.

The table in `docs/authorization.md` is generated from it. An app with a route that is not in this table cannot be
built. The access checks themselves are dependencies of the routes: `tests/api/sessions/test_access.py` calls every
route as every kind of user and compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute

from moorage_api.limits.request_windows import Bucket

READS, WRITES, CHATS, PICTURES = Bucket.READS, Bucket.WRITES, Bucket.CHATS, Bucket.PICTURES
MODEL_TESTS = Bucket.MODEL_TESTS


class Access(StrEnum):
    PUBLIC = "anyone"
    USER = "any user"
    OWNER = "the owner alone"
    OWNER_OR_ADMIN = "the owner and admins"
    ADMIN = "admins"
    CONFIG = "admins; anyone with MOORAGE_OPEN_CONFIG"
    LINK = "who has the signed link"


class Subject(StrEnum):
    """The subject whose window counts a request."""

    CALLER = "the user, without a valid token the address"
    ADDRESS = "the address, and the account"
    """For requests before a login. A token in the request is ignored."""


@dataclass(frozen=True)
class Rule:
    method: str
    path: str
    access: Access
    bucket: Bucket | None
    subject: Subject = Subject.CALLER
    counts_itself: bool = False
    """The route counts its requests itself, because it refuses in its own way (redirect, close code)."""

    @property
    def key(self) -> str:
        return f"{self.method} {self.path}"


CONFIG = "/api/app-config"
SESSION = "/api/sessions/{session_id}"
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")

RULES: tuple[Rule, ...] = (
    Rule("POST", "/api/auth/register", Access.PUBLIC, WRITES, Subject.ADDRESS),
    Rule("POST", "/api/auth/login", Access.PUBLIC, WRITES, Subject.ADDRESS),
    Rule("POST", "/api/auth/refresh", Access.PUBLIC, WRITES, Subject.ADDRESS),
    Rule("GET", "/api/auth/me", Access.USER, READS),
    Rule("PUT", "/api/auth/me", Access.USER, WRITES),
    Rule("GET", "/api/auth/wechat/authorize", Access.PUBLIC, WRITES, Subject.ADDRESS),
    Rule("GET", "/api/auth/wechat/callback", Access.PUBLIC, WRITES, Subject.ADDRESS, counts_itself=True),
    Rule("GET", "/api/status", Access.PUBLIC, None),
    Rule("GET", "/api/status/minio", Access.PUBLIC, READS),
    Rule("POST", "/api/status/minio/upload", Access.CONFIG, WRITES),
    Rule("GET", f"{CONFIG}/llm", Access.PUBLIC, READS),
    Rule("POST", f"{CONFIG}/llm", Access.CONFIG, WRITES),
    Rule("GET", f"{CONFIG}/llm/options", Access.CONFIG, READS),
    Rule("POST", f"{CONFIG}/llm/options", Access.CONFIG, WRITES),
    Rule("POST", f"{CONFIG}/llm/test", Access.CONFIG, MODEL_TESTS),
    Rule("GET", f"{CONFIG}/llm/prices", Access.CONFIG, READS),
    Rule("POST", f"{CONFIG}/llm/prices", Access.CONFIG, WRITES),
    Rule("GET", f"{CONFIG}/agent", Access.PUBLIC, READS),
    Rule("POST", f"{CONFIG}/agent", Access.CONFIG, WRITES),
    Rule("GET", f"{CONFIG}/mcp-servers", Access.PUBLIC, READS),
    Rule("POST", f"{CONFIG}/mcp-servers", Access.CONFIG, WRITES),
    Rule("POST", f"{CONFIG}/mcp-servers/{{server_name}}/delete", Access.CONFIG, WRITES),
    Rule("POST", f"{CONFIG}/mcp-servers/{{server_name}}/enabled", Access.CONFIG, WRITES),
    Rule("POST", f"{CONFIG}/mcp-servers/{{server_name}}/refresh", Access.CONFIG, WRITES),
    Rule("GET", f"{CONFIG}/a2a-servers", Access.PUBLIC, READS),
    Rule("POST", f"{CONFIG}/a2a-servers", Access.CONFIG, WRITES),
    Rule("POST", f"{CONFIG}/a2a-servers/{{a2a_id}}/delete", Access.CONFIG, WRITES),
    Rule("POST", f"{CONFIG}/a2a-servers/{{a2a_id}}/enabled", Access.CONFIG, WRITES),
    Rule("GET", "/api/user/tools/mcp", Access.USER, READS),
    Rule("POST", "/api/user/tools/mcp/{server_name}/enabled", Access.USER, WRITES),
    Rule("GET", "/api/user/tools/a2a", Access.USER, READS),
    Rule("POST", "/api/user/tools/a2a/{a2a_id}/enabled", Access.USER, WRITES),
    Rule("POST", "/api/sessions", Access.USER, WRITES),
    Rule("GET", "/api/sessions", Access.USER, READS),
    Rule("POST", "/api/sessions/stream", Access.USER, READS),
    Rule("GET", SESSION, Access.OWNER_OR_ADMIN, READS),
    Rule("POST", f"{SESSION}/chat", Access.OWNER_OR_ADMIN, CHATS),
    Rule("POST", f"{SESSION}/stop", Access.OWNER_OR_ADMIN, WRITES),
    Rule("POST", f"{SESSION}/clear-unread-message-count", Access.OWNER, WRITES),
    Rule("POST", f"{SESSION}/delete", Access.OWNER, WRITES),
    Rule("GET", f"{SESSION}/files", Access.OWNER_OR_ADMIN, READS),
    Rule("POST", f"{SESSION}/file", Access.OWNER_OR_ADMIN, READS),
    Rule("POST", f"{SESSION}/shell", Access.OWNER_OR_ADMIN, READS),
    Rule("WS", f"{SESSION}/vnc", Access.OWNER_OR_ADMIN, READS, counts_itself=True),
    Rule("GET", "/api/pictures/{name}", Access.LINK, PICTURES, Subject.ADDRESS),
    Rule("GET", "/api/usage", Access.USER, READS),
    Rule("GET", "/api/admin/usage", Access.ADMIN, READS),
    Rule("GET", "/api/admin/users", Access.ADMIN, READS),
    Rule("GET", "/api/admin/users/{user_id}", Access.ADMIN, READS),
    Rule("PUT", "/api/admin/users/{user_id}/status", Access.ADMIN, WRITES),
    Rule("DELETE", "/api/admin/users/{user_id}", Access.ADMIN, WRITES),
    Rule("POST", "/api/files", Access.USER, WRITES),
    Rule("GET", "/api/files/{file_id}", Access.OWNER_OR_ADMIN, READS),
    Rule("GET", "/api/files/{file_id}/download", Access.OWNER_OR_ADMIN, READS),
    Rule("DELETE", "/api/files/{file_id}", Access.OWNER_OR_ADMIN, WRITES),
    Rule("GET", "/api/v2/skills", Access.ADMIN, READS),
    Rule("POST", "/api/v2/skills/install", Access.ADMIN, WRITES),
    Rule("POST", "/api/v2/skills/{skill_key}/enabled", Access.ADMIN, WRITES),
    Rule("DELETE", "/api/v2/skills/{skill_key}", Access.ADMIN, WRITES),
    Rule("GET", "/api/v2/skills/policy", Access.ADMIN, READS),
    Rule("POST", "/api/v2/skills/policy", Access.ADMIN, WRITES),
    *(
        Rule(method, f"{CONFIG}/skills{below}", Access.PUBLIC, READS)
        for below in ("", "/{below:anything}")
        for method in METHODS
    ),
    *(
        Rule("GET", path, Access.PUBLIC, None)
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/redoc", "/docs/assets/{name}")
    ),
)
BY_KEY = {rule.key: rule for rule in RULES}


def keys_of(routes: Sequence[BaseRoute]) -> list[tuple[str, object]]:
    """List every method and path that the app serves, with its function."""
    found: list[tuple[str, object]] = []
    for route in iter_route_contexts(routes):
        methods = route.methods or {"WS"}
        implied = {"HEAD"} if "GET" in methods else set()
        found += [(f"{method} {route.path}", route.endpoint) for method in sorted(methods - implied)]
    return found


def rules_of(routes: Sequence[BaseRoute]) -> dict[tuple[object, str], Rule]:
    """Find the rule of each function and method. Raises LookupError that names the routes without a rule."""
    keys = keys_of(routes)
    missing = [key for key, _ in keys if key not in BY_KEY]
    if missing:
        raise LookupError(f"These routes are not in moorage_api.http.routes.RULES: {missing}")
    return {(endpoint, BY_KEY[key].method): BY_KEY[key] for key, endpoint in keys}


def format_table(rules: Iterable[Rule] = RULES) -> str:
    """Format the rules as the Markdown table of `docs/authorization.md`."""
    lines = ["| route | who may call it | counts as | in the window of |", "|---|---|---|---|"]
    lines += [
        f"| `{rule.key}` | {rule.access} | {rule.bucket or 'nothing'} | {rule.subject if rule.bucket else '-'} |"
        for rule in rules
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(format_table())
