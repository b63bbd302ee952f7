"""The server's database: one schema in SQLAlchemy Core, migrated by alembic at start."""
