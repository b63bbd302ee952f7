"""Devices of a rollout can be found by their status."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index("ix_rollout_devices_rollout", "rollout_devices", ["rollout", "status"])


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_rollout_devices_rollout", "rollout_devices")
