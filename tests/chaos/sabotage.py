"""A hand in the books: what an audit that cannot fail would not notice."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tests.chaos.plant import Plant


def lose_a_row(plant: Plant) -> None:
    """The first raise vanishes from the journal."""
    with closing(sqlite3.connect(plant.journal, timeout=10)) as journal, journal:
        journal.execute(
            "DELETE FROM journal WHERE position ="
            " (SELECT min(position) FROM journal WHERE event_kind = 'violation_raised')"
        )
