"""Rows 1, 12, 22: processes that die, freeze or hang."""

from __future__ import annotations

import random
from typing import Final

from tests.chaos.faults.base import Fault
from tests.chaos.plant import Plant

WATCHDOG_S: Final = 6.0
"""Three of the agent's pings."""


class Kill(Fault):
    """SIGKILL; the supervisor brings it back after the fault's length."""

    row = 1
    lasts_s = (0.05, 1.2)

    def __init__(self, draw: random.Random, part: str) -> None:
        super().__init__(draw)
        self._part = part

    @property
    def name(self) -> str:
        return f"kill {self._part}"

    def inject(self, plant: Plant) -> None:
        part = plant.parts[self._part]
        part.hold.acquire()
        part.kill()

    def heal(self, plant: Plant) -> None:
        part = plant.parts[self._part]
        part.start()
        part.hold.release()


class Freeze(Fault):
    """SIGSTOP one of the four for one to twenty seconds."""

    row = 12
    lasts_s = (1.0, 20.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._part = draw.choice(("agent", "gateway", "broker", "plant"))

    @property
    def name(self) -> str:
        return f"freeze {self._part}"

    def inject(self, plant: Plant) -> None:
        plant.parts[self._part].freeze()

    def heal(self, plant: Plant) -> None:
        plant.parts[self._part].thaw()


class HangUnderWatchdog(Fault):
    """The agent hangs; its supervisor, which misses the pings, ends it and starts it anew."""

    row = 22
    lasts_s = (10.0, 14.0)

    def inject(self, plant: Plant) -> None:
        plant.agent.watchdog_s = WATCHDOG_S
        plant.agent.freeze()

    def heal(self, plant: Plant) -> None:
        plant.agent.watchdog_s = None
        plant.agent.thaw()
