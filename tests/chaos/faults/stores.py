"""Rows 7 and 26: stores that are damaged, lost, rolled back, restored, cloned.

What is certain beforehand stays so, and one violation stays one: they strike while the door is shut and nothing is open, and when everything that
the agent committed is journaled; for what a lost disk takes with it that nobody else had, no product can answer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from tests.chaos.drain import LAST_WORDS_S, agents, holds_all, settle
from tests.chaos.faults.base import Fault
from tests.chaos.plant import Plant, wait_until
from tests.chaos.process import Part

PAGE_BYTES: Final = 4096
READABLE_S: Final = 30.0


@contextmanager
def quiet(plant: Plant) -> Iterator[None]:
    """The door is shut, nobody else has taken anything away, everything is journaled and the agent stopped; then it starts."""
    with plant.door, plant.gateway.hold, plant.broker.hold, plant.agent.hold:
        settle(plant)
        yield
        for agent in agents(plant):
            agent.start()


def copy_database(path: Path, to: Path) -> None:
    """A copy of a database in use, as a backup makes it; whoever owns it may just be making it anew."""
    wait_until(f"{path} can be read", lambda: _is_copied(path, to), timeout_s=READABLE_S)


def _is_copied(path: Path, to: Path) -> bool:
    to.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(to)) as copy,
        ):
            source.backup(copy)
    except sqlite3.Error:
        return False
    return True


def keep_store(plant: Plant) -> None:
    """A copy of the agent's store for the books, before it is taken away: what it holds was committed."""
    copy = plant.folder / f"store-{len(plant.replaced_stores)}.db"
    copy_database(plant.store, copy)
    plant.replaced_stores.append(copy)


def put_back(copy: Path, path: Path) -> None:
    """Lay a copy down in the place of a database, on the disk too: a power cut that follows must find it."""
    remove_database(path)
    shutil.copy(copy, path)
    os.sync()


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
    """The gateway's database is deleted; the agents fill it again.

    Never after an agent's store was replaced: what only that had held is nowhere any more.
    """

    row = 7

    def fits(self, plant: Plant) -> bool:
        return not plant.replaced_stores

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
            put_back(backup, plant.journal)
            plant.gateway.start()


class RestoredStore(_StoreFault):
    """The agent's machine is put back from an image some seconds old."""

    row = 26

    def inject(self, plant: Plant) -> None:
        image = plant.folder / "image.db"
        with quiet(plant):
            copy_database(plant.store, image)
        time.sleep(self.draw.uniform(6.0, 15.0))
        with quiet(plant):
            keep_store(plant)
            put_back(image, plant.store)


class ClonedAgent(_StoreFault):
    """A clone of the agent's machine runs beside it for a while: one identity, one client id, two chains."""

    row = 26
    together_s: Final = 6.0
    alone_tries: Final = 3

    def inject(self, plant: Plant) -> None:
        folder = plant.agent_disk.folder / f"clone-{len(plant.replaced_stores)}"
        with quiet(plant):
            folder.mkdir()
            store = folder / plant.store.name
            copy_database(plant.store, store)
            shutil.copy(plant.store.with_name(plant.store.name + ".key"), folder)
            config = folder / "agent.yaml"
            text = (plant.agent_disk.folder / "agent.yaml").read_text()
            config.write_text(text.replace("path: var/", "path: "))
            clone = plant.make_agent("clone", config)
            plant.agent.start()
            self._run(plant, clone, store)
            plant.replaced_stores.append(store)

    def _run(self, plant: Plant, clone: Part, store: Path) -> None:
        """Until all that the clone said is journaled: what a machine takes with it that nobody heard, nobody can keep.

        The two take the broker from each other in turns that repeat. A clone that is stopped while the agent has it
        is heard only when the agent makes room.
        """
        for is_alone in (False, *(True for _ in range(self.alone_tries))):
            if is_alone:
                plant.agent.stop()
            clone.start()
            time.sleep(self.together_s)
            clone.stop()
            with contextlib.suppress(TimeoutError):
                wait_until("the clone is drained", lambda: holds_all(plant, store), timeout_s=LAST_WORDS_S)
                clone.close()
                return
        raise TimeoutError("the clone does not drain")
