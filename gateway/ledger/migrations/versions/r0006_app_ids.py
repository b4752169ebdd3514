"""Which conversation and message of the app an event belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_COLUMNS = ("conversation_id", "message_id")


def upgrade() -> None:
    """Add the columns: empty for the events that stand, and for what an older gateway still writes."""
    for name in _COLUMNS:
        op.add_column("events", sa.Column(name, sa.Text, nullable=False, server_default=""))


def downgrade() -> None:
    """Drop the columns, and what stands in them."""
    for name in reversed(_COLUMNS):
        op.drop_column("events", name)
