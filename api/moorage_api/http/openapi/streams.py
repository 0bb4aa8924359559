"""What OpenAPI has no words for: event streams, raw bytes and the WebSocket."""

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
`data` with `event_id` and `created_at`; a comment line comes every 15 s when there is nothing to say. A dropped stream
is resumed with `Last-Event-ID`, or `event_id` in the body. Unknown events and fields are to be ignored.

| event | data |
|---|---|
| `message` | `role`, `message`, `attachments`; while it grows `partial` and `stream_id` |
| `title` | `title` |
| `plan` | `steps` of `id`, `description`, `status` |
| `step` | `id`, `description`, `status` |
| `tool` | `tool_call_id`, `name`, `function`, `args`, `status` (`calling`, `called`), `content` |
| `sandbox` | `phase`, `reason`, `position` |
| `wait`, `done` | nothing more |
| `error` | `error`, `code` |
"""

LIST = """\
Server-Sent Events: `sessions` with the whole list (`{sessions: [ListSessionItem]}`), at once and on each change. A
comment line comes every 15 s when there is nothing to say.
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


def text_stream(description: str, example: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {"text/event-stream": {"schema": FRAME, "example": example}},
    }


def raw(description: str, media_type: str) -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": {"type": "string", "format": "binary"}}}}


SUCCESS: dict[str, dict[str, Any]] = {
    "POST /api/sessions/{session_id}/chat": text_stream(CHAT, FRAMES),
    "POST /api/sessions/stream": text_stream(LIST, LIST_FRAMES),
    "GET /api/files/{file_id}/download": raw("The bytes, as an attachment", "application/octet-stream"),
    "GET /api/pictures/{name}": raw("The picture", "image/png"),
    "GET /metrics": {
        "description": "Metrics in Prometheus' text format",
        "content": {"text/plain": {"schema": {"type": "string"}, "example": "# HELP ...\n"}},
    },
    "GET /api/auth/wechat/callback": {
        "description": "To the front end, with tokens or an error in the query",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "The front end's URL"}},
    },
}
"""By route, what its success looks like, where no model of ours describes it."""

VNC_PATH = "/api/sessions/{session_id}/vnc"
VNC: dict[str, Any] = {
    "tags": ["sessions"],
    "summary": "Watch Session (WebSocket)",
    "operationId": "watch_session",
    "description": (
        "A WebSocket with the sandbox's screen as RFB, for any noVNC client; subprotocol `binary` preferred. It is "
        "accepted first and closed with a code that says why it was refused: 4401 token, 4403 not yours, 4404 no such "
        "session or no sandbox, 1013 a limit was reached, 1011 the sandbox failed."
    ),
    "parameters": [
        {
            "name": "session_id",
            "in": "path",
            "required": True,
            "description": "As POST /api/sessions answered it",
            "schema": {"type": "string", "format": "uuid"},
        },
        {
            "name": "token",
            "in": "query",
            "required": True,
            "description": "An access token: browsers send no header with a WebSocket",
            "schema": {"type": "string"},
        },
    ],
    "responses": {"101": {"description": "Switching to the WebSocket"}},
}
