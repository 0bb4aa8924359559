"""Any text of a model or its server is read in linear time, so no answer can stop the process for minutes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from moorage_api.agent.model.incoming import answers, half_answers, json_objects
from moorage_api.agent.model.incoming.text_calls import TextCalls
from moorage_api.agent.model.servers.refusals import read_refusal
from moorage_api.agent.model.servers.waits import read_wait

NAMES = ("shell_execute", "make_plan", "call")
LENGTH = 100_000
SECONDS = 10
"""Of processor time. Each text takes a few milliseconds, and takes minutes where the time is not linear."""


def read_text_calls(text: str) -> object:
    messages = [{"role": "tool", "content": text}]
    return TextCalls(is_proven=False).read(text, names=NAMES, messages=messages, is_plan=False)


FUNCTIONS: dict[str, Callable[[str], object]] = {
    "call notation": lambda text: half_answers.is_call_notation(text, NAMES),
    "nothing but notation": lambda text: half_answers.is_nothing_but_notation(text, NAMES),
    "announcement": lambda text: half_answers.is_announcement(text[: half_answers.MAX_ANNOUNCEMENT_CHARS]),
    "thoughts": answers.remove_thoughts,
    "objects": lambda text: list(answers.objects_in(text)),
    "whole object": answers.whole_object,
    "calls": lambda text: answers.calls_in_text(text, NAMES),
    "text calls": read_text_calls,
    "object": json_objects.parse_object,
    "joined objects": json_objects.split_objects,
    "refusal": lambda text: read_refusal(500, text, {}, secrets=("sk-for-tests", "--key--")),
    "wait": lambda text: read_wait({"retry-after": text, "date": text}, [{"retry_after": text}], text),
}
UNITS = (
    "\n",
    " ",
    "\t\n",
    " \n\n",
    "a\n",
    "`",
    "```",
    "```\n",
    "```json\n",
    "```json\n\n",
    "``` ",
    "~~~\nx\n",
    "```\nx\n```\n\n",
    "`a`\n",
    "<",
    "<a",
    "</think>",
    "<think>",
    "<tool_call>",
    "<tool_call> </tool_call>",
    "<head ",
    "<script>",
    "</script><script",
    "&#9",
    "\\",
    "%2",
    "9",
    "{",
    "[",
    "[\n",
    '{"a":',
    '{"name": ',
    "{}",
    "} ",
    "Action: x\n",
    "Action: ",
    "to=functions. ab ",
    "to=functions.",
    "functools ",
    "tool call[[[[",
    "tool_call:",
    "[[[[<<<<****",
    "shell_execute ",
    "shell_execute\n",
    "called ",
    "wait ",
    "retry in 1",
    "1s ",
    "1 s and ",
    "> 1",
    "context length is ",
    "1 + ",
)
FRAMES = ("a{}b", "```json{}b", "<tool_call>a</tool_call>{}x")


@contextmanager
def limit_time(what: str) -> Iterator[None]:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise AssertionError(f"{what} takes more than {SECONDS} s")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("frame", FRAMES)
def test_a_long_text_is_read_in_linear_time(function: str, frame: str) -> None:
    for unit in UNITS:
        text = frame.format(unit * (LENGTH // len(unit)))
        with limit_time(f"{frame.format(unit)!r} in {function}"):
            FUNCTIONS[function](text)
