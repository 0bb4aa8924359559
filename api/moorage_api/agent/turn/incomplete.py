"""Answers that are not whole: what to tell the model when it is asked again, and what to tell the user in the end."""

from __future__ import annotations

from collections.abc import Collection

from moorage_api.agent import prompts
from moorage_api.agent.model.incoming.answers import Answer
from moorage_api.agent.model.incoming.half_answers import is_announcement, is_call_notation, is_nothing_but_notation
from moorage_api.agent.state import AgentState


def cut_problem(answer: Answer) -> str:
    """What to tell the model about an answer that its server ended; empty if the answer is whole."""
    if answer.is_filtered:
        return prompts.FILTERED_TEXT
    return prompts.CUT_TEXT if answer.is_cut else ""


def end_note(answer: Answer) -> str:
    """A note for the user at the end of an answer that its server ended; empty if the answer is whole."""
    if answer.is_filtered:
        return prompts.FILTER_NOTE
    return prompts.CUT_NOTE if answer.is_cut else ""


def step_problem(answer: Answer, names: Collection[str]) -> str:
    """Why a text is not the result of a step; empty if it may be one."""
    if problem := cut_problem(answer):
        return problem
    if answer.lacks_call or is_call_notation(answer.text, names) or is_announcement(answer.text):
        return prompts.TEXT_INSTEAD_OF_CALL
    return ""


def is_result_after_all(state: AgentState, answer: Answer, names: Collection[str]) -> bool:
    """The model repeats a text that looked like a call although it was asked for the call.

    It is the result of the step if calls were made in the step, and the text only contains what looks like a call.
    """
    has_calls = state.iterations > state.invalid + 1
    is_words = not cut_problem(answer) and not answer.lacks_call and not is_announcement(answer.text)
    return has_calls and is_words and not is_nothing_but_notation(answer.text, names)
