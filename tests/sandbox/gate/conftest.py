"""Fixtures: a gate and its box for each test."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from support.gate import FakeBox, Gate, running_gate


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path, for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="mg") as path:
        yield Path(path)


@pytest.fixture
async def pair(directory: Path) -> AsyncIterator[tuple[Gate, FakeBox]]:
    async with running_gate(directory) as pair:
        yield pair


@pytest.fixture
async def gate(pair: tuple[Gate, FakeBox]) -> Gate:
    return pair[0]


@pytest.fixture
async def box(pair: tuple[Gate, FakeBox]) -> FakeBox:
    return pair[1]
