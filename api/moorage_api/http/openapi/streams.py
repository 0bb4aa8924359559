"""Descriptions that FastAPI cannot generate: event streams, raw bytes and the WebSocket."""

from __future__ import annotations

from typing import Any

FRAMES = """\
id: 1
event: message
data: {"role":"user","message":"Draw a chart","attachments":[],"event_id":"1","created_at":1777887000,"seq":1}

id: 2
event: sandbox
data: {"phase":"starting","reason":"","event_id":"2","created_at":1777887000,"seq":2}

id: 9
event: done
data: {"event_id":"9","created_at":1777887042,"seq":9}

"""

CHAT = """\
Server-Sent Events until `done`, `wait` or `error`. Each frame has `id` (the cursor), `event` and one line of JSON as
`data` with `event_id` and `created_at`. While there are no events, a comment line comes every 15 s. Resume a dropped
stream with `Last-Event-ID`, or with `event_id` in the body. Ignore unknown events and fields.

| event | data |
|---|---|
| `message` | `role`, `message`, `attachments`; while the text grows also `partial` and `stream_id` |
| `title` | `title` |
| `plan` | `steps` of `id`, `description`, `status` |
| `step` | `id`, `description`, `status` |
| `tool` | `tool_call_id`, `name`, `function`, `args`, `status` (`calling`, `called`), `content` |
| `sandbox` | `phase`, `reason`, `position` |
| `wait`, `done` | nothing more |
| `error` | `error`, `code` |
"""

LIST = """\
Server-Sent Events: `sessions` with the whole list (`{sessions: [ListSessionItem]}`), at once and after each change.
While there are no changes, a comment line comes every 15 s.
"""

LIST_FRAMES = """\
event: sessions
data: {"sessions":[]}

"""


FRAME: dict[str, Any] = {
    "type": "object",
    "description": "One frame of the stream",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "description": "The cursor to resume from"},
        "event": {"type": "string"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


def stream_response(description: str, example: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"text/event-stream": {"schema": FRAME, "example": example}},
    }


def binary_response(description: str, media_type: str) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}


SUCCESS: dict[str, dict[str, Any]] = {
    "POST /api/sessions/{session_id}/chat": stream_response(CHAT, FRAMES),
    "POST /api/sessions/stream": stream_response(LIST, LIST_FRAMES),
    "GET /api/files/{file_id}/download": binary_response(
        "The content of the file, as an attachment", "application/octet-stream"
    ),
    "GET /api/pictures/{name}": binary_response("The picture", "image/png"),
    "GET /metrics": {
        "description": "Metrics in Prometheus' text format",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "# HELP ...\n"}},
    },
    "GET /api/auth/wechat/callback": {
        "description": "Redirect to the front end, with tokens or an error in the query",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "The front end's URL"}},
    },
}
"""Successful responses, by route, that are not described by one of our models."""

VNC_PATH = "/api/sessions/{session_id}/vnc"
VNC: dict[str, Any] = {
    "tags": ["sessions"],
    "summary": "Watch Session (WebSocket)",
    "operationId": "watch_session",
    "description": (
        "A WebSocket with the sandbox's screen as RFB, for any noVNC client; the subprotocol `binary` is preferred. It "
        "is always accepted, and a refusal closes it with a code: 4401 the token is missing, invalid or expired, 4403 "
        "the user may not see this session, 4404 there is no such session or no sandbox, 1013 a limit was reached, "
        "1011 the sandbox failed."
    ),
    "parameters": [
        {
            "name": "session_id",
            "in": "path",
            "required": True,
            "description": "Id from POST /api/sessions",
            "schema": {"type": "string", "format": "uuid"},
        },
        {
            "name": "token",
            "in": "query",
            "required": True,
            "description": "Access token; browsers cannot send an Authorization header with a WebSocket",
            "schema": {"type": "string"},
        },
    ],
    "responses": {"101": {"description": "Switching to the WebSocket"}},
}
