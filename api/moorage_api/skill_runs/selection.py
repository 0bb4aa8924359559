"""Which skills fit a message best: plain counting of words, so that the same message always has the same answer."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

NAME_WEIGHT = 3.0
DESCRIPTION_WEIGHT = 1.0
NAMED_SCORE = 100.0
"""For a message that names the skill itself."""

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


def ranked(message: str, candidates: Sequence[Candidate]) -> list[Candidate]:
    """All of them, the best fit first; those that fit alike are in the order of their slugs.

    A word counts the more, the fewer skills have it: what is in every description says nothing.
    """
    words = {candidate.slug: (words_of(candidate.name), words_of(candidate.description)) for candidate in candidates}
    spread = Counter(word for name, description in words.values() for word in name | description)
    asked = words_of(message)
    plain = " " + " ".join(re.findall(r"[^\W_]+", message.casefold())) + " "

    def score(candidate: Candidate) -> float:
        name, description = words[candidate.slug]
        total = sum(
            (NAME_WEIGHT * (word in name) + DESCRIPTION_WEIGHT * (word in description))
            * math.log(1 + len(candidates) / spread[word])
            for word in sorted(asked & (name | description))
        )
        if f" {candidate.slug.replace('-', ' ')} " in plain and "-" in candidate.slug:
            total += NAMED_SCORE
        return total

    return sorted(candidates, key=lambda candidate: (-score(candidate), candidate.slug))


def words_of(text: str) -> frozenset[str]:
    """Stems of words; of scripts without blanks, every pair of neighbouring characters."""
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
