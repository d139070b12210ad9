"""Rows 23 and 24: InfluxDB and the notifier."""

from __future__ import annotations

import os
import random
import signal

from tests.chaos.faults.base import Fault, Need
from tests.chaos.mailbox import Mood
from tests.chaos.plant import Plant


class BadMailbox(Fault):
    """The webhook's receiver refuses, loses its answers or dawdles."""

    row = 24
    lasts_s = (5.0, 20.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._mood = draw.choice((Mood.REFUSING, Mood.LOSING_ANSWERS, Mood.DAWDLING))

    @property
    def name(self) -> str:
        return f"webhook {self._mood}"

    def inject(self, plant: Plant) -> None:
        plant.mailbox.mood = self._mood

    def heal(self, plant: Plant) -> None:
        plant.mailbox.mood = Mood.GOOD


class InfluxAway(Fault):
    """InfluxDB hangs (SIGSTOP), or is killed and comes back."""

    row = 23
    needs = frozenset({Need.INFLUX})
    lasts_s = (5.0, 15.0)

    def __init__(self, draw: random.Random) -> None:
        super().__init__(draw)
        self._is_killed = draw.random() < 0.5

    @property
    def name(self) -> str:
        return "InfluxDB killed" if self._is_killed else "InfluxDB hangs"

    def inject(self, plant: Plant) -> None:
        assert plant.influx is not None
        if self._is_killed:
            plant.influx.kill()
        else:
            os.kill(plant.influx.pid, signal.SIGSTOP)

    def heal(self, plant: Plant) -> None:
        assert plant.influx is not None
        if self._is_killed:
            plant.influx.start()
        else:
            os.kill(plant.influx.pid, signal.SIGCONT)
