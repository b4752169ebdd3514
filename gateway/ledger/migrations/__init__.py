"""The ledger's schema, step by step; each step goes up and down. Run by `ledger/migrate.py` through Alembic."""
