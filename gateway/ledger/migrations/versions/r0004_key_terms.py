"""What each API key may do within its account."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column: empty, a key may do all that its account may."""
    op.add_column("api_keys", sa.Column("terms", sa.Text, nullable=True))


def downgrade() -> None:
    """Drop the column: every key may do all that its account may."""
    op.drop_column("api_keys", "terms")
