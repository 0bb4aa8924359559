"""Ranks skills by relevance to a message, by counting words, so that the same message always has the same result."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

NAME_WEIGHT = 3.0
DESCRIPTION_WEIGHT = 1.0
NAMED_SCORE = 100.0
"""Added if the message contains the name of the skill."""

STOP_WORDS = frozenset(
    """a an and are as at be by can do for from has have how i if in into is it its me my of on or our please so that
    the their them then this to use used using want was we what when where which will with you your""".split()  # noqa: SIM905
)
ENDINGS = ("ations", "ation", "ings", "ing", "ies", "ed", "es", "s")
CJK = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"


@dataclass(frozen=True)
class Candidate:
    slug: str
    name: str
    description: str


def rank(message: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    """All candidates, the most relevant first; candidates with equal scores are ordered by slug.

    A word counts more if fewer skills have it (inverse document frequency).
    """
    words = {candidate.slug: (words_of(candidate.name), words_of(candidate.description)) for candidate in candidates}
    skill_count_by_word = Counter(word for name, description in words.values() for word in name | description)
    message_words = words_of(message)
    plain_message = " " + " ".join(re.findall(r"[^\W_]+", message.casefold())) + " "

    def score(candidate: Candidate) -> float:
        name, description = words[candidate.slug]
        total = sum(
            (NAME_WEIGHT * (word in name) + DESCRIPTION_WEIGHT * (word in description))
            * math.log(1 + len(candidates) / skill_count_by_word[word])
            for word in sorted(message_words & (name | description))
        )
        if f" {candidate.slug.replace('-', ' ')} " in plain_message and "-" in candidate.slug:
            total += NAMED_SCORE
        return total

    return sorted(candidates, key=lambda candidate: (-score(candidate), candidate.slug))


def words_of(text: str) -> frozenset[str]:
    """The stems of the words. For Chinese, Japanese and Korean: every pair of neighbouring characters."""
    found: set[str] = set()
    for word in re.findall(rf"{CJK}+|(?:(?!{CJK})[^\W_])+", text.casefold()):
        if re.match(CJK, word):
            found.update(word[place : place + 2] for place in range(max(1, len(word) - 1)))
        elif word not in STOP_WORDS:
            found.add(stem(word))
    return frozenset(found)


def stem(word: str) -> str:
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word.removesuffix("e") if len(word) > 3 else word
