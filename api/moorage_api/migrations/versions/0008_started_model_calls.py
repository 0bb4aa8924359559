"""Model calls are stored when they begin"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model_calls", sa.Column("call_id", sa.Uuid(), nullable=True))
    op.create_unique_constraint(op.f("uq_model_calls_call_id"), "model_calls", ["call_id"])


def downgrade() -> None:
    op.drop_constraint(op.f("uq_model_calls_call_id"), "model_calls", type_="unique")
    op.drop_column("model_calls", "call_id")
