"""The database's history: Alembic revisions, applied by the gateway itself when it opens its journal.

`upgrade` runs in the writer's own connection, so a migration has the writer's lock (`BEGIN IMMEDIATE`) and is rolled
back whole when it fails, on SQLite too. Needs no configuration file and no network. A database that a younger version
has migrated is refused: an older gateway must not write what it does not understand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, func, make_url, select

from gateway.adapters.store_sql.engine import StoreError

MIGRATION_LOCK = 0x67756172
"""The advisory lock of a migration; any number that nobody else on that database uses (these letters: guar)."""


@dataclass(frozen=True, slots=True)
class _History:
    """The revisions of this version: all, and the newest."""

    known: frozenset[str]
    heads: frozenset[str]


def upgrade(writer: Engine, url: str) -> None:
    """Bring the database to the newest revision. Raises `StoreError` for one of a younger version."""
    with writer.begin() as connection:
        if (
            connection.dialect.name == "postgresql"
        ):  # gateways that start together migrate one after the other
            connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        refuse_younger(connection, url)
        if _heads_of(connection) == _history().heads:
            return
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def refuse_younger(connection: Connection, url: str) -> None:
    """Raises `StoreError` for a database that a younger version has migrated."""
    current = _heads_of(connection)
    if current - _history().known:
        raise StoreError(
            f"{make_url(url).render_as_string()} was written by a younger version (revision"
            f" {', '.join(sorted(current))}) — start that version, or restore a backup"
        )


def _heads_of(connection: Connection) -> frozenset[str]:
    return frozenset(MigrationContext.configure(connection).get_current_heads())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


@cache
def _history() -> _History:
    """Read once: to load the revisions' modules takes longer than everything else that a start does here."""
    scripts = ScriptDirectory.from_config(_config())
    known = frozenset(script.revision for script in scripts.walk_revisions())
    return _History(known, frozenset(scripts.get_heads()))
