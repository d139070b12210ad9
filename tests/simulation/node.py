"""A machine that runs a process, and the moments at which its power can fail.

A node is killed abruptly: from that instant nothing that its tasks still do has any effect (its disk, links and
connections are inert), and they are cancelled. What the process had committed is in its files, which the next start
finds. `CrashPoint`s are the commit boundaries: the places where an order of effects could be wrong.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from simulators.draw import Draw
from tests.simulation.virtual_loop import VirtualLoop, settle


class CrashPoint(StrEnum):
    """Where a node can be made to die. `NOW`: wherever its tasks happen to be."""

    NOW = "now"
    BEFORE_COMMIT = "before_commit"
    AFTER_COMMIT = "after_commit"
    AFTER_PUBLISH = "after_publish"
    AFTER_PUBACK = "after_puback"
    AFTER_ACK = "after_ack"
    AFTER_SEND = "after_send"
    AFTER_WRITE = "after_write"


class PowerCutError(BaseException):
    """The node died here; nothing may catch this but the simulation."""


@dataclass(slots=True)
class DiskWeather:
    """How slow a disk is, how often it stalls, and whether it has room."""

    latency_ms_min: int = 1
    latency_ms_max: int = 3
    stall_share: float = 0.0
    stall_ms_max: int = 2000
    is_full: bool = False


class Life:
    """Whether the node's process lives; `point` is called at each crash point and ends it where it is armed."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.armed: CrashPoint | None = None
        self.on_death: Callable[[CrashPoint], None] = lambda _point: None

    def point(self, here: CrashPoint) -> None:
        """Die here if that was asked for."""
        if self.is_alive and self.armed is here:
            self.end(here)
            raise PowerCutError(f"{self.name} died {here}")
        if not self.is_alive:
            raise PowerCutError(f"{self.name} is dead")

    def end(self, here: CrashPoint) -> None:
        """Die."""
        if self.is_alive:
            self.is_alive = False
            self.armed = None
            self.on_death(here)


class Disk:
    """An `Offload`: does a process's disk work in order, each job after a latency; a dead process's never."""

    def __init__(self, loop: VirtualLoop, life: Life, draw: Draw, weather: DiskWeather) -> None:
        self.weather = weather
        self._loop = loop
        self._life = life
        self._draw = draw
        self._jobs: deque[tuple[Callable[[], object], asyncio.Future[object]]] = deque()
        self._is_busy = False

    def __call__(self, work: Callable[[], object], done: asyncio.Future[object]) -> None:
        self._jobs.append((work, done))
        self._begin()

    def _begin(self) -> None:
        if self._is_busy or not self._jobs:
            return
        self._is_busy = True
        latency_ms = self._draw.between(self.weather.latency_ms_min, self.weather.latency_ms_max)
        if self._draw.chance(self.weather.stall_share):
            latency_ms += self._draw.between(1, self.weather.stall_ms_max)
        self._loop.call_later(latency_ms / 1000, self._do)

    def _do(self) -> None:
        work, done = self._jobs.popleft()
        self._is_busy = False
        answer: asyncio.Future[object] = self._loop.create_future()
        if self._life.is_alive and not done.cancelled():
            settle(work, answer)
        if not self._life.is_alive or done.cancelled():
            answer.cancelled() or (answer.done() and answer.exception())  # nobody is left to be told
            done.cancel()
        elif (error := answer.exception()) is not None:
            done.set_exception(error)
        else:
            done.set_result(answer.result())
        self._begin()
