"""The plant for the command line: folded from the database, beside a running gateway or without one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import DBAPIError

from gateway.adapters.store_sql.engine import StoreError, open_readers
from gateway.adapters.store_sql.folding import fold_entries, restore_snapshot
from gateway.domain.plant_fold import Plant
from gateway.ports import JournalUnavailable

PLANT_FOLD = "plant"
"""The name under which the gateway keeps snapshots of this fold."""


@contextmanager
def reading(url: str) -> Iterator[Engine]:
    """An engine that only reads. Raises `JournalUnavailable` when there is no such journal."""
    target = make_url(url)
    if target.get_backend_name() == "sqlite" and not Path(target.database or "").is_file():
        raise JournalUnavailable(f"{target.database}: there is no journal yet — start the gateway once")
    readers = open_readers(url)
    try:
        yield readers
    except DBAPIError as error:
        raise JournalUnavailable(f"the journal cannot be read: {error.orig}") from error
    except StoreError as error:
        raise JournalUnavailable(str(error)) from error
    finally:
        readers.dispose()


def load_plant(readers: Engine) -> Plant:
    """The plant as the journal tells it up to its last entry."""
    plant = Plant()
    with readers.connect() as connection:
        position = restore_snapshot(connection, PLANT_FOLD, plant)
        fold_entries(connection, {PLANT_FOLD: plant}, {PLANT_FOLD: position})
    return plant
