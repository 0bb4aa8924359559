"""The limits of a turn: model turns in a step and in the whole turn, repeated calls, and steps that fail."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from moorage_api.agent.ports import AgentLimits
from moorage_api.agent.state import AgentState, Ending

MAX_PERIOD = 4
"""The longest sequence of calls whose repetition is noticed, such as A, B, A, B."""
REPEATS_BEFORE_WARNING = 3
"""After this many repetitions, the model is told that it makes no progress."""
ALL_FAILURES_FACTOR = 3
"""A turn may have this many times `max_failed_steps` failed steps, if other steps between them are completed."""


class TurnLimitError(Exception):
    """The turn must end: the model is asked once for a last answer, without tools."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason)
        self.ending = ending


def check_model_turns(state: AgentState, limits: AgentLimits) -> None:
    """Raise TurnLimitError if the model may not be asked again in this step or in this turn."""
    if state.ending is not None:
        return
    again = "Send a message to continue, or raise the limit"
    if state.iterations >= limits.max_iterations:
        reason = f"A step reached its limit of {limits.max_iterations} model turns (`max_iterations`). {again}"
        raise TurnLimitError(Ending(code="max_iterations", reason=reason))
    if state.turn_iterations >= limits.max_model_calls:
        name = "MOORAGE_AGENT_MAX_MODEL_CALLS"
        reason = f"The work reached its limit of {limits.max_model_calls} model turns for one message ({name}). {again}"
        raise TurnLimitError(Ending(code="max_iterations", reason=reason))


def check_failures(state: AgentState, limits: AgentLimits) -> None:
    """Raise TurnLimitError if so many steps failed that a new plan will not help."""
    most = limits.max_failed_steps
    if state.failures >= most or state.all_failures >= most * ALL_FAILURES_FACTOR:
        how = f"{state.failures} steps in a row" if state.failures >= most else f"{state.all_failures} steps"
        reason = f"The work was ended because {how} failed. Send a message that says how to go on"
        raise TurnLimitError(Ending(code="no_progress", reason=reason))


def add_outcome(outcomes: Sequence[str], limits: AgentLimits, *outcome: Any) -> list[str]:
    """The digests of the last calls with one more. Only as many are kept as `count_repeats` can use."""
    document = json.dumps(outcome, sort_keys=True)
    digest = hashlib.sha256(document.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return [*outcomes, digest][-MAX_PERIOD * limits.max_repeats :]


def count_repeats(outcomes: Sequence[str]) -> tuple[int, int]:
    """How often the last calls had the same results in a row, and how many calls are in one repetition.

    The shortest sequence wins: A, A, A, A is one call four times, not two calls twice.
    """
    best = (1, 1)
    for period in range(1, MAX_PERIOD + 1):
        same = period
        while same < len(outcomes) and outcomes[-same - 1] == outcomes[-same - 1 + period]:
            same += 1
        if (times := same // period) > max(best[0], 1):
            best = (times, period)
    return best


def loop_ending(times: int, period: int) -> Ending:
    what = "the same call" if period == 1 else f"the same {period} calls"
    reason = (
        f"The work was ended because the model made {what} {times} times in a row with the same results. "
        "Send a message that says how to go on"
    )
    return Ending(code="no_progress", reason=reason)
