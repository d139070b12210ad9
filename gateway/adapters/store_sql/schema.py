"""Tables of the journal and of the agents' streams.

The journal is the record; every other table here is derived from it in the same transaction, and kept because a scan
would be too slow. Times are UTC in epoch milliseconds (`_ms`) or the RFC 3339 text that an agent wrote. Columns beside
the payload of an entry only serve look-ups.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    }
)
"""All tables; constraints are named by rule, so that SQLite's copy-and-move migrations can find them."""

POSITION = BigInteger().with_variant(Integer, "sqlite")
"""Column type of journal positions and other counters (in SQLite the row id itself, never reused: nothing is deleted)."""

MILLISECONDS = BigInteger()
"""Column type of UTC epoch milliseconds."""

JOURNAL = Table(
    "journal",
    METADATA,
    Column("position", POSITION, primary_key=True, autoincrement=False),
    Column("recorded_at_ms", MILLISECONDS, nullable=False),
    Column("kind", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("occurred_at", Text),
    Column("marks", Text, nullable=False),
    Column("link", Text, nullable=False),
    Column("site", Text),
    Column("agent", Text),
    Column("event_kind", Text),
    Column("epoch", Text),
    Column("seq", BigInteger),
    Column("hash", Text),
    Column("machine", Text),
    Column("guard", Text),
    Column("occurrence", Text),
    UniqueConstraint("site", "agent", "epoch", "seq"),
    Index(None, "site", "machine", "guard", "position"),
    Index(None, "site", "agent", "event_kind", "position"),
    Index(None, "recorded_at_ms"),
    Index(None, "occurrence"),
)
"""Every entry. `link` chains them (`domain.journal.entry_link`); `event_kind`, `epoch`, `seq`, `hash` stand for agents' events only, and a key there once."""

EPOCHS = Table(
    "epochs",
    METADATA,
    Column("site", Text, primary_key=True),
    Column("agent", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
    Column("last_hash", Text, nullable=False),
    Column("last_position", POSITION, nullable=False),
    Column("first_position", POSITION, nullable=False),
    Column("store_position", POSITION, nullable=False),
    Index(None, "site", "agent", "last_position"),
)
"""How far each epoch is held. `store_position` is the journal position where its store begins here."""

REFUSED = Table(
    "refused",
    METADATA,
    Column("site", Text, primary_key=True),
    Column("agent", Text, primary_key=True),
    Column("epoch", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("hash", Text, primary_key=True),
)
"""Events that got no place (their key is held with another hash, or their gap was final) and went into quarantine."""

BOOTS = Table(
    "boots",
    METADATA,
    Column("site", Text, primary_key=True),
    Column("agent", Text, primary_key=True),
    Column("boot", Text, primary_key=True),
    Column("at", Text, nullable=False),
    Column("mono_ms", BigInteger, nullable=False),
)
"""One synchronised event of each boot of an agent's machine: what tells the time of those before and after it."""

MODELS = Table(
    "models",
    METADATA,
    Column("site", Text, primary_key=True),
    Column("agent", Text, primary_key=True),
    Column("machine", Text, primary_key=True),
    Column("digest", Text, nullable=False),
)
"""What birth certificates are in force; `machine` is empty for the agent's own."""

PRESENCES = Table(
    "presences",
    METADATA,
    Column("site", Text, primary_key=True),
    Column("agent", Text, primary_key=True),
    Column("online", Boolean, nullable=False),
    Column("epoch", Text),
    Column("since_ms", MILLISECONDS, nullable=False),
)
"""Every agent that was ever heard, and whether it was last found online."""

GAPS = Table(
    "gaps",
    METADATA,
    Column("gap", Text, primary_key=True),
    Column("site", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("epoch", Text, nullable=False),
    Column("from_seq", BigInteger, nullable=False),
    Column("to_seq", BigInteger),
    Column("reason", Text, nullable=False),
    Column("found_at_ms", MILLISECONDS, nullable=False),
    Column("filled_at_ms", MILLISECONDS),
    Column("final_at_ms", MILLISECONDS),
    Index(None, "site", "agent", "found_at_ms"),
)
"""Holes in agents' streams: open (neither filled nor final), filled, or final."""

QUARANTINE = Table(
    "quarantine",
    METADATA,
    Column("id", POSITION, primary_key=True, autoincrement=False),
    Column("received_at_ms", MILLISECONDS, nullable=False),
    Column("topic", Text, nullable=False),
    Column("site", Text),
    Column("agent", Text),
    Column("reason", Text, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)
"""Payloads that were refused, raw."""

SNAPSHOTS = Table(
    "snapshots",
    METADATA,
    Column("fold", Text, primary_key=True),
    Column("position", POSITION, nullable=False),
    Column("state", Text, nullable=False),
)
"""The newest snapshot of each fold, as JSON: start reads it and folds the entries after `position`."""

LEASES = Table(
    "leases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("expires_at_ms", MILLISECONDS, nullable=False),
)
"""Which gateway process leads, where several share a database."""
