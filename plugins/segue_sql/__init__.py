"""SQL adapters: store and journal on SQLite and PostgreSQL, through SQLAlchemy Core."""
