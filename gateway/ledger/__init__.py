"""The database: tables, migrations, writes and queries. The only home of SQLAlchemy."""
