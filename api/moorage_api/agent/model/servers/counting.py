"""Compare the server's count of a request's tokens with ours, and notice a server that does not read all of it.

Ollama reads the end of a request that is longer than its window and says nothing; only its usage is smaller then
(ollama#3839, ollama#14259). Newer versions keep half of the window (ollama#17427).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

LEAST_RATIO, MOST_RATIO = 0.8, 2.5
FORGETTING = 0.95
"""How fast the ratio sinks. It rises at once, because a request that is too long is refused."""

LEAST_SENT = 1_000
"""Shorter requests say little about the ratio."""
LEAST_CUT = 1_500
"""No server reads fewer tokens than this of a longer request, so a smaller count is a count of something else."""
SHORT = 0.6
"""A count below this share of what earlier counts lead us to expect is too small."""
SHRUNK = 0.75
"""A count below this share of the count before is too small when the request has grown."""
PARTIAL = 0.4
"""A count below this share of the largest one is too small for a cut: what the server had cached is not in it."""
UNKNOWN_SHORT, UNKNOWN_EXACT = 0.5, 0.85
"""Without earlier counts: a count below this share of our own is too small, and one that is exactly a window's size is
too small below the second share."""
UNKNOWN_SENT = 4_000
GROWN, STALLED = 500, 0.3
"""A request that has grown by so many tokens is expected to add more than this share of them to the count."""
STEP, NEAR = 1024, 8
"""Windows are multiples of 1024, and a server cuts to one of them or to half of it and two or three tokens more."""

Verdict = Literal["whole", "cut", "unclear"]


class TokenCount(BaseModel):
    """How the server's count compares with ours. Applies to the model `model` only."""

    model: str = ""
    ratio: float = 1.0
    """The server's tokens for one of ours."""
    sent: int = 0
    """Our count of the last request; `counted` is the server's."""
    counted: int = 0
    largest: int = 0
    """The largest count of the server for a request that it read whole."""
    is_partial: bool = False
    """The server does not count what it had cached, so its counts say nothing about cuts."""
    has_told_user_of_cut: bool = False
    """The user knows that the server cuts."""


def compare(before: TokenCount, *, model: str, sent: int, counted: int) -> tuple[TokenCount, Verdict]:
    """The new comparison, and whether the server read the whole request.

    `sent` is our count of the request, `counted` the server's.
    """
    if before.model != model:
        before = TokenCount(model=model)
    if before.is_partial or sent < LEAST_SENT or counted <= 0:
        return before, "whole"
    verdict = _judge_known(before, sent, counted) if before.largest else _judge_first(sent, counted)
    if verdict == "partial":
        return before.model_copy(update={"is_partial": True}), "whole"
    if verdict == "cut":
        return before, "cut"
    ratio = min(max(counted / sent, LEAST_RATIO), MOST_RATIO)
    if before.largest:
        ratio = max(ratio, before.ratio * FORGETTING)
    numbers = {"ratio": ratio, "sent": sent, "counted": counted, "largest": max(before.largest, counted)}
    return before.model_copy(update=numbers), verdict


def _judge_known(before: TokenCount, sent: int, counted: int) -> Verdict | Literal["partial"]:
    grown = sent - before.sent
    if counted == before.counted and grown > NEAR * NEAR:
        return "cut" if counted >= LEAST_CUT else "partial"
    is_shrunk = grown >= 0 and counted < SHRUNK * before.counted
    if is_shrunk or counted < SHORT * before.ratio * sent:
        return "cut" if counted >= max(LEAST_CUT, PARTIAL * before.largest) else "partial"
    if grown >= GROWN and counted - before.counted < STALLED * before.ratio * grown:
        return "cut" if (counted + NEAR) % STEP <= 2 * NEAR else "unclear"
    return "whole"


def _judge_first(sent: int, counted: int) -> Verdict | Literal["partial"]:
    if sent < UNKNOWN_SENT or counted >= UNKNOWN_EXACT * sent:
        return "whole"
    is_exact = counted % STEP in (0, 2, 3)
    if counted < UNKNOWN_SHORT * sent:
        if counted < LEAST_CUT:
            return "partial"
        return "cut" if is_exact or (counted + NEAR) % STEP <= 2 * NEAR else "unclear"
    return "cut" if is_exact else "whole"
