"""What Alembic runs for each command: migrate in the connection that the caller holds, in its transaction."""

from __future__ import annotations

from alembic import context

from gateway.adapters.store_sql.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,  # SQLite alters a table by copying it
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
