"""A job of 60 calls whose outputs overflow a small window many times, and a model that knows only what it reads.

The model keeps nothing between requests: which parts it has added, and what the user wants, it must find in each
request anew. So a lost result, a lost word of the user or a wrong summary makes the answer wrong or repeats a call.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from moorage_api.agent import prompts
from moorage_api.agent.messages import content_text
from moorage_api.agent.ports import GateResult
from support.agent import shell, shell_output
from support.llm import Finish, Plan, Request, Say, Turn

PARTS = 60
OUTPUT_LINES = 150
MESSAGE = (
    "Add up the amounts of part-1.txt to part-60.txt, one file after the other, and end your answer with the password "
    "Kingfisher-Ö7."
)
PASSWORD = re.compile(r"the password (\S+-\S+?)\.")
AMOUNTS = [random.Random(part).randrange(1_000, 9_999) for part in range(1, PARTS + 1)]
TOTAL = sum(AMOUNTS)
ANSWER = f"The total is {TOTAL}. Kingfisher-Ö7"

READ = re.compile(r"part-(\d+)\.txt has the amount (\d+)")
SUMMARY = re.compile(r"parts 1 to (\d+) add up to (\d+)")


def read_part(_function: str, args: Mapping[str, Any]) -> GateResult:
    """The output of a command: the amount of a part, and many lines around it."""
    part = int(str(args["command"]).removeprefix("read-part "))
    noise = "".join(f"line {line} of part-{part}.txt says nothing of interest to you\n" for line in range(OUTPUT_LINES))
    return shell_output(f"part-{part}.txt has the amount {AMOUNTS[part - 1]}\n{noise}", command=str(args["command"]))


def is_summary(request: Request) -> bool:
    """Whether the model is asked to summarise the older part of the conversation."""
    return prompts.SHORTEN in content_text(request["messages"][-1])


def add_up(request: Request) -> Turn:
    """The answer of a careful model that has read only this request."""
    messages = request["messages"]
    text = "\n".join(content_text(message) for message in messages if message["role"] != "system")
    last = content_text(messages[-1])
    done, total = known_total(text)
    if is_summary(request):
        return Say(f"Of the files, parts 1 to {done} add up to {total}.")
    if prompts.SUMMARISE in last:
        password = PASSWORD.search(text)
        return Say(f"The total is {total}. {password[1] if password else 'I do not know the password'}")
    if len(messages) == 2 and not done:
        return Plan("Sum", "I read the parts one by one.", ["Add up all parts"])
    if done < PARTS:
        return shell(f"read-part {done + 1}")
    return Finish(f"All {PARTS} parts are read: {total}.")


def known_total(text: str) -> tuple[int, int]:
    """Up to which part all amounts are known, and their sum."""
    done, total = max(((int(part), int(amount)) for part, amount in SUMMARY.findall(text)), default=(0, 0))
    amounts = {int(part): int(amount) for part, amount in READ.findall(text)}
    while done + 1 in amounts:
        done += 1
        total += amounts[done]
    return done, total
