"""A rollout may be meant to change labels or preprocessing."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; earlier rollouts meant no such thing."""
    op.add_column(
        "rollouts", sa.Column("new_contract", sa.Boolean(), nullable=False, server_default="0")
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_column("rollouts", "new_contract")
