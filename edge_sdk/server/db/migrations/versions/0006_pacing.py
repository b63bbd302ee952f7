"""A rollout may have maintenance windows, a rate, and a number of devices in an hour."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COLUMNS: dict[str, tuple[sa.types.TypeEngine[Any], str]] = {
    "windows": (sa.Text(), "[]"),
    "rate_kib_s": (sa.Integer(), "0"),
    "devices_per_hour": (sa.Integer(), "0"),
    "next_offer_at": (sa.Float(), "0"),
}


def upgrade() -> None:
    """Add the columns; earlier rollouts know no bounds."""
    for name, (kind, default) in COLUMNS.items():
        op.add_column("rollouts", sa.Column(name, kind, nullable=False, server_default=default))


def downgrade() -> None:
    """Drop them."""
    for name in COLUMNS:
        op.drop_column("rollouts", name)
