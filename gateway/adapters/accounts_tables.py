"""Tables of people, tokens, sessions and their audit, and the database they lie in.

For a journal in SQLite they are a file of their own, `accounts.db` beside it, so that the command line may write while
the gateway runs (one writer per file is the journal's rule, and its writer is the gateway). There the rollback journal
is used, not WAL: rare, short writes by two processes, and one file to back up. For a journal in PostgreSQL they are
tables of that database. Only hashes of secrets are stored; times are UTC epoch milliseconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from gateway.adapters.store_sql.engine import line_to, take_any_text
from gateway.ports import AccountsUnavailable

BUSY_TIMEOUT_MS = 5000
"""The command line and the gateway write for milliseconds each; longer means that a process hangs with the lock."""

ACCOUNTS_FILE = "accounts.db"
"""Its name, in the folder of the journal."""

METADATA = MetaData()
_ROW_ID = BigInteger().with_variant(Integer, "sqlite")

USERS = Table(
    "users",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("is_disabled", Boolean, nullable=False),
)
"""People who sign in with a password (argon2id)."""

TOKENS = Table(
    "api_tokens",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("secret_hash", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("revoked_at_ms", BigInteger),
)
"""Programs and wall boards; `secret_hash` is the SHA-256 of `gw_…`."""

LINKS = Table(
    "sign_in_links",
    METADATA,
    Column("secret_hash", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("used_at_ms", BigInteger),
)
"""Links that sign in once."""

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("secret_hash", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("user", Text, ForeignKey("users.name")),
    Column("token", Text, ForeignKey("api_tokens.name")),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("seen_at_ms", BigInteger, nullable=False),
)
"""Signed-in browsers. A session of a user or token ends with it."""

AUDIT = Table(
    "access_audit",
    METADATA,
    Column("id", _ROW_ID, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("detail", Text, nullable=False),
)
"""Who signed in, was refused, made or ended an account: written in the transaction of the act."""


class _Cursor(Protocol):
    def execute(self, statement: str, /) -> object: ...
    def close(self) -> None: ...


class _DriverConnection(Protocol):
    isolation_level: str | None

    def cursor(self) -> _Cursor: ...


def open_accounts(journal_url: str) -> Engine:
    """The engine of the accounts that belong to a journal, tables made. Raises `AccountsUnavailable`."""
    target = make_url(journal_url)
    try:
        if target.get_backend_name() == "sqlite":
            path = Path(target.database or "").parent / ACCOUNTS_FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            engine = _open_sqlite(path)
        else:
            target = target.set(drivername="postgresql+psycopg")
            engine = create_engine(target, pool_size=2, pool_pre_ping=True, connect_args=line_to(target))
            event.listen(engine, "connect", take_any_text)
        _make_tables(engine)
    except (DBAPIError, OSError) as error:
        raise AccountsUnavailable(f"the accounts cannot be opened: {error}") from error
    return engine


def _make_tables(engine: Engine) -> None:
    try:
        METADATA.create_all(engine)
    except IntegrityError:  # another gateway of the same database made them at this moment
        METADATA.create_all(engine)


def _open_sqlite(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", pool_size=4, max_overflow=0)

    def prepare(connection: _DriverConnection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin below, not when the driver thinks so
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=DELETE",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    def begin_transaction(connection: Connection) -> None:
        is_reading = connection.get_execution_options().get("is_reading", False)
        connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin_transaction)
    path.touch(mode=0o600)
    return engine
