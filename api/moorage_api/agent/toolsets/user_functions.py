"""Functions that speak to the user during a step. The executor carries them out as events; no toolset runs them."""

from __future__ import annotations

from moorage_api.agent.toolsets.function_schema import function, text, texts

NOTIFY = function(
    "message_notify_user",
    "Send the user a message without waiting for an answer: important progress, or a change of approach.",
    {"text": text("The message, in the user's language")},
)

ASK = function(
    "message_ask_user",
    "Ask the user and wait for the answer. The work stops until the answer comes, so ask only if you cannot continue "
    "without it.",
    {"text": text("The question, in the user's language")},
    {
        "attachments": texts("Absolute paths of files to show with the question"),
        "suggest_user_takeover": text(
            "`browser` when the user should do something in the browser (log in, pass a check)",
            choices=("none", "browser"),
        ),
    },
)
