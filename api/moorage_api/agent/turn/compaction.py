"""Keep requests within the model's context window.

The stored transcript stays complete; `AgentState.shortened` says which part of it the model no longer gets.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from moorage_api.agent import prompts
from moorage_api.agent.messages import (
    clip,
    clip_content,
    flatten,
    merge_user_messages,
    user_message,
)
from moorage_api.agent.model.incoming import foreign
from moorage_api.agent.model.incoming.answers import Answer
from moorage_api.agent.model.outgoing import pictures
from moorage_api.agent.model.servers.errors import LlmError
from moorage_api.agent.ports import Function, Message
from moorage_api.agent.state import Shortened
from moorage_api.agent.tokens import count_tokens
from moorage_api.agent.turn.work import Work
from moorage_api.events.schemas import ChatEvent

KEPT_AFTER_SUMMARY = 0.25
"""When old messages are summarised, the newest messages up to this share of the room stay."""
ENOUGH = 0.9
"""Largest share of the room that a shortened conversation takes, so that it is not soon shortened again."""
KEPT_QUOTES = 0.25
"""The user's own words in summarised messages stay whole up to this share of the room."""
MIN_QUOTE_CHARS = 100
ASK = "message_ask_user"
LISTED_CHARS = 600
"""Length of a text in the conversation that is sent as one message to be summarised."""
SUMMARY_CHARS = 8_000
SUMMARY_TOKENS = 4_000
"""Limit of the answer with a summary; thoughts count."""
LEAST_SUMMARY_TOKENS = 1_000
LONGEST_CLIPPED_CHARS = 100_000
LEAST_CLIPPED_CHARS = 200
LEAST_TOKENS = 1_000


async def build_request(work: Work) -> list[Message]:
    """Build the messages to send: the system prompt, then the transcript, shortened if it does not fit.

    Each request begins with the messages of the one before, except after the conversation was shortened. The state
    says how, so that another runner builds the same request.
    """
    system, room = _system_message(work), count_room(work)
    await _limit_pictures(work)
    if count_tokens(_view(work)) > room:
        await _shorten(work, system, room)
    return [system, *_clip_to_fit(_view(work), room)]


def _system_message(work: Work) -> Message:
    text = prompts.system_prompt(
        work.tools.guidance, started_on=work.state.started_on, result_chars=work.limits.max_result_chars
    )
    return {"role": "system", "content": text}


async def leave_out_pictures(work: Work, *, keep: int = 0) -> bool:
    """Send words instead of all pictures but the newest from now on. False if no picture can be left out."""
    shortened, transcript = work.state.shortened, work.journal.transcript
    start = max(shortened.pictures_before, shortened.summarised_before)
    places = [place for place in range(start, len(transcript)) for _ in pictures.references(transcript[place])]
    if not places or not work.llm.sees:
        return False
    end = places[-keep] if 0 < keep < len(places) else places[-1] + 1
    if end <= places[0]:
        return False
    await work.record(shortened=shortened.model_copy(update={"pictures_before": end}))
    return True


async def show_pictures_from(work: Work, position: int) -> None:
    """Undo `leave_out_pictures`: the pictures were not the reason."""
    if work.state.shortened.pictures_before != position:
        await work.record(shortened=work.state.shortened.model_copy(update={"pictures_before": position}))


async def _limit_pictures(work: Work) -> None:
    """Leave out the older half of the pictures when they are too many: all at once, so that most requests only grow."""
    shortened = work.state.shortened
    start = max(shortened.pictures_before, shortened.summarised_before)
    most = min(work.limits.max_pictures, work.llm.max_pictures or work.limits.max_pictures)
    if pictures.count(work.journal.transcript[start:]) > most:
        await leave_out_pictures(work, keep=(most + 1) // 2)


async def flatten_history(work: Work) -> bool:
    """Send the calls and results so far as plain text from now on. False if all of them are plain already."""
    shortened, end = work.state.shortened, len(work.journal.transcript)
    start = max(shortened.flat_before, shortened.summarised_before)
    newer = work.journal.transcript[start:]
    if not any(message.get("tool_calls") or foreign.STORED in message for message in newer):
        return False
    await work.record(shortened=shortened.model_copy(update={"flat_before": end}))
    return True


async def reduce_window(work: Work, *events: ChatEvent, named: int | None = None, share: float = 0.7) -> None:
    """Assume a smaller context window from now on, and store `events` with that: `named`, if that is smaller.

    Otherwise a share of what the server has just refused as too long.
    """
    shortened = work.state.shortened
    smaller, now = named or 0, shortened.window(work.llm)
    if not 0 < smaller < now:
        sent = count_tokens(_view(work)) * work.state.token_ratio(work.llm) + work.llm.answer_tokens
        smaller = int(min(now, sent) * share)
    smaller = max(smaller, 2 * LEAST_TOKENS)
    await work.record(
        *events, shortened=shortened.model_copy(update={"context_tokens": smaller, "context_of": work.llm.identity})
    )


def count_room(work: Work) -> int:
    """How many tokens the conversation may have, by our own count."""
    whole = work.state.shortened.window(work.llm)
    window = int(whole / work.state.token_ratio(work.llm))
    answer = int(min(work.llm.answer_tokens, whole // 4) / work.state.token_ratio(work.llm))
    return max(
        window - answer - count_tokens(_system_message(work)) - count_described(work.tools.functions), LEAST_TOKENS
    )


def count_described(tools: Sequence[Function]) -> int:
    """Estimate the tokens of the descriptions of tools."""
    return count_tokens([{"name": tool.name, "about": tool.description, "schema": tool.parameters} for tool in tools])


def _view(work: Work, shortened: Shortened | None = None) -> list[Message]:
    """The transcript as the model gets it: the summary, clipped messages, and the newest messages unchanged."""
    shortened = shortened or work.state.shortened
    start = shortened.summarised_before
    summary = prompts.earlier_conversation(shortened.summary, shortened.quotes, today=shortened.day)
    messages = [user_message(summary)] if start else []
    for position, message in enumerate(foreign.restore(work.journal.transcript[start:], work.llm.identity), start):
        if not work.llm.sees:
            message = pictures.to_words(message, pictures.IS_BLIND)
        elif position < shortened.pictures_before:
            message = pictures.to_words(message, pictures.IS_OLD)
        if position < shortened.clipped_before:
            message = clip_content(message, shortened.clipped_chars)
        messages.append(
            flatten(message, is_bare=position < shortened.bare_before) if position < shortened.flat_before else message
        )
    return merge_user_messages(messages)


async def _shorten(work: Work, system: Message, room: int) -> None:
    """Summarise all but the newest messages; if they alone are too long, clip them, too. Both in one step."""
    shortened = work.state.shortened
    cut = _start_of_newest(work, room * KEPT_AFTER_SUMMARY)
    if cut > shortened.summarised_before:
        changes = {
            "summarised_before": cut,
            "summary": await _summarise(work, system, cut, room),
            "quotes": quote_user(work.journal.transcript[:cut], room * KEPT_QUOTES),
            "day": work.state.today,
        }
        await work.record(shortened=shortened.model_copy(update=changes))
    if count_tokens(_view(work)) > room * ENOUGH:
        await leave_out_pictures(work, keep=1)
    shortened = work.state.shortened
    limit = LONGEST_CLIPPED_CHARS
    while count_tokens(_view(work, shortened)) > room * ENOUGH and limit >= LEAST_CLIPPED_CHARS:
        clipped = {"clipped_before": len(work.journal.transcript), "clipped_chars": limit}
        shortened = shortened.model_copy(update=clipped)
        limit = limit * 2 // 3
    if shortened != work.state.shortened:
        await work.record(shortened=shortened)


def quote_user(messages: Sequence[Message], limit: float) -> list[str]:
    """What the user wrote: messages and answers to questions. The longest are clipped until all fit into `limit`."""
    asked = {
        call["id"] for message in messages for call in message.get("tool_calls", ()) if call["function"]["name"] == ASK
    }
    quotes = [
        str(message["content"])
        for message in messages
        if (message["role"] == "user" and not str(message["content"]).startswith(prompts.MARK))
        or message.get("tool_call_id") in asked
    ]
    chars = max((len(quote) for quote in quotes), default=0)
    while chars > MIN_QUOTE_CHARS and count_tokens([user_message(quote) for quote in quotes]) > limit:
        chars = chars * 3 // 4
        quotes = [clip(quote, chars) for quote in quotes]
    return quotes


def _start_of_newest(work: Work, limit: float) -> int:
    """Index of the first of the newest messages that fit into `limit` tokens; never between a call and its result."""
    transcript = foreign.restore(work.journal.transcript, work.llm.identity)
    total, start = 0, len(transcript)
    for position in range(len(transcript) - 1, -1, -1):
        total += count_tokens(transcript[position])
        if total > limit and start < len(transcript):
            break
        if transcript[position]["role"] != "tool":
            start = position
    return start


async def _summarise(work: Work, system: Message, cut: int, room: int) -> str:
    """Let the model write down what it needs of the messages before `cut`."""
    summary = await _ask_in_place(work, system) or await _ask_apart(work, cut, room)
    # the clipped conversation replaces a summary that failed; the next request reports a lasting error
    limit = min(SUMMARY_CHARS, int(room * KEPT_QUOTES * 3.5))
    return prompts.summary_with_plan(clip(summary or _list_messages(work, cut, room), limit), work.state.steps)


async def _ask_in_place(work: Work, system: Message) -> str:
    """Ask at the end of the conversation, so that the provider has nearly all of the request in its cache.

    Empty if there is no room for that, or no text comes.
    """
    messages = [system, *merge_user_messages([*_view(work), user_message(prompts.SHORTEN)])]
    sent = count_tokens(messages) + count_described(work.tools.functions)
    left = work.state.shortened.window(work.llm) - int(sent * work.state.token_ratio(work.llm))
    if left < LEAST_SUMMARY_TOKENS:
        return ""
    asking = work.llm.ask(
        messages,
        tools=work.tools.functions,
        allowed=(),
        max_tokens=min(left, SUMMARY_TOKENS),
        max_retries=work.limits.max_retries,
        is_long=True,
    )
    return await _text_of(work, asking)


async def _ask_apart(work: Work, cut: int, room: int) -> str:
    """Ask with the conversation as the text of one message. Empty if no text comes."""
    conversation = _list_messages(work, cut, room)
    messages = [user_message(f"{conversation}\n\n{prompts.SHORTEN}")]
    return await _text_of(work, work.llm.ask(messages, max_retries=work.limits.max_retries))


async def _text_of(work: Work, asking: Coroutine[Any, Any, Answer]) -> str:
    try:
        answer = await work.unless_interrupted(asking)
    except LlmError:
        return ""
    return "" if answer.lacks_call else answer.text.strip()


def _list_messages(work: Work, cut: int, room: int) -> str:
    shortened = work.state.shortened
    older = work.journal.transcript[shortened.summarised_before : cut]
    conversation = "\n".join(_to_plain_text(message) for message in older)
    if shortened.summary:
        conversation = f"{prompts.earlier_conversation(shortened.summary)}\n{conversation}"
    return clip(conversation, int(room * 2.5))


def _to_plain_text(message: Message) -> str:
    lines = [f"{message['role']}: {clip(str(message['content']), LISTED_CHARS)}"] if message["content"] else []
    lines += [
        f"{call['function']['name']}({clip(call['function']['arguments'], LISTED_CHARS)})"
        for call in message.get("tool_calls", ())
    ]
    return "\n".join(lines)


def _clip_to_fit(messages: list[Message], room: int) -> list[Message]:
    """Clip the longest texts, with a smaller limit in each pass, until all messages fit: a last resort.

    If that is not enough, drop the fields that only the model understands, oldest first.
    """
    for place, message in enumerate(messages):
        if count_tokens(messages) <= room:
            break
        messages[place] = pictures.to_words(message, pictures.IS_OLD)
    limit = 100_000
    while count_tokens(messages) > room and limit > 200:
        messages = [clip_content(message, limit) for message in messages]
        limit //= 2
    for place, message in enumerate(messages[:-1]):
        if count_tokens(messages) <= room:
            break
        messages[place] = foreign.remove(message)
    return messages
