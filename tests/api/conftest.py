"""One api process for all tests that only need HTTP. Each test registers its own users."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from moorage_api.database import create_engine
from moorage_api.settings import Settings
from support.accounts import Person, admin, register
from support.processes import shared_platform
from support.services import Services, run


@dataclass(frozen=True)
class Api:
    url: str
    database_url: str
    settings: Settings

    async def sql(self, statement: str, **parameters: object) -> None:
        """Run SQL for a state that no endpoint can produce."""
        engine = create_engine(self.database_url)
        async with engine.begin() as connection:
            await connection.execute(text(statement), parameters)
        await engine.dispose()

    async def set_status(self, person: Person, status: str) -> None:
        await self.sql("UPDATE users SET status = :status WHERE id = CAST(:id AS uuid)", status=status, id=person.id)


@pytest.fixture(scope="session")
def api(services: Services) -> Iterator[Api]:
    with shared_platform(services) as platform:
        process = run(platform.start_api())
        run(platform.start_host())
        yield Api(process.url, platform.database_url, platform.settings())


@pytest.fixture
async def alice(api: Api) -> AsyncIterator[Person]:
    async with await register(api.url) as person:
        yield person


@pytest.fixture
async def bob(api: Api) -> AsyncIterator[Person]:
    async with await register(api.url) as person:
        yield person


@pytest.fixture
async def root(api: Api) -> AsyncIterator[Person]:
    """A super_admin."""
    async with await admin(api.url, api.database_url) as person:
        yield person
