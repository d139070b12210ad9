"""Which of several gateways on one PostgreSQL leads: a row that expires.

The leader renews it every 2 s; it expires after 6, by the database's own clock, so that the gateways' clocks do not
matter. Every writing transaction of the leader locks the row and finds its own name in it, or writes nothing: a leader
that was frozen and wakes up after another took over cannot do harm. One that is frozen while it holds the row loses the
connection, and with it the row, after 6 s, too (`engine.py`). Takeover takes at most expiry and one look: 7 s.

Source: the outside contract, section 4 (takeover within 10 s).
"""

from __future__ import annotations

import uuid

from sqlalchemy import BigInteger, ColumnElement, Connection, Engine, delete, literal_column, select, update
from sqlalchemy.dialects.postgresql import insert

from gateway.adapters.store_sql.schema import LEASES
from gateway.ports import JournalLost

LEASE_MS = 6000
"""A leader that was not heard for so long leads no more."""

RENEW_S = 2.0
"""A third of that: two renewals may fail before the third is too late."""

LOOK_S = 1.0
"""How often a standby looks whether it may lead, and what the leader has journaled."""

_NAME = "journal"


class Lease:
    """The lease of one journal, as one gateway process sees it (blocking; for the writer thread)."""

    def __init__(self, writer: Engine) -> None:
        self._writer = writer
        self._holder = uuid.uuid4().hex

    def take(self) -> bool:
        """Take it; False while another gateway has it."""
        expires = _now_ms() + LEASE_MS
        row = insert(LEASES).values(name=_NAME, holder=self._holder, expires_at_ms=expires)
        is_free = (LEASES.c.holder == self._holder) | (LEASES.c.expires_at_ms < _now_ms())
        taken = row.on_conflict_do_update(
            index_elements=[LEASES.c.name],
            set_={"holder": row.excluded.holder, "expires_at_ms": row.excluded.expires_at_ms},
            where=is_free,
        ).returning(LEASES.c.name)
        with self._writer.begin() as connection:
            return connection.execute(taken).first() is not None

    def renew(self) -> bool:
        """Go on holding it; False once another gateway took it, though that has gone again: the journal may be longer."""
        ours = update(LEASES).where(LEASES.c.name == _NAME, LEASES.c.holder == self._holder)
        with self._writer.begin() as connection:
            return connection.execute(ours.values(expires_at_ms=_now_ms() + LEASE_MS)).rowcount == 1

    def demand(self, connection: Connection) -> None:
        """Hold the lease through this transaction. Raises `JournalLost` when it is not ours any more.

        One that ran out is ours until somebody takes it, and nobody can while its row is locked.
        """
        ours = select(LEASES.c.name).where(LEASES.c.name == _NAME, LEASES.c.holder == self._holder)
        if connection.execute(ours.with_for_update()).first() is None:
            raise JournalLost("another gateway leads this journal")

    def release(self) -> None:
        """Let another gateway lead at once."""
        with self._writer.begin() as connection:
            connection.execute(delete(LEASES).where(LEASES.c.holder == self._holder))


def _now_ms() -> ColumnElement[int]:
    return literal_column("(extract(epoch from clock_timestamp()) * 1000)::bigint", BigInteger())
