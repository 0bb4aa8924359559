"""The time since which a version of a skill is unused"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("skill_versions", sa.Column("unused_since", sa.DateTime(timezone=True), nullable=True))
    op.create_index(op.f("ix_session_skills_version_id"), "session_skills", ["version_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_session_skills_version_id"), table_name="session_skills")
    op.drop_column("skill_versions", "unused_since")
