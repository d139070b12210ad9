"""What every fault is: something that strikes a plant, and heals."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import ClassVar

from tests.chaos.plant import Plant


class Need(StrEnum):
    """What a fault asks of machine or round."""

    ROOT = "root"
    NFT = "nft"
    INFLUX = "InfluxDB"
    MEMORY_GROUP = "memory control group"
    EXT4 = "ext4"
    HISTORY = "history"


class Fault(ABC):
    """A fault drawn from a seed. `lasts_s` is its least and greatest length; `blinds`: the agent may see nothing meanwhile."""

    row: ClassVar[int]
    needs: ClassVar[frozenset[Need]] = frozenset()
    blinds: ClassVar[bool] = False
    lasts_s: ClassVar[tuple[float, float]] = (3.0, 12.0)
    darkens: ClassVar[bool] = False
    """Nothing from the agent reaches the gateway meanwhile."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    @property
    def name(self) -> str:
        """What it is, for the schedule."""
        return type(self).__name__

    def fits(self, plant: Plant) -> bool:
        """Whether it may strike now."""
        return True

    @abstractmethod
    def inject(self, plant: Plant) -> None:
        """Strike."""

    @abstractmethod
    def heal(self, plant: Plant) -> None:
        """Make good what can be made good; what it damaged is the product's to mend."""
