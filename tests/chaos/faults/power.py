"""Rows 3 and 6: the power fails, or the file system gives up, under a running process. On disks of their own (ext4)."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.chaos.accounting import Finding, Verdict
from tests.chaos.disk import ImageDisk
from tests.chaos.drain import agents
from tests.chaos.faults.base import Fault, Need
from tests.chaos.plant import Plant
from tests.chaos.process import Part


class _OnImage(Fault):
    needs = frozenset({Need.ROOT, Need.EXT4})

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._whose = draw.choice(("agent", "gateway"))

    def fits(self, plant: Plant) -> bool:
        return isinstance(plant.agent_disk, ImageDisk)

    def _disk(self, plant: Plant) -> ImageDisk:
        disk = plant.agent_disk if self._whose == "agent" else plant.gateway_disk
        assert isinstance(disk, ImageDisk)
        return disk

    def _parts(self, plant: Plant) -> list[Part]:
        return agents(plant) if self._whose == "agent" else [plant.gateway]


class PowerCut(_OnImage):
    """Everything that the kernel had not yet written to the disk is gone, and the process with it."""

    row = 3
    lasts_s = (0.2, 3.0)

    @property
    def name(self) -> str:
        return f"power cut of the {self._whose}"

    def inject(self, plant: Plant) -> None:
        parts = self._parts(plant)
        parts[0].hold.acquire()
        for part in parts:
            part.freeze()
        acked = _acked(plant.store) if self._whose == "gateway" else None
        disk = self._disk(plant)
        disk.copy()
        for part in parts:
            part.kill()
        disk.lose_what_was_not_written()
        if acked is not None and not _holds(plant.journal, acked):
            plant.broken.append(
                Finding(Verdict.LOST, None, f"{acked} was acknowledged, and gone after a power cut")
            )

    def heal(self, plant: Plant) -> None:
        parts = self._parts(plant)
        for part in parts:
            part.start()
        parts[0].hold.release()


class AbortedDisk(_OnImage):
    """The file system finds an error and refuses every write from then on, open files included."""

    row = 6
    lasts_s = (3.0, 8.0)

    @property
    def name(self) -> str:
        return f"file system of the {self._whose} gives up"

    def inject(self, plant: Plant) -> None:
        self._disk(plant).abort()

    def heal(self, plant: Plant) -> None:
        parts = self._parts(plant)
        with parts[0].hold:
            for part in parts:
                part.kill()
            self._disk(plant).check_and_mount()
            for part in parts:
                part.start()


def _acked(store: Path) -> tuple[str, int] | None:
    """The furthest event that the agent has seen acknowledged; None while its store tells none."""
    query = (
        "SELECT epoch, seq FROM event WHERE n = (SELECT CAST(value AS INTEGER) FROM fact WHERE key='acked')"
    )
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
            row = database.execute(query).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None else (row[0], row[1])


def _holds(journal: Path, key: tuple[str, int]) -> bool:
    """Whether a journal that nobody uses holds this event, or has held it: its epoch's last one is as far."""
    with closing(sqlite3.connect(journal)) as database:
        row = database.execute("SELECT max(seq) FROM journal WHERE epoch=?", (key[0],)).fetchone()
    return row[0] is not None and row[0] >= key[1]
