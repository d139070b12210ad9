"""The evidence chain over a whole journal, for `verify`: reads only, beside a running gateway or without one.

Entries are read in pieces, each in a transaction of its own: one that stayed open over a whole journal would let
SQLite's log grow. That is sound, because a journal only grows; what the rows beside it know is read first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

from sqlalchemy import Connection, Engine, LargeBinary, func, select
from sqlalchemy import cast as cast_to
from sqlalchemy.exc import OperationalError

from edge_agent.wire.codec import DecodeError
from edge_agent.wire.event import EventKind
from edge_agent.wire.flaw import Deed, Flaw
from edge_agent.wire.heads import AgentKey, EventKey, Heads
from edge_agent.wire.sealed import unseal
from gateway.adapters.signatures import is_signed_by
from gateway.adapters.store_sql.schema import EPOCHS, JOURNAL, SNAPSHOTS
from gateway.domain.journal import AgentModelled, EntryKind, Mark, StoredBody, load_body
from gateway.domain.ledger import Ledger, LedgerReport, after_named, check_ledger
from gateway.domain.tampering import Numbered, StoredEntry

CHUNK = 1000
"""Entries read at once: bounds memory, not speed."""

Watch = Callable[[Iterable[Numbered], int], Iterator[Numbered]]
"""Shows how far a pass over so many entries is."""

_COLUMNS = tuple(
    JOURNAL.c[name]
    for name in ("position", "recorded_at_ms", "kind", "payload", "occurred_at", "marks", "link")
)

_AS_BYTES = cast_to(JOURNAL.c.payload, LargeBinary)
"""A payload that one flipped bit made text is read all the same: the pass over the entries names it."""


def verify_journal(
    readers: Engine, heads: Heads, watch: Watch, noted: tuple[int, str] = (0, "")
) -> LedgerReport:
    """Check every entry of a journal, from the first to the first bad one.

    `noted`: position and link that the gateway noted beside its file, read before this; (0, "") where there are none.
    """
    with readers.connect() as connection:
        keys = _published_keys(connection)
        followed = _followed_events(connection)
        newest = max(_newest_known(connection), noted[0])
        count, _ = journal_end(connection)
        link = connection.execute(select(JOURNAL.c.link).where(JOURNAL.c.position == noted[0])).scalar()

    ledger = Ledger(signature_check(keys, heads), followed, heads)
    flaw = check_ledger(watch(numbered_entries(readers), count), ledger)
    if flaw is None and newest > ledger.position:
        detail = f"the end is cut off: entries up to {newest} were here"
        flaw = Flaw(f"entry {ledger.position + 1}", Deed.TRUNCATED, detail)
    if flaw is None and link is not None and link != noted[1]:
        detail = "the gateway noted another entry here when it wrote it: written anew and linked again"
        flaw = Flaw(f"entry {noted[0]}", Deed.RESEALED, detail)
    return ledger.report(flaw)


def signature_check(
    published: dict[AgentKey, set[str]], heads: Heads
) -> Callable[[AgentKey, bytes, str], bool | None]:
    """Judge checkpoints by the keys that agents published, and by those that their heads are signed with."""

    def is_signed(agent: AgentKey, message: bytes, signature: str) -> bool | None:
        known = published.get(agent, set()) | heads.keys.get(agent, frozenset())
        return any(is_signed_by(key, message, signature) for key in known) if known else None

    return is_signed


def numbered_entries(readers: Engine) -> Iterator[Numbered]:
    """Every entry as it lies in the table, in order; None for a row that this journal never wrote."""
    position = 0
    while True:
        query = select(*_COLUMNS).where(JOURNAL.c.position > position).order_by(JOURNAL.c.position)
        with readers.connect() as connection:
            try:
                rows: Sequence[Sequence[object]] = connection.execute(query.limit(CHUNK)).all()
            except OperationalError:  # SQLite: a text in one of them is none
                rows = list(_one_by_one(connection, position))
        for row in rows:
            position = cast("int", row[0])
            yield f"entry {position}", _read_row(*row) if len(row) > 1 else None
        if len(rows) < CHUNK:
            return


def _one_by_one(connection: Connection, after: int) -> Iterator[Sequence[object]]:
    """The next rows; of one that cannot be read only the position."""
    positions = select(JOURNAL.c.position).where(JOURNAL.c.position > after).order_by(JOURNAL.c.position)
    for position in connection.execute(positions.limit(CHUNK)).scalars().all():
        try:
            yield connection.execute(select(*_COLUMNS).where(JOURNAL.c.position == position)).one()
        except OperationalError:
            yield (position,)


def _read_row(*columns: object) -> StoredEntry | None:
    match columns:  # another type is possible in a file that somebody changed
        case int(position), int(recorded), str(kind), bytes(payload), str() | None as occurred, str(
            marks
        ), str(link):
            pass
        case _:
            return None
    try:
        doubts = tuple(Mark(mark) for mark in marks.split())
        return StoredEntry(position, recorded, StoredBody(EntryKind(kind), payload, occurred, doubts), link)
    except ValueError:
        return None


def journal_end(connection: Connection) -> tuple[int, str]:
    """How many entries there are, and the link of the last; nothing and an empty text in an empty journal."""
    query = select(JOURNAL.c.position, JOURNAL.c.link).order_by(JOURNAL.c.position.desc()).limit(1)
    last = connection.execute(query).first()
    return (0, "") if last is None else (last.position, last.link)


def _published_keys(connection: Connection) -> dict[AgentKey, set[str]]:
    """Every public key that an agent has ever published; entries that cannot be read are found by the pass itself."""
    keys: dict[AgentKey, set[str]] = {}
    query = select(_AS_BYTES).where(JOURNAL.c.kind == EntryKind.AGENT_MODELLED.value)
    for payload in connection.execute(query).scalars():
        note_key(keys, payload)
    return keys


def note_key(keys: dict[AgentKey, set[str]], payload: bytes) -> None:
    """Note the public key in a stored birth certificate."""
    try:
        body = load_body(StoredBody(EntryKind.AGENT_MODELLED, payload))
    except ValueError:
        return
    if isinstance(body, AgentModelled):
        keys.setdefault((body.site, body.agent), set()).add(str(body.model.get("public_key")))


def _followed_events(connection: Connection) -> set[EventKey]:
    followed: set[EventKey] = set()
    query = select(_AS_BYTES).where(JOURNAL.c.event_kind == EventKind.AGENT_STARTED.value)
    for payload in connection.execute(query).scalars():
        note_followed(followed, payload)
    return followed


def note_followed(followed: set[EventKey], payload: bytes) -> None:
    """Note the event that a run says it follows: its hash must be kept until the run is met."""
    started = unseal(payload)
    if not isinstance(started, DecodeError) and (named := after_named(started.document.get("after"))):
        followed.add((started.stamp.site, started.stamp.agent, *named))


def _newest_known(connection: Connection) -> int:
    """The newest entry that the rows beside the journal know of."""
    found = [
        connection.execute(select(func.max(column))).scalar()
        for column in (EPOCHS.c.last_position, SNAPSHOTS.c.position)
    ]
    return max((position for position in found if isinstance(position, int)), default=0)
