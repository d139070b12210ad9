"""Rows 5 and 6: full and read-only disks."""

from __future__ import annotations

import random

from tests.chaos.disk import SmallDisk
from tests.chaos.drain import agents
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
        is_agents = self._whose == "agent"
        disk = plant.agent_disk if is_agents else plant.gateway_disk
        assert isinstance(disk, SmallDisk)
        parts = agents(plant) if is_agents else [plant.gateway]
        with parts[0].hold:
            for part in parts:
                part.kill()
            disk.set_writable(writable=writable)
            for part in parts:
                part.start()

    def inject(self, plant: Plant) -> None:
        self._set(plant, writable=False)

    def heal(self, plant: Plant) -> None:
        self._set(plant, writable=True)
