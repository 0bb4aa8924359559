"""Pauses between attempts."""

from __future__ import annotations

import pytest

from moorage_common.backoff import Backoff


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (10_000, 60.0)],
)
def test_each_failure_doubles_the_pause_up_to_the_longest(failures: int, seconds: float) -> None:
    assert Backoff(0.5, 60.0).pause_seconds(failures) == seconds


def test_jitter_only_shortens_a_pause() -> None:
    pauses = [Backoff(1.0, 8.0, jitter=0.5).pause_seconds(4) for _ in range(1000)]
    assert 4.0 <= min(pauses) < max(pauses) <= 8.0
