"""Pending notices in the order in which they are sent: a flood of thousands is not sorted anew for each batch."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the index."""
    op.create_index(
        op.f("ix_notices_state_channel_priority_number"),
        "notices",
        ["state", "channel", "priority", "number"],
        unique=False,
    )
