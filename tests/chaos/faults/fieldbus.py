"""Rows 15 to 18: controllers and their wire."""

from __future__ import annotations

import random
import time
from typing import Final

from simulators.faults import FaultKind
from tests.chaos.faults.base import Fault
from tests.chaos.plant import Plant

KINDS: Final = (
    FaultKind.LATE,
    FaultKind.DRIBBLE,
    FaultKind.SWALLOW,
    FaultKind.RESET,
    FaultKind.RESET_MID_FRAME,
    FaultKind.CLOSE,
    FaultKind.DROP_REPLY,
    FaultKind.DUPLICATE,
    FaultKind.TWO_ANSWERS,
    FaultKind.JUNK,
    FaultKind.WRONG_TRANSACTION,
    FaultKind.WRONG_UNIT,
    FaultKind.WRONG_FUNCTION,
    FaultKind.WRONG_LENGTH,
    FaultKind.SHORT,
    FaultKind.EXCEPTION,
)
"""Those whose every answer is the stand-in's own or none: what the agent believes can be looked up in the served log."""

OTHER_GUARDS: Final = (
    ("belt-03", "pullcord-1"),
    ("belt-03", "pullcord-2"),
    ("belt-03", "estop"),
    ("palletiser-01", "curtain-1"),
    ("palletiser-01", "estop"),
)


class SpoiltReplies(Fault):
    """A share of the replies spoilt, in one way."""

    row = 15
    blinds = True
    lasts_s = (4.0, 10.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._kind = draw.choice(KINDS)
        self._percent = draw.choice((5, 20, 60, 100))
        self._delay_ms = draw.choice((3, 100, 600, 1500))

    @property
    def name(self) -> str:
        return f"spoil {self._percent} % of replies: {self._kind}"

    def inject(self, plant: Plant) -> None:
        delay_ms = min(self._delay_ms, 100) if self._kind is FaultKind.DRIBBLE else self._delay_ms
        plant.act("spoil", fault=self._kind, percent=self._percent, delay_ms=delay_ms)

    def heal(self, plant: Plant) -> None:
        plant.act("heal")


class FrozenController(Fault):
    """Its program stands, Modbus answers with the old image: only the heartbeat tells."""

    row = 16
    blinds = True
    lasts_s = (7.0, 12.0)

    def inject(self, plant: Plant) -> None:
        plant.act("plc-stop", device="plc-mixer")

    def heal(self, plant: Plant) -> None:
        plant.act("plc-run", device="plc-mixer")


class DeadNeighbour(Fault):
    """A controller behind the same address falls silent; the mixer's own goes on, and must be seen."""

    row = 17
    lasts_s = (5.0, 15.0)

    def inject(self, plant: Plant) -> None:
        plant.act("unplug", device="plc-belt")

    def heal(self, plant: Plant) -> None:
        plant.act("plug", device="plc-belt")


class DeadController(Fault):
    """The mixer's controller falls silent."""

    row = 17
    blinds = True
    lasts_s = (3.0, 12.0)

    def inject(self, plant: Plant) -> None:
        plant.act("unplug", device="plc-mixer")

    def heal(self, plant: Plant) -> None:
        plant.act("plug", device="plc-mixer")


class RefusedPort(Fault):
    """The controllers' port is closed."""

    row = 15
    blinds = True
    lasts_s = (2.0, 8.0)

    def inject(self, plant: Plant) -> None:
        plant.act("refuse")

    def heal(self, plant: Plant) -> None:
        plant.act("listen")


class Chatter(Fault):
    """The contacts of every other guard flutter at 50 Hz: events as fast as the agent polls."""

    row = 18
    lasts_s = (6.0, 12.0)

    def inject(self, plant: Plant) -> None:
        self._set(plant, on=True)

    def heal(self, plant: Plant) -> None:
        self._set(plant, on=False)

    @staticmethod
    def _set(plant: Plant, *, on: bool) -> None:
        for machine, guard in OTHER_GUARDS:
            plant.act("chatter", machine=machine, guard=guard, channel=1, on=on)


class Flood(Fault):
    """A thousand inputs flip at once, several times: five hundred events each, behind one another."""

    row = 18
    lasts_s = (2.0, 4.0)
    flips: Final = 4

    def inject(self, plant: Plant) -> None:
        hall = plant.open_hall()
        for _ in range(self.flips):
            time.sleep(2.0)
            hall.flip()

    def heal(self, plant: Plant) -> None:
        pass
