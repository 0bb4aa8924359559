"""The migrations create exactly the tables that the models describe (like `alembic check`, in a real database)."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from moorage_api.database import create_engine
from moorage_api.migrations import config
from moorage_api.migrations.tables import Base


async def test_a_migrated_database_matches_the_models(database_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, Base.metadata))

    engine = create_engine(database_url)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
        assert await connection.run_sync(lambda sync: len(ScriptDirectory.from_config(config(sync)).get_heads())) == 1
    await engine.dispose()
