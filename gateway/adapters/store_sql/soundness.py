"""Is a SQLite journal fit to be gone on with? Looked at before anything of it is used.

    the file    after a clean stop, its seal: bytes that changed otherwise than through SQLite (0.1 s per 100 MB)
    pages       `quick_check`, which reads the whole file (0.2 s per 100 MB from the page cache): up to `CHECKED_MAX_BYTES`
    revision    a younger version's is no damage, but refused: it may mean anything
    the end     the links of the last `TAIL_ENTRIES`, and of all entries that start-up folds (some 20 µs each); one of an
                unknown kind whose link fits is a younger version's
    snapshots   their digest: a flipped bit in one would be a wrong state on the board
    epochs      each is compared with the event that it names: acks are made of them
    the note    what had been written, of which the journal must hold all

What is older is looked at when it is read: agents' events carry their hash, and `verify` goes over every link. An
event's damage is never repaired here: the file is moved aside whole, and the agents send again what they hold.

Source: reliability invariant I-24.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy import Connection, Engine, and_, func, select
from sqlalchemy.exc import DBAPIError

from gateway.adapters.migrations import refuse_younger
from gateway.adapters.store_sql.entries import link_after, refuse_unknown
from gateway.adapters.store_sql.folding import open_snapshot
from gateway.adapters.store_sql.journal_file import CHECKED_MAX_BYTES, JournalFile, Noted
from gateway.adapters.store_sql.schema import EPOCHS, JOURNAL, SNAPSHOTS
from gateway.domain.journal import LINK_SEED

TAIL_ENTRIES = 1000
"""Entries at the end whose links are checked in any case: what the last minutes wrote."""

_DAMAGE_CODES = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def is_damage(error: DBAPIError) -> bool:
    """Whether the file itself is spoilt: SQLite says so, or the driver could make no value of what it read (no code)."""
    code: int | None = getattr(error.orig, "sqlite_errorcode", None)
    return code is None or code & 0xFF in _DAMAGE_CODES


def make_sound(file: JournalFile, writer: Engine, url: str) -> None:
    """Move a damaged journal aside, and leave word of that and of a lost end.

    It looks as the writer: a reader could not take back what a kill left half done. No connection stays open.
    Raises `StoreError` for one of a younger version, which is left as it is; `DBAPIError`, `OSError`.
    """
    noted = file.noted()
    if not file.path.exists():
        if noted.position:
            file.note_damage(f"it is gone; entries up to {noted.position} were in it")
            file.note_nothing()
        return
    seal = None if noted.seal is None else file.seal()
    is_changed = noted.seal is not None and seal is not None and noted.seal.is_broken_by(seal)
    try:
        with writer.connect() as connection:
            flaw = find_page_flaw(connection, file.path.stat().st_size)
            if flaw is None and not is_changed:
                refuse_younger(connection, url)
            flaw = flaw or find_flaw(connection)
            lost = None if flaw else _find_lost_end(connection, noted)
            if (
                not flaw and not lost and is_changed
            ):  # an older copy in its place, lost its end, is gone on with
                flaw = "it is not as it was when the gateway stopped"
    except DBAPIError as error:
        if not is_damage(error):
            raise
        flaw, lost = str(error.orig), None
    finally:
        writer.dispose()
    if flaw is not None:
        file.move_aside(flaw)
    elif lost is not None:
        file.note_damage(lost)
        file.note_nothing()


def find_page_flaw(connection: Connection, size_bytes: int) -> str | None:
    """What SQLite finds wrong with the file, None when it finds nothing or the file is too large to be read."""
    if size_bytes > CHECKED_MAX_BYTES:
        return None
    verdict = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar())
    return None if verdict == "ok" else verdict.replace("\n", " ")


def find_flaw(connection: Connection) -> str | None:
    """What makes a journal unfit, None when nothing was found. Raises `StoreError` for entries of a younger version."""
    if not connection.dialect.has_table(connection, JOURNAL.name):
        return None  # nothing was ever written into it
    return _check_snapshots(connection) or _check_end(connection) or _check_epochs(connection)


def _check_snapshots(connection: Connection) -> str | None:
    for row in connection.execute(select(SNAPSHOTS)):
        try:
            open_snapshot(row.state)
        except (ValueError, TypeError, AttributeError) as error:
            return f"the snapshot of {row.fold}: {error}"
    return None


def _check_end(connection: Connection) -> str | None:
    """Whether the newest entries follow from each other."""
    newest: int = connection.execute(select(func.max(JOURNAL.c.position))).scalar() or 0
    folded: int = connection.execute(select(func.min(SNAPSHOTS.c.position))).scalar() or 0
    first = max(1, min(newest - TAIL_ENTRIES, folded))
    query = select(JOURNAL).where(JOURNAL.c.position >= first).order_by(JOURNAL.c.position)
    before = (0, LINK_SEED) if first == 1 else None
    for row in connection.execute(query.execution_options(yield_per=TAIL_ENTRIES)):
        if before is not None:
            if row.position != before[0] + 1:
                return f"entries {before[0] + 1} to {row.position - 1} are missing"
            if row.link != link_after(before[1], row):
                return f"the link of entry {row.position} does not fit"
            refuse_unknown(row)
        before = (row.position, row.link)
    return None


def _check_epochs(connection: Connection) -> str | None:
    """Whether each epoch ends with the event that it names."""
    event = and_(
        JOURNAL.c.position == EPOCHS.c.last_position,
        JOURNAL.c.epoch == EPOCHS.c.epoch,
        JOURNAL.c.seq == EPOCHS.c.last_seq,
        JOURNAL.c.hash == EPOCHS.c.last_hash,
    )
    query = select(EPOCHS.c.epoch).outerjoin(JOURNAL, event).where(JOURNAL.c.position.is_(None)).limit(1)
    odd = connection.execute(query).scalar()
    return None if odd is None else f"epoch {odd} does not end where it says"


def _find_lost_end(connection: Connection, noted: Noted) -> str | None:
    """What is missing of what had been written, by the note."""
    position = noted.position
    if not position:
        return None
    if not connection.dialect.has_table(connection, JOURNAL.name):
        return f"it is empty; entries up to {position} were in it"
    newest: int = connection.execute(select(func.max(JOURNAL.c.position))).scalar() or 0
    if newest < position:
        return f"it ends at entry {newest}; entries up to {position} were in it"
    held = connection.execute(select(JOURNAL.c.link).where(JOURNAL.c.position == position)).scalar()
    return None if held == noted.link else f"its entry {position} is another one than was written"
