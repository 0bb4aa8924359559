"""One whole platform for these tests, with a scripted model. Its host gives commands the published MCP servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from support.accounts import Person, admin, register
from support.llm import Request, ScriptedModel, Turn, by_first_message
from support.processes import shared_platform
from support.remote_tools import ToolServer, a2a_agent, command_paths, everything
from support.services import Services, run
from support.world import ToolsWorld


@pytest.fixture(scope="session")
def world(services: Services) -> Iterator[ToolsWorld]:
    scripts: list[tuple[str, Sequence[Turn]]] = []

    def choose(request: Request) -> Turn:
        return by_first_message(scripts)(request)

    with ScriptedModel(choose, chunk_chars=10_000) as model:
        changes = {"llm_base_url": model.url, "llm_api_key": "k", "llm_model": "m"}
        with shared_platform(services, **changes) as platform:
            run(platform.start_host(command_paths=command_paths()))
            api = run(platform.start_api())
            run(platform.start_runner())
            yield ToolsWorld(platform, api.url, model, scripts)


@pytest.fixture(scope="session")
def streamable() -> Iterator[ToolServer]:
    with everything("streamableHttp") as server:
        yield server


@pytest.fixture(scope="session")
def sse() -> Iterator[ToolServer]:
    with everything("sse") as server:
        yield server


@pytest.fixture(scope="session")
def agent() -> Iterator[ToolServer]:
    with a2a_agent("--streaming") as server:
        yield server


@pytest.fixture
async def alice(world: ToolsWorld) -> AsyncIterator[Person]:
    async with await register(world.url) as person:
        yield person


@pytest.fixture
async def root(world: ToolsWorld) -> AsyncIterator[Person]:
    async with await admin(world.url, world.platform.database_url) as person:
        yield person
