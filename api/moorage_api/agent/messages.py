"""Build and shorten transcript messages."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moorage_api.agent.model.incoming.answers import RawCall
from moorage_api.agent.model.outgoing import pictures
from moorage_api.agent.ports import PICTURES, Message
from moorage_api.agent.state import OpenCall


def user_message(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant_message(text: str) -> Message:
    return {"role": "assistant", "content": text}


def call_message(text: str, calls: Sequence[OpenCall], raw: Sequence[RawCall]) -> Message:
    """An assistant message with tool calls that carry our ids. `content` is never null: one server fails on null.

    Invalid arguments become an empty object, because servers parse the arguments of earlier calls again.
    """
    return assistant_message(text) | {
        "tool_calls": [
            {
                "id": call.id,
                "type": "function",
                "function": {
                    "name": valid_name(call.function or item.name),
                    "arguments": json.dumps(call.args, ensure_ascii=False),
                },
            }
            for call, item in zip(calls, raw, strict=True)
        ],
    }


def valid_name(name: str) -> str:
    """The name as servers accept it in a history. A model may invent any name, and the session must go on."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "unnamed"


def tool_message(call: OpenCall, text: str) -> Message:
    return {"role": "tool", "tool_call_id": call.id, "content": f"{text}\n\n{call.note}" if call.note else text}


def content_text(message: Mapping[str, Any]) -> str:
    """The text of a message. The content of some models' messages is a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content)
    return str(content)


def clip(text: str, limit: int, *, hint: str = "") -> str:
    """Keep the beginning and the end of a text longer than `limit` characters and say how much was removed."""
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    tail = limit - head
    return f"{text[:head]}\n[… {len(text) - limit} characters left out{hint} …]\n{text[len(text) - tail :]}"


def clip_content(message: Message, limit: int) -> Message:
    """Clip the message's content and the texts in the arguments of its calls."""
    return _rewrite_texts(message, lambda text: clip(text, limit))


def _rewrite_texts(message: Message, rewrite: Callable[[str], str]) -> Message:
    """Rewrite the texts. The fields that only the model understands stay: a model may require them of every call."""
    text = content_text(message)
    result = message if (rewritten := rewrite(text)) == text else message | {"content": rewritten}
    if calls := message.get("tool_calls"):
        result = result | {
            "tool_calls": [
                call
                | {
                    "function": call["function"]
                    | {"arguments": _rewrite_arguments(call["function"]["arguments"], rewrite)}
                }
                for call in calls
            ]
        }
    return result


def _rewrite_arguments(arguments: str, rewrite: Callable[[str], str]) -> str:
    values = json.loads(arguments)
    return json.dumps(
        {name: rewrite(value) if isinstance(value, str) else value for name, value in values.items()},
        ensure_ascii=False,
    )


def merge_user_messages(messages: Sequence[Message]) -> list[Message]:
    """Join consecutive user messages, because some servers require user and assistant messages to alternate."""
    result: list[Message] = []
    for message in messages:
        if result and message["role"] == "user" and result[-1]["role"] == "user":
            both = [*pictures.references(result[-1]), *pictures.references(message)]
            joined = user_message(f"{result[-1]['content']}\n\n{message['content']}")
            result[-1] = joined | {PICTURES: both} if both else joined
        else:
            result.append(message)
    return result


def _without_data(message: Message) -> Message:
    if message["role"] == "tool":
        said = "(left out, because the server of the model refused it)"
        return {key: value for key, value in message.items() if key != PICTURES} | {"content": said}
    calls = [call | {"function": call["function"] | {"arguments": "…"}} for call in message.get("tool_calls", ())]
    return message | {"tool_calls": calls} if calls else message


def flatten(message: Message, *, is_bare: bool = False) -> Message:
    """The message as plain text of the user or the model. Every server accepts such a history. Its pictures stay.

    `is_bare`: without results and arguments.
    """
    if is_bare:
        message = _without_data(message)
    if message["role"] == "tool":
        flat = user_message(f"[Moorage] Result of `{message['tool_call_id']}`:\n{message['content']}")
        return flat | ({PICTURES: message[PICTURES]} if PICTURES in message else {})
    if message["role"] == "user":
        return message
    calls = [
        f"[Called {call['function']['name']}({call['function']['arguments']}) as `{call['id']}`]"
        for call in message.get("tool_calls", ())
    ]
    return {"role": message["role"], "content": "\n".join(filter(None, [content_text(message), *calls]))}
