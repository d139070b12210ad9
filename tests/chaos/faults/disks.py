"""Rows 5 and 6: full and read-only disks."""

from __future__ import annotations

import random

from tests.chaos.disk import SmallDisk
from tests.chaos.faults.base import Fault, Need
from tests.chaos.plant import Plant


class DiskFull(Fault):
    """Not one byte is left, then all of them."""

    row = 5
    needs = frozenset({Need.ROOT})
    lasts_s = (3.0, 12.0)

    def __init__(self, draw: random.Random, whose: str) -> None:
        super().__init__(draw)
        self._whose = whose

    @property
    def name(self) -> str:
        return f"disk of {self._whose} full"

    def _disk(self, plant: Plant) -> SmallDisk:
        disk = {"agent": plant.agent_disk, "gateway": plant.gateway_disk, "broker": plant.broker_disk}[
            self._whose
        ]
        assert isinstance(disk, SmallDisk)
        return disk

    def inject(self, plant: Plant) -> None:
        self._disk(plant).fill()

    def heal(self, plant: Plant) -> None:
        self._disk(plant).free()


class ReadOnly(Fault):
    """The file system was mounted read-only at a restart (errors=remount-ro after a power cut), until somebody mends it."""

    row = 6
    needs = frozenset({Need.ROOT})
    lasts_s = (3.0, 8.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._whose = draw.choice(("agent", "gateway"))

    @property
    def name(self) -> str:
        return f"disk of {self._whose} read-only"

    def _set(self, plant: Plant, *, writable: bool) -> None:
        part = plant.parts[self._whose]
        disk = plant.agent_disk if self._whose == "agent" else plant.gateway_disk
        assert isinstance(disk, SmallDisk)
        with part.hold:
            part.kill()
            disk.set_writable(writable=writable)
            part.start()

    def inject(self, plant: Plant) -> None:
        self._set(plant, writable=False)

    def heal(self, plant: Plant) -> None:
        self._set(plant, writable=True)
