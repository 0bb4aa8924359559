"""Other forms of a conversation that a server refuses without a clear reason, so that no session is dead for good.

Each form keeps less of it than the one before. A form is stored with the state, so the next request begins with it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from moorage_api.agent import prompts
from moorage_api.agent.ports import Message
from moorage_api.agent.turn import compaction
from moorage_api.agent.turn.work import Work

Form = Callable[[Work], Awaitable[bool]]
"""Changes the form of the conversation. False if it has this form already."""


async def leave_out_results(work: Work) -> bool:
    """Send no results of tools and no arguments: a page may hold words that the server's filter refuses."""
    shortened, end = work.state.shortened, len(work.journal.transcript)
    start = max(shortened.bare_before, shortened.summarised_before)
    if not any(message.get("tool_calls") or message["role"] == "tool" for message in work.journal.transcript[start:]):
        return False
    await work.record(shortened=shortened.model_copy(update={"flat_before": end, "bare_before": end}))
    return True


async def leave_out_conversation(work: Work) -> bool:
    """Send only the user's newest message, what came after it, and the user's earlier words."""
    shortened, cut = work.state.shortened, _place_of_newest_message(work)
    if cut <= shortened.summarised_before:
        return False
    quotes = compaction.quote_user(work.journal.transcript[:cut], work.llm.context_tokens / 8)
    left_out = {"summarised_before": cut, "summary": prompts.LEFT_OUT, "quotes": quotes}
    await work.record(shortened=shortened.model_copy(update=left_out))
    return True


async def leave_out_quotes(work: Work) -> bool:
    """Leave out the user's earlier words, too: they may be what is refused."""
    shortened = work.state.shortened
    if not shortened.quotes:
        return False
    await work.record(shortened=shortened.model_copy(update={"quotes": []}))
    return True


FORMS: tuple[Form, ...] = (compaction.flatten_history, leave_out_results, leave_out_conversation, leave_out_quotes)


def _place_of_newest_message(work: Work) -> int:
    """The place of the newest message that the user wrote; 0 if the user wrote no message."""
    places = [place for place, message in enumerate(work.journal.transcript) if _is_from_user(message)]
    return places[-1] if places else 0


def _is_from_user(message: Message) -> bool:
    return message["role"] == "user" and not str(message["content"]).startswith(prompts.MARK)
