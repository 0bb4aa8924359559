"""Every migration keeps the rows that the database holds, upwards and downwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from moorage_api import migrations
from moorage_api.database import create_engine
from moorage_api.migrations.tables import Base
from support.rows import Row, add_rows, read_rows
from support.services import Services

REMOVED: Mapping[str, frozenset[str]] = {}
"""What a revision removes on purpose when the schema is upgraded: names of tables, or `table.column`."""


@pytest.fixture
async def bare(services: Services) -> AsyncIterator[AsyncEngine]:
    """A database without tables."""
    url = await services.create_database(template="template0")
    engine = create_engine(url)
    yield engine
    await engine.dispose()
    await services.drop_database(url)


def find_lost(
    before: Mapping[str, Sequence[Row]], after: Mapping[str, Sequence[Row]], *, is_downgrade: bool
) -> list[str]:
    """Missing tables and columns, and rows whose values changed. A downgrade may remove tables and columns."""
    lost = []
    for table, rows in before.items():
        if table not in after:
            lost += [] if is_downgrade else [table]
            continue
        columns = set(rows[0]) & set(after[table][0]) if after[table] else set(rows[0])
        lost += [] if is_downgrade else [f"{table}.{column}" for column in rows[0] if column not in columns]
        kept = [{name: row[name] for name in columns} for row in after[table] if columns <= set(row)]
        lost += [f"{table}: {row}" for row in rows if {name: row[name] for name in columns} not in kept]
    return lost


def revisions(connection: Connection) -> list[str]:
    """All revisions, the first one first."""
    scripts = ScriptDirectory.from_config(migrations.config(connection)).walk_revisions()
    return [script.revision for script in scripts][::-1]


def upgrade_with_rows(connection: Connection) -> None:
    """Upgrade one revision at a time; before each, add rows to every table of the revision before."""
    for batch, revision in enumerate(revisions(connection)):
        before = read_rows(connection)
        command.upgrade(migrations.config(connection), revision)
        lost = find_lost(before, read_rows(connection), is_downgrade=False)
        assert [name for name in lost if name not in REMOVED.get(revision, ())] == [], revision
        add_rows(connection, batch=batch)


def downgrade_with_rows(connection: Connection) -> None:
    """From the newest revision go to each other one and back, with rows in every table each time."""
    names = revisions(connection)
    for batch, revision in enumerate([*names[-2::-1], "base"], len(names)):
        newest = read_rows(connection)
        command.downgrade(migrations.config(connection), revision)
        older = read_rows(connection)
        assert find_lost(newest, older, is_downgrade=True) == [], revision
        command.upgrade(migrations.config(connection), "head")
        assert find_lost(older, read_rows(connection), is_downgrade=False) == [], revision
        add_rows(connection, batch=batch)


def load_everything(connection: Connection) -> dict[str, int]:
    """The number of rows of each table, all loaded by the models of the product."""
    with Session(connection) as session:
        return {
            mapper.local_table.description: len(session.scalars(select(mapper.class_)).all())
            for mapper in Base.registry.mappers
        }


async def test_rows_of_every_revision_survive_the_upgrade_to_the_newest(bare: AsyncEngine) -> None:
    async with bare.connect() as connection:
        await connection.run_sync(upgrade_with_rows)
        loaded = await connection.run_sync(load_everything)
        stored = await connection.run_sync(read_rows)
    assert loaded == {table: len(rows) for table, rows in stored.items()}
    assert min(loaded.values()) >= 2


async def test_rows_survive_the_downgrade_to_any_revision_and_the_upgrade_after_it(bare: AsyncEngine) -> None:
    async with bare.connect() as connection:
        await connection.run_sync(upgrade_with_rows)
        await connection.run_sync(downgrade_with_rows)
