"""A rollout may be paused."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; none of the earlier rollouts is."""
    op.add_column("rollouts", sa.Column("paused", sa.Boolean(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("rollouts", "paused")
