"""Executed by Alembic: migrates over the connection that `moorage_api.migrations.upgrade` passes in."""

from __future__ import annotations

from alembic import context

from moorage_api.migrations.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
