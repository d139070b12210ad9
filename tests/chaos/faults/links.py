"""Rows 8 to 10: the link between plant floor and server room."""

from __future__ import annotations

import random
import time
from typing import Final

from tests.chaos.faults.base import Fault, Need
from tests.chaos.place import PlantFloor
from tests.chaos.plant import Plant


class _LinkFault(Fault):
    needs = frozenset({Need.ROOT})

    def strike(self, floor: PlantFloor) -> None:
        raise NotImplementedError

    def inject(self, plant: Plant) -> None:
        assert isinstance(plant.place, PlantFloor)
        self.strike(plant.place)

    def heal(self, plant: Plant) -> None:
        assert isinstance(plant.place, PlantFloor)
        plant.place.heal()


class LinkBlink(_LinkFault):
    """Down for a second."""

    row = 8
    lasts_s = (1.0, 1.0)
    darkens = True

    def strike(self, floor: PlantFloor) -> None:
        floor.cut()


class LinkDown(_LinkFault):
    """Down for long: the agent is found to be offline, its events wait in its store."""

    row = 8
    lasts_s = (12.0, 25.0)
    darkens = True

    def strike(self, floor: PlantFloor) -> None:
        floor.cut()


class BacklogBehindCut(_LinkFault):
    """Down while a thousand inputs flip again and again: thousands of events wait, and then must drain."""

    row = 8
    lasts_s = (1.0, 3.0)
    darkens = True
    flips: Final = 6

    def strike(self, floor: PlantFloor) -> None:
        floor.cut()

    def inject(self, plant: Plant) -> None:
        hall = plant.open_hall()
        super().inject(plant)
        for _ in range(self.flips):
            time.sleep(2.0)
            hall.flip()


class OneWay(_LinkFault):
    """Half open: one direction swallows everything."""

    row = 9
    lasts_s = (4.0, 15.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._upwards = draw.random() < 0.5

    @property
    def name(self) -> str:
        return f"swallow {'upwards' if self._upwards else 'downwards'}"

    def strike(self, floor: PlantFloor) -> None:
        floor.swallow(upwards=self._upwards)


class PacketLoss(_LinkFault):
    """1 to 30 of 100 packets lost."""

    row = 10
    needs = frozenset({Need.ROOT, Need.NFT})
    lasts_s = (8.0, 20.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._percent = draw.randint(1, 30)

    @property
    def name(self) -> str:
        return f"lose {self._percent} % of packets"

    def strike(self, floor: PlantFloor) -> None:
        floor.lose(self._percent)


class SlowLink(_LinkFault):
    """16 to 64 kbit/s upwards."""

    row = 10
    lasts_s = (8.0, 20.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._kbit = draw.choice((16, 32, 64))

    @property
    def name(self) -> str:
        return f"slow link, {self._kbit} kbit/s"

    def strike(self, floor: PlantFloor) -> None:
        floor.slow(self._kbit)
