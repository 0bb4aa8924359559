"""Talking to the user while at work. The executor itself carries these out: they are events, not calls."""

from __future__ import annotations

from moorage_api.agent.toolsets.schema import function, text, texts

NOTIFY = function(
    "message_notify_user",
    "Tell the user something in passing, without waiting for an answer: progress worth knowing, a change of course.",
    {"text": text("What to tell, in the user's language")},
)

ASK = function(
    "message_ask_user",
    "Ask the user and wait for the answer. The work rests until it comes, so ask only when you can't go on without.",
    {"text": text("The question, in the user's language")},
    {
        "attachments": texts("Absolute paths of files to show with the question"),
        "suggest_user_takeover": text(
            "`browser` when the user should do something in the browser (log in, pass a check)",
            choices=("none", "browser"),
        ),
    },
)
