"""Tables of violations, alarms, notices, and of what is projected from the journal.

Violations and alarms are what the alarm book folded, written in the entry's own transaction; columns beside a
`document` only serve look-ups. Notices are decisions and their outcomes. `since_ms` orders the violation log.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from gateway.adapters.store_sql.schema import METADATA, MILLISECONDS, POSITION

VIOLATIONS = Table(
    "violations",
    METADATA,
    Column("occurrence", Text, primary_key=True),
    Column("raised_position", POSITION, nullable=False),
    Column("site", Text),
    Column("agent", Text),
    Column("area", Text),
    Column("machine", Text),
    Column("guard", Text),
    Column("device", Text),
    Column("rule", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("raised_priority", Text, nullable=False),
    Column("basis", Text, nullable=False),
    Column("since", Text, nullable=False),
    Column("since_ms", MILLISECONDS, nullable=False),
    Column("occurred_at", Text, nullable=False),
    Column("received_at_ms", MILLISECONDS, nullable=False),
    Column("raised_at", Text, nullable=False),
    Column("cleared_at", Text),
    Column("duration_ms", BigInteger),
    Column("state", Text, nullable=False),
    Column("hidden_by", Text),
    Column("evidence", Text, nullable=False),
    Column("alarm", POSITION),
    Column("origin", Text, nullable=False),
    Index(None, "since_ms", "raised_position"),
    Index(None, "site", "agent", "state"),
    Index(None, "site", "machine", "guard", "since_ms"),
)
"""The violation log."""

ALARMS = Table(
    "alarms",
    METADATA,
    Column("id", POSITION, primary_key=True, autoincrement=False),
    Column("letter", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("site", Text),
    Column("machine", Text),
    Column("guard", Text),
    Column("occurrence", Text, nullable=False),
    Column("document", Text, nullable=False),
    Index(None, "letter", "id"),
)
"""Every alarm there ever was; `document` is the whole of it."""

NOTICES = Table(
    "notices",
    METADATA,
    Column("number", POSITION, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("alarm", POSITION),
    Column("person", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("alert", Text, nullable=False),
    Column("decided_ms", MILLISECONDS, nullable=False),
    Column("not_before_ms", MILLISECONDS, nullable=False),
    Column("state", Text, nullable=False),
    Column("changed_ms", MILLISECONDS, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_try_ms", MILLISECONDS, nullable=False),
    Column("outcome", Text),
    Index(None, "state", "channel", "next_try_ms"),
    Index(None, "state", "channel", "priority", "number"),
    Index(None, "alarm"),
)
"""Who was to be told what, and what became of it. `outcome` is the receiver's last word."""

CURSORS = Table(
    "cursors",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("position", POSITION, nullable=False),
    Column("state", Text, nullable=False),
)
"""How far a projection has got, with what it needs to go on exactly as if it had never stopped."""

REFUSED_LINES = Table(
    "refused_lines",
    METADATA,
    Column("number", POSITION, primary_key=True),
    Column("refused_ms", MILLISECONDS, nullable=False),
    Column("line", Text, nullable=False),
    Column("reason", Text, nullable=False),
)
"""Lines that InfluxDB refused for good."""
