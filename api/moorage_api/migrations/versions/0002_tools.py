"""MCP servers, A2A agents and users' preferences"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mcp_servers",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("transport", sa.String(length=20), nullable=False),
        sa.Column("description", sa.String(length=2000), server_default="", nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("probe", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("probed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_mcp_servers")),
    )
    op.create_table(
        "a2a_servers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("base_url", sa.String(length=2048), nullable=False),
        sa.Column("card", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_a2a_servers")),
        sa.UniqueConstraint("base_url", name=op.f("uq_a2a_servers_base_url")),
    )
    op.create_table(
        "a2a_conversations",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("server_id", sa.Uuid(), nullable=False),
        sa.Column("context_id", sa.String(length=500), nullable=False),
        sa.Column("task_id", sa.String(length=500), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_a2a_conversations_session_id_sessions"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["server_id"],
            ["a2a_servers.id"],
            name=op.f("fk_a2a_conversations_server_id_a2a_servers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("session_id", "server_id", name=op.f("pk_a2a_conversations")),
    )
    op.create_table(
        "tool_preferences",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("tool_id", sa.String(length=200), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_tool_preferences_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "kind", "tool_id", name=op.f("pk_tool_preferences")),
    )


def downgrade() -> None:
    op.drop_table("tool_preferences")
    op.drop_table("a2a_conversations")
    op.drop_table("a2a_servers")
    op.drop_table("mcp_servers")
