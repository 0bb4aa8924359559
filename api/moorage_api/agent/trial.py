"""Try what the agent needs from a model, part by part: a plan, a tool call, streaming, a picture, a large window.

The requests go through `LlmClient`, as those of a run do, so its corrections for families of models are tried too.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from moorage_api.agent import prompts
from moorage_api.agent.messages import assistant_message, call_message, clip, tool_message, user_message
from moorage_api.agent.model.incoming import foreign
from moorage_api.agent.model.incoming.answers import Answer, AnswerBuilder, calls_in_text, parse_object
from moorage_api.agent.model.llm import LlmClient
from moorage_api.agent.model.servers.errors import LlmError
from moorage_api.agent.ports import AgentLimits, Message
from moorage_api.agent.state import OpenCall
from moorage_api.agent.tokens import count_tokens
from moorage_api.agent.toolsets.function_schema import function, text
from moorage_api.agent.toolsets.plan_functions import MAKE_PLAN

logger = logging.getLogger(__name__)

PartName = Literal["plan", "tool_call", "streaming", "picture", "window"]
TrialOutcome = Literal["works", "does_not_work", "not_tried"]
PARTS: tuple[PartName, ...] = ("plan", "tool_call", "streaming", "picture", "window")
NEEDED: frozenset[PartName] = frozenset({"plan", "tool_call"})
"""Without these the agent cannot work."""

LOST_CODES = frozenset({"llm_unavailable", "llm_unauthorized", "llm_not_found", "llm_rate_limited"})
"""After such an error the other parts would fail for the same reason, so they are not tried."""

MIN_WINDOW_TOKENS = 12_000
"""A request of this size must be read whole: the agent's prompt, its tools and a few long results."""
READ_SHARE = 0.5
"""A server that counts less than this share of our estimate has not read the whole request."""
QUOTE_CHARS = 160
FEW_PIECES = 5

LOOK_UP = function("look_up", "Look up the number of a harbour", {"harbour": text("Name of the harbour")})
NUMBER = "4711"
PARSER_HINT = "start the server with its parser for tool calls (vLLM: `--enable-auto-tool-choice --tool-call-parser …`)"
WINDOW_HINT = (
    "give the model a larger window (Ollama: `OLLAMA_CONTEXT_LENGTH=64000 ollama serve`; llama.cpp: `--ctx-size`; "
    "vLLM: `--max-model-len`)"
)


@dataclass(frozen=True)
class PartResult:
    """`message` says in words what was seen, or why the part does not work."""

    part: PartName
    outcome: TrialOutcome
    message: str
    seconds: float


def is_usable(results: Iterable[PartResult]) -> bool:
    """Whether the agent can work with the model."""
    return all(result.outcome == "works" for result in results if result.part in NEEDED)


class _NotWorkingError(Exception):
    """The model answered, but not as the agent needs it."""


class Trial:
    """One trial of one model. Call `try_part` for each of `PARTS`, in this order."""

    def __init__(self, llm: LlmClient, *, part_seconds: float, window_tokens: int = MIN_WINDOW_TOKENS) -> None:
        self._llm = llm
        self._part_seconds = part_seconds
        self._window_tokens = window_tokens
        self._lost = ""
        """Why the server cannot be used at all; empty if it can."""
        self._parts: Mapping[PartName, Callable[[], Awaitable[str]]] = {
            "plan": self._plan,
            "tool_call": self._tool_call,
            "streaming": self._streaming,
            "picture": self._picture,
            "window": self._window,
        }

    async def try_part(self, part: PartName) -> PartResult:
        """Try one part, in at most `part_seconds`. Raises nothing but CancelledError."""
        if self._lost:
            return PartResult(part, "not_tried", self._lost, 0.0)
        began = time.monotonic()
        outcome: TrialOutcome = "does_not_work"
        try:
            async with asyncio.timeout(self._part_seconds):
                message = await self._parts[part]()
            outcome = "works"
        except TimeoutError:
            message = f"It was not finished after {self._part_seconds:g} s"
        except _NotWorkingError as error:
            message = str(error)
        except LlmError as error:
            message = str(error)
            if error.code in LOST_CODES:
                self._lost = "Not tried, because the model could not be used before"
        except Exception as error:  # the other parts are tried all the same
            logger.exception("The trial of the part %s failed", part)
            message = f"Moorage could not read the answer ({type(error).__name__})"
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise asyncio.CancelledError  # Ctrl-C, and a library below has swallowed it
        return PartResult(part, outcome, message, round(time.monotonic() - began, 1))

    async def _plan(self) -> str:
        system = prompts.system_prompt("", started_on="", result_chars=AgentLimits().max_result_chars)
        messages = [
            {"role": "system", "content": system},
            user_message("Write the word hello into the file hello.txt, and then read the file."),
        ]
        answer = await self._llm.ask(messages, tools=[MAKE_PLAN], force=True, max_retries=0)
        in_text = calls_in_text(answer.text, {MAKE_PLAN.name})
        plans = [call for call in answer.calls or in_text if call.name == MAKE_PLAN.name]
        if not plans:
            raise _NotWorkingError(f"The model did not call `{MAKE_PLAN.name}`. {_describe(answer)}")
        steps = (parse_object(plans[0].arguments) or {}).get("steps")
        if not steps:
            raise _NotWorkingError(f"The model called `{MAKE_PLAN.name}` without steps: {_quote(plans[0].arguments)}")
        if not answer.calls:
            return f"The model wrote the call of `{MAKE_PLAN.name}` as text; {PARSER_HINT}"
        count = len(steps) if isinstance(steps, list) else 1
        return f"The model called `{MAKE_PLAN.name}` with {count} step{'s' if count != 1 else ''}"

    async def _tool_call(self) -> str:
        """A call, its result, and an answer that uses the result."""
        transcript = [
            user_message(f"Call `{LOOK_UP.name}` for the harbour Bergen. Then tell me the number that it returned.")
        ]
        answer = await self._llm.ask(transcript, tools=[LOOK_UP], max_retries=0)
        if not answer.calls:
            hint = f"; {PARSER_HINT}" if calls_in_text(answer.text, {LOOK_UP.name}) else ""
            raise _NotWorkingError(f"The model did not call `{LOOK_UP.name}`{hint}. {_describe(answer)}")
        wrong = [call for call in answer.calls if call.name != LOOK_UP.name or not parse_object(call.arguments)]
        if wrong:
            raise _NotWorkingError(
                f"The model called `{_quote(wrong[0].name)}` with unusable arguments: {_quote(wrong[0].arguments)}"
            )
        transcript += self._exchange(answer)
        last = await self._llm.ask(foreign.restore(transcript, self._llm.identity), tools=[LOOK_UP], max_retries=0)
        if NUMBER not in last.text:
            raise _NotWorkingError(f"The model called the tool, but did not use its result. {_describe(last)}")
        return "The model called a tool and used its result"

    def _exchange(self, answer: Answer) -> list[Message]:
        calls = [OpenCall(number=place, function=call.name) for place, call in enumerate(answer.calls, 1)]
        for call, raw in zip(calls, answer.calls, strict=True):
            call.args = parse_object(raw.arguments) or {}
        message = foreign.attach(
            call_message(answer.text, calls, answer.calls),
            self._llm.identity,
            text=answer.text,
            fields=answer.foreign,
            calls=[call.foreign for call in answer.calls],
        )
        return [message, *(tool_message(call, f"The number is {NUMBER}.") for call in calls)]

    async def _streaming(self) -> str:
        sizes: set[int] = set()

        async def note(builder: AnswerBuilder) -> None:
            if len(sizes) < FEW_PIECES:  # looking at every piece of an endless answer would take ever more time
                sizes.add(len(builder.answer().text))

        question = "Write the numbers from 1 to 40 in words, separated by commas. Write nothing else."
        answer = await self._llm.ask([user_message(question)], max_retries=0, on_progress=note)
        if not answer.text.strip():
            raise _NotWorkingError("The answer has no text")
        if len(sizes - {0}) < 2:
            raise _NotWorkingError("The answer came in one piece, so users see nothing until it is complete")
        return "The answer came in pieces"

    async def _picture(self) -> str:
        question = "Which colour has the square in this picture? Answer with one English word."
        url = f"data:image/png;base64,{base64.b64encode(orange_square()).decode()}"
        parts = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
        answer = await self._llm.ask([{"role": "user", "content": parts}], max_retries=0)
        if "orange" not in answer.text.lower():
            raise _NotWorkingError(f"The model was shown an orange square and does not see it. {_describe(answer)}")
        if not self._llm.sees:
            return "The model sees pictures. Its name does not say so, so set the option `sees`, or it gets words"
        return "The model sees pictures"

    async def _window(self) -> str:
        """Say a number at the beginning of a long conversation and ask for it at the end."""
        messages = [user_message(f"Remember this number: {NUMBER}."), assistant_message("I will remember it.")]
        passage = "The ferry leaves the harbour in the morning and comes back with the tide in the evening. " * 20
        page = [user_message(passage), assistant_message("I have read it.")]
        messages += page * (self._window_tokens // count_tokens(page) + 1)
        question = "Which number did I ask you to remember? Answer with the number only."
        answer = await self._llm.ask([*messages, user_message(question)], max_retries=0)
        sent, counted = count_tokens(messages), answer.usage.input_tokens if answer.usage else 0
        if counted and counted < sent * READ_SHARE:
            raise _NotWorkingError(
                f"The server read only {counted} of about {sent} tokens and did not say so: its window is too small. "
                f"To use this model, {WINDOW_HINT}"
            )
        if NUMBER not in answer.text:
            raise _NotWorkingError(
                f"The model does not know what stood at the beginning of a request of about {sent} tokens. If its "
                f"window is smaller, {WINDOW_HINT}. {_describe(answer)}"
            )
        return f"A request of about {sent} tokens was read whole. {await self._compare_windows()}"

    async def _compare_windows(self) -> str:
        """Compare what the server says of its window with what Moorage counts on."""
        listed = await self._llm.find_window()
        if listed is not None:
            await self._llm.learn_window(listed, "list")  # as a run does, unless the admin has set the window
        used = self._llm.context_tokens
        if listed is None:
            return f"The server does not say the size of its window; Moorage counts on {used} tokens"
        if listed < used:
            raise _NotWorkingError(
                f"Moorage counts on a window of {used} tokens, but the server says that it has {listed}: set "
                f"`context_tokens` (or MOORAGE_LLM_CONTEXT_TOKENS) to {listed} or less, or {WINDOW_HINT}"
            )
        return f"The server says that its window has {listed} tokens, and Moorage uses {used}"


def _describe(answer: Answer) -> str:
    if answer.calls:
        return f"It called `{_quote(answer.calls[0].name)}`"
    return f"It answered: {_quote(answer.text)}" if answer.text.strip() else "Its answer was empty"


def _quote(words: str) -> str:
    return clip(re.sub(r"\s+", " ", words).strip(), QUOTE_CHARS)


def orange_square(*, pixels: int = 64) -> bytes:
    """A PNG picture. Source of the format: W3C, "Portable Network Graphics"."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", pixels, pixels, 8, 2, 0, 0, 0)
    row = b"\0" + bytes((255, 128, 0)) * pixels
    rows = zlib.compress(row * pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
