"""When everything committed is journaled, and how an agent is stopped so that its last words are, too."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from contextlib import closing
from typing import Final

from tests.chaos.plant import Plant, wait_until

DRAIN_S: Final = 120.0
LAST_WORDS_S: Final = 15.0
TRIES: Final = 3
SETTLED_S: Final = 4.0
"""The door shut for so long, its last opening is cleared (2 s), on a loaded machine too."""


def is_drained(plant: Plant) -> bool:
    """Whether the newest event of the agent's store is in the journal."""
    try:
        with closing(sqlite3.connect(f"file:{plant.store}?mode=ro", uri=True)) as store:
            last = store.execute("SELECT epoch, seq FROM event ORDER BY n DESC LIMIT 1").fetchone()
        with closing(sqlite3.connect(f"file:{plant.journal}?mode=ro", uri=True)) as journal:
            found = journal.execute("SELECT 1 FROM journal WHERE epoch=? AND seq=?", last).fetchone()
    except (sqlite3.Error, TypeError):
        return False  # not yet there, or just being replaced
    return found is not None


def settle(plant: Plant) -> None:
    """Start what is down, let the shut door clear and everything drain, then stop the agent, its last words journaled.

    Raises TimeoutError when the backlog does not drain.
    """
    for _ in range(TRIES):
        for part in plant.parts.values():
            part.start()
        time.sleep(SETTLED_S)
        wait_until("it is drained", lambda: is_drained(plant), timeout_s=DRAIN_S)
        plant.agent.stop()
        with contextlib.suppress(TimeoutError):
            wait_until("its last words are journaled", lambda: is_drained(plant), timeout_s=LAST_WORDS_S)
            return
    raise TimeoutError("the agent's last words are not journaled")
