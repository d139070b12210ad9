"""The evidence chain over a whole journal, for `verify`: reads only, beside a running gateway or without one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, select

from gateway.adapters.signatures import is_signed_by
from gateway.adapters.store_sql.schema import EPOCHS, JOURNAL, SNAPSHOTS
from gateway.domain.journal import AgentModelled, EntryKind, Mark, StoredBody, load_body
from gateway.domain.ledger import AgentKey, Ledger, StoredEntry

CHUNK = 1000
"""Entries read at once: bounds memory, not speed."""


@dataclass(frozen=True, slots=True)
class LedgerReport:
    """What a verification found. `bad_position` and `problem` name the first bad entry, None when all is well.

    `marked` events were doubted when they came, and said so; `unchecked` checkpoints are by agents that never
    published a key here.
    """

    entries: int
    events: int
    marked: int
    checkpoints: int
    unchecked: int
    bad_position: int | None
    problem: str | None


def verify_journal(readers: Engine) -> LedgerReport:
    """Check every entry of a journal, from the first to the first bad one."""
    with readers.connect() as connection:
        keys = _published_keys(connection)

        def is_signed(agent: AgentKey, message: bytes, signature: str) -> bool | None:
            known = keys.get(agent, ())
            return any(is_signed_by(key, message, signature) for key in known) if known else None

        def hash_at(agent: AgentKey, epoch: str, seq: int) -> str | None:
            found: str | None = connection.execute(
                select(JOURNAL.c.hash).where(
                    JOURNAL.c.site == agent[0],
                    JOURNAL.c.agent == agent[1],
                    JOURNAL.c.epoch == epoch,
                    JOURNAL.c.seq == seq,
                )
            ).scalar()
            return found

        ledger = Ledger(is_signed, hash_at)
        bad, problem = None, None
        for entry in stored_entries(connection):
            problem = ledger.take(entry)
            if problem is not None:
                bad = entry.position
                break
        newest = _newest_known(connection)
        if problem is None and newest > ledger.position:
            bad, problem = ledger.position + 1, f"the end is cut off: entries up to {newest} were here"
    return LedgerReport(
        ledger.position, ledger.events, ledger.marked, ledger.checkpoints, ledger.unchecked, bad, problem
    )


def stored_entries(connection: Connection) -> Iterator[StoredEntry]:
    """Every entry as it lies in the table, in order."""
    position = 0
    while True:
        query = select(JOURNAL).where(JOURNAL.c.position > position).order_by(JOURNAL.c.position).limit(CHUNK)
        rows = connection.execute(query).all()
        for row in rows:
            marks = tuple(Mark(mark) for mark in row.marks.split())
            stored = StoredBody(EntryKind(row.kind), bytes(row.payload), row.occurred_at, marks)
            yield StoredEntry(row.position, row.recorded_at_ms, stored, row.link)
        if len(rows) < CHUNK:
            return
        position = rows[-1].position


def journal_end(connection: Connection) -> tuple[int, str]:
    """How many entries there are, and the link of the last; nothing and an empty text in an empty journal."""
    query = select(JOURNAL.c.position, JOURNAL.c.link).order_by(JOURNAL.c.position.desc()).limit(1)
    last = connection.execute(query).first()
    return (0, "") if last is None else (last.position, last.link)


def _published_keys(connection: Connection) -> dict[AgentKey, set[str]]:
    """Every public key that an agent has ever published; entries that cannot be read are found by the pass itself."""
    keys: dict[AgentKey, set[str]] = {}
    modelled = EntryKind.AGENT_MODELLED
    query = select(JOURNAL.c.payload).where(JOURNAL.c.kind == modelled.value)
    for row in connection.execute(query):
        try:
            body = load_body(StoredBody(modelled, bytes(row.payload)))
        except ValueError:
            continue
        if isinstance(body, AgentModelled):
            keys.setdefault((body.site, body.agent), set()).add(str(body.model.get("public_key")))
    return keys


def _newest_known(connection: Connection) -> int:
    """The newest entry that the rows beside the journal know of."""
    found = [
        connection.execute(select(func.max(column))).scalar()
        for column in (EPOCHS.c.last_position, SNAPSHOTS.c.position)
    ]
    return max((position for position in found if position is not None), default=0)
