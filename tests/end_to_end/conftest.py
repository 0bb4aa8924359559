"""Fixtures for the whole platform with real parts. Only the model is scripted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from support.accounts import Person, register
from support.processes import Platform

UseModel = Callable[[str], None]
Register = Callable[[str], Awaitable[Person]]


@pytest.fixture
def use_model(platform: Platform) -> UseModel:
    """Configure the model for the api and the runner that are started after this call."""

    def use(url: str) -> None:
        platform.changes.update(llm_base_url=url, llm_model="scripted", llm_api_key="a key that no client may see")

    return use


@pytest.fixture
async def new_user() -> AsyncIterator[Register]:
    """Registers a user at the api with the given URL."""
    async with AsyncExitStack() as stack:

        async def enter(url: str) -> Person:
            return await stack.enter_async_context(await register(url))

        yield enter
