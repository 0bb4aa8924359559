"""What ends is started again."""

from __future__ import annotations

import pytest

from moorage_common.backoff import Backoff
from moorage_common.keeper import keep_running

QUICK = Backoff(0.0, 0.0)


async def test_what_ends_is_started_again_until_its_owner_says_stop() -> None:
    results = iter(["first", "second", "third"])
    seen: list[tuple[str, int]] = []

    def on_end(result: str, failures: int) -> bool:
        seen.append((result, failures))
        return result != "third"

    async def run() -> str:
        return next(results)

    await keep_running(run, on_end=on_end, backoff=QUICK, steady_seconds=60)
    assert seen == [("first", 1), ("second", 2), ("third", 3)]


async def test_what_ran_steadily_counts_as_the_first_end_again() -> None:
    counts: list[int] = []

    def on_end(_: None, failures: int) -> bool:
        counts.append(failures)
        return len(counts) < 3

    async def run() -> None:
        return None

    await keep_running(run, on_end=on_end, backoff=QUICK, steady_seconds=-1)
    assert counts == [1, 1, 1]


async def test_an_error_of_the_work_reaches_the_owner() -> None:
    async def run() -> None:
        raise LookupError("broken")

    with pytest.raises(LookupError):
        await keep_running(run, on_end=lambda _, __: True, backoff=QUICK, steady_seconds=1)
