"""Decide whether a call that stands in the text of an answer is a call. Servers without a parser leave them there.

A page can make a model repeat any text, so a text is weak evidence. See docs/decisions/0081-calls-in-texts.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from moorage_api.agent.model.incoming.answers import calls_in_text
from moorage_api.agent.model.incoming.calls import RawCall

PROOFS = 2
"""Answers in a row that are nothing but calls prove that their server leaves calls in the text."""
RESULT_HEAD = "[Moorage] Result of"
"""Begins a tool result that is sent as plain text."""


class TextCalls:
    """Decides for one model whether the calls in its texts are calls.

    `is_proven`: this server leaves calls in the text.
    """

    def __init__(self, *, is_proven: bool) -> None:
        self.is_proven = is_proven
        self._in_a_row = 0

    def read(
        self, text: str, *, names: Collection[str], messages: Sequence[Mapping[str, Any]], is_plan: bool
    ) -> tuple[RawCall, ...]:
        """The calls that the text consists of, if it is proven that they are calls; otherwise none.

        `names`: the functions that the request offered. `is_plan`: it asked for a plan.
        """
        calls = calls_in_text(text, names)
        results = [_content(message) for message in messages if _is_result(message)]
        plain = _plain(text)
        if any(plain in _plain(result) for result in results):
            return ()
        if not calls:
            self._in_a_row = 0
        elif is_plan or not results or self._in_a_row:
            self._in_a_row += 1
        self.is_proven = self.is_proven or self._in_a_row >= PROOFS
        return calls if self.is_proven else ()


def _is_result(message: Mapping[str, Any]) -> bool:
    return message.get("role") == "tool" or RESULT_HEAD in _content(message)


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return str(content or "")


def _plain(text: str) -> str:
    return "".join(text.split())
