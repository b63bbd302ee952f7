"""What an update costs each device of a rollout."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NUMBERS = ("bytes_offered", "bytes_saved_recipes", "bytes_saved_delta", "bytes_written")


def upgrade() -> None:
    """Add the columns; earlier rollouts have none of it."""
    for name in NUMBERS:
        op.add_column(
            "rollout_devices", sa.Column(name, sa.Integer(), nullable=False, server_default="0")
        )
    op.add_column(
        "rollout_devices", sa.Column("seconds_in", sa.Text(), nullable=False, server_default="{}")
    )


def downgrade() -> None:
    """Drop them."""
    for name in (*NUMBERS, "seconds_in"):
        op.drop_column("rollout_devices", name)
