"""Devices say which TUF root they believe."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; nothing is known of it yet."""
    op.add_column(
        "devices", sa.Column("root_version", sa.Integer(), nullable=False, server_default="0")
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_column("devices", "root_version")
