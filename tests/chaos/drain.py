"""When everything committed is journaled, and how an agent is stopped so that its last words are, too."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from tests.chaos.books import RULE
from tests.chaos.plant import Plant, wait_until
from tests.chaos.process import Part

DRAIN_S: Final = 120.0
LAST_WORDS_S: Final = 15.0
TRIES: Final = 3
SETTLED_S: Final = 4.0
"""What the agent has seen of the door is raised or cleared in the gateway, unless something holds it up."""

CLEAR_S: Final = 60.0


def is_clear(plant: Plant) -> bool:
    """Whether the agent is awake, and the gateway knows of no open violation of the door."""
    try:
        page = plant.get(f"/api/v1/violations?rule={RULE}&state=active")
    except (OSError, ValueError):
        return False
    return page["items"] == [] and plant.sight_since_s() is not None


def is_drained(plant: Plant) -> bool:
    """Whether the newest event of every agent's store is in the journal."""
    return all(holds_all(plant, store) for store in plant.stores)


def holds_all(plant: Plant, path: Path) -> bool:
    """Whether the newest event of this store is in the journal."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as store:
            last = store.execute("SELECT epoch, seq FROM event ORDER BY n DESC LIMIT 1").fetchone()
        with closing(sqlite3.connect(f"file:{plant.journal}?mode=ro", uri=True)) as journal:
            found = journal.execute("SELECT 1 FROM journal WHERE epoch=? AND seq=?", last).fetchone()
    except (sqlite3.Error, TypeError):
        return False  # not yet there, or just being replaced
    return found is not None


def agents(plant: Plant) -> list[Part]:
    """Every agent of the plant, the one that faults are about first."""
    return [part for name, part in plant.parts.items() if name.endswith("agent")]


def settle(plant: Plant) -> None:
    """Start what is down, let the shut door clear and everything drain, then stop the agents, their last words journaled.

    Raises TimeoutError when the backlog does not drain.
    """
    for _ in range(TRIES):
        for part in plant.parts.values():
            part.start()
        time.sleep(SETTLED_S)
        # in this order: a raise that is still on its way is no open violation yet
        wait_until("it is drained", lambda: is_drained(plant), timeout_s=DRAIN_S)
        wait_until("all is clear", lambda: is_drained(plant) and is_clear(plant), timeout_s=CLEAR_S)
        for agent in agents(plant):
            agent.stop()
        with contextlib.suppress(TimeoutError):
            wait_until("the last words are journaled", lambda: is_drained(plant), timeout_s=LAST_WORDS_S)
            return
    raise TimeoutError("the agents' last words are not journaled")
