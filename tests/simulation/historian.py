"""The time-series database at the gateway's side: down, slow, strict, or silent after it has stored.

It keeps points as InfluxDB does: one per series and nanosecond, a second write of the same replaces the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.ports import BadLine, NotAllowed, TooLarge, Unreachable, Written
from simulators.draw import Draw
from tests.simulation.node import CrashPoint, DiskWeather, Life

LINES_MAX: Final = 40
"""What it takes at once while it is strict."""

_STORED: Final = ("violation", "guard_state", "machine_state")


@dataclass(slots=True)
class HistorianWeather(DiskWeather):
    """How it behaves. `is_strict`: refuses many lines at once. `bad_share`: of all lines, refused for ever."""

    latency_ms_max: int = 50
    is_down: bool = False
    is_closed: bool = False
    is_strict: bool = False
    unknown_share: float = 0.0
    bad_share: float = 0.0


@dataclass(slots=True)
class Points:
    """Everything stored, by series and nanosecond; outlives gateways. `overwritten`: another event's point was."""

    points: dict[tuple[str, int], str] = field(default_factory=dict)
    overwritten: list[tuple[str, str]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)

    def store(self, line: str) -> None:
        """Store one line (the events' only: samples of health are none)."""
        series, rest = _split(line)
        fields, _, ns = rest.rpartition(" ")
        if not series.startswith(_STORED):
            return
        event = event_of(fields)
        before = self.points.get((series, int(ns)))
        if before is not None and before != event:
            self.overwritten.append((before, event))
        self.points[series, int(ns)] = event


class SimHistorian:
    """`gateway.ports.Historian`. Called where the product has a thread: latency is the executor's (`world`)."""

    def __init__(self, life: Life, draw: Draw, weather: HistorianWeather, stored: Points) -> None:
        self._life = life
        self._draw = draw
        self._weather = weather
        self._stored = stored

    def write(self, lines: Sequence[str]) -> Written | TooLarge | BadLine | NotAllowed | Unreachable:
        """As the server would, in its present mood."""
        weather = self._weather
        if weather.is_down:
            return Unreachable("connection refused")
        if weather.is_closed:
            return NotAllowed("HTTP 401")
        if weather.is_strict and len(lines) > LINES_MAX:
            return TooLarge()
        bad = [line for line in lines if weather.bad_share and self._is_bad(line)]
        for line in lines:
            if line in bad:
                self._stored.refused.add(event_of(line))
            else:
                self._stored.store(line)
        if self._life.armed is CrashPoint.AFTER_WRITE:
            self._life.end(CrashPoint.AFTER_WRITE)
        if bad:
            return BadLine("HTTP 400: partial write")
        if self._draw.chance(weather.unknown_share):
            return Unreachable("timeout")
        return Written()

    def _is_bad(self, line: str) -> bool:
        """The same line is always as bad as it was."""
        return Draw(0).split(line).chance(self._weather.bad_share)


def event_of(fields: str) -> str:
    """The event that a point is of."""
    _, _, rest = fields.partition('event_id="')
    return rest.partition('"')[0]


def _split(line: str) -> tuple[str, str]:
    """Series and the rest: the first space that is not escaped."""
    at = line.index(" ")
    while line[at - 1] == "\\":
        at = line.index(" ", at + 1)
    return line[:at], line[at + 1 :]
