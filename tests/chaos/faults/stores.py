"""Rows 7 and 26: stores that are damaged, lost, rolled back, restored, cloned.

What is certain beforehand stays so: they strike while the door is shut and nothing is open, and when everything that
the agent committed is journaled; for what a lost disk takes with it that nobody else had, no product can answer.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from tests.chaos.drain import settle
from tests.chaos.faults.base import Fault
from tests.chaos.plant import Plant

PAGE_BYTES: Final = 4096


@contextmanager
def quiet(plant: Plant) -> Iterator[None]:
    """The door is shut, nobody else has taken anything away, everything is journaled and the agent stopped; then it starts."""
    with plant.door, plant.gateway.hold, plant.broker.hold, plant.agent.hold:
        settle(plant)
        yield
        plant.agent.start()


def copy_database(path: Path, to: Path) -> None:
    """A copy of a database in use, as a backup makes it."""
    to.unlink(missing_ok=True)
    with (
        closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(to)) as copy,
    ):
        source.backup(copy)


def keep_store(plant: Plant) -> None:
    """A copy of the agent's store for the books, before it is taken away: what it holds was committed."""
    copy = plant.folder / f"store-{len(plant.replaced_stores)}.db"
    copy_database(plant.store, copy)
    plant.replaced_stores.append(copy)


def remove_database(path: Path) -> None:
    """Take it and its log away."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


class _StoreFault(Fault):
    lasts_s = (2.0, 5.0)

    def heal(self, plant: Plant) -> None:
        pass


class DamagedStore(_StoreFault):
    """The agent's store is no database any more, as after a bad flash block; the agent must say so and go on."""

    row = 7

    def inject(self, plant: Plant) -> None:
        with quiet(plant):
            keep_store(plant)
            with plant.store.open("r+b") as file:
                file.write(self.draw.randbytes(PAGE_BYTES))


class LostJournal(_StoreFault):
    """The gateway's database is deleted; the agents fill it again."""

    row = 7

    def inject(self, plant: Plant) -> None:
        with quiet(plant):
            plant.gateway.kill()
            remove_database(plant.journal)
            plant.gateway.start()


class RolledBackJournal(_StoreFault):
    """The gateway's database is put back from a backup some seconds old."""

    row = 7
    lasts_s = (1.0, 1.0)

    def inject(self, plant: Plant) -> None:
        backup = plant.folder / "backup.db"
        copy_database(plant.journal, backup)
        time.sleep(self.draw.uniform(5.0, 12.0))
        with plant.gateway.hold:
            plant.gateway.kill()
            remove_database(plant.journal)
            shutil.copy(backup, plant.journal)
            plant.gateway.start()


class RestoredStore(_StoreFault):
    """The agent's machine is put back from an image some seconds old."""

    row = 26

    def inject(self, plant: Plant) -> None:
        image = plant.folder / "image.db"
        copy_database(plant.store, image)
        time.sleep(self.draw.uniform(6.0, 15.0))
        with quiet(plant):
            keep_store(plant)
            remove_database(plant.store)
            shutil.copy(image, plant.store)
