"""Rows 13 and 14: clocks."""

from __future__ import annotations

import random
import uuid
from typing import Final

from tests.chaos.faults.base import Fault, Need
from tests.chaos.plant import Plant

HOUR_S, DAY_S = 3600, 86_400

STEPS_S: Final = (-HOUR_S, HOUR_S, 10 * DAY_S, -20 * 365 * DAY_S, 12 * 365 * DAY_S, 2, -2)
"""Clock never set, set wrong, beyond 2038, summer time, and what a bad time server does."""

AHEAD_S: Final = (1_000, 100_000, 20_000_000)
"""How far CLOCK_BOOTTIME of the other boot may be ahead: a namespace cannot set it behind the machine's own start."""


class ClockStep(Fault):
    """The wall clock of agent and gateway steps, and back."""

    row = 13
    lasts_s = (4.0, 12.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._step_s = draw.choice(STEPS_S)

    @property
    def name(self) -> str:
        return f"wall clock {self._step_s:+d} s"

    def inject(self, plant: Plant) -> None:
        plant.clock_file.write_text(str(self._step_s))

    def heal(self, plant: Plant) -> None:
        plant.clock_file.write_text("0")


class OtherBoot(Fault):
    """The agent's machine is switched off hard and starts anew: another boot id, another monotonic clock; and once more."""

    row = 14
    needs = frozenset({Need.ROOT})
    lasts_s = (5.0, 15.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._here: list[str] = []

    def inject(self, plant: Plant) -> None:
        ahead_s = self.draw.choice(AHEAD_S)
        boot = str(uuid.UUID(int=self.draw.getrandbits(128), version=4))
        plant.ahead_s.append(ahead_s)
        file = plant.folder / f"boot-{boot}"
        file.write_text(boot + "\n")
        inside = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
        apart = ["unshare", "--time", f"--boottime={ahead_s}", f"--monotonic={ahead_s}", "--mount", "--fork"]
        self._here = plant.agent.command
        self._restart(plant, [*apart, "sh", "-c", inside, str(file), *self._here])

    def heal(self, plant: Plant) -> None:
        self._restart(plant, self._here)

    @staticmethod
    def _restart(plant: Plant, command: list[str]) -> None:
        with plant.agent.hold:
            plant.agent.kill()
            plant.agent.command = command
            plant.agent.start()
