"""The hall: 512 doors, what each does at which beat, and the configuration of the agent that watches them.

A beat is twelve doors at standing machines that turn (open or close), one door at a running machine that opens, and one,
opened `HOLD` beats before, that closes: sixteen events, for those two are a violation raised and cleared. No door turns
before its last turn is `TURN` beats old, so an agent that polls three times in as many misses none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

SITE: Final = "changyi"
AGENT: Final = "gw-01"
DOORS_EACH: Final = 32
STANDING, RUNNING = 12, 4
"""Machines of each kind."""

STANDING_DOORS: Final = STANDING * DOORS_EACH
RUNNING_DOORS: Final = RUNNING * DOORS_EACH
DOORS: Final = STANDING_DOORS + RUNNING_DOORS
INPUTS: Final = 2 * DOORS + RUNNING
"""Discrete inputs: two channels a door, then one per running machine that says that it runs."""

TURNS_A_BEAT: Final = 12
TURN: Final = STANDING_DOORS // TURNS_A_BEAT
HOLD: Final = RUNNING_DOORS // 2
EVENTS_A_BEAT: Final = TURNS_A_BEAT + 4

DESIGN_RATE: Final = 0.25
"""Events a second for which a plant gateway is designed."""

RATE: Final = 10 * DESIGN_RATE
"""What the promise is about."""

BEAT_S: Final = EVENTS_A_BEAT / RATE


@dataclass(frozen=True, slots=True)
class Turn:
    """A door opened or closed, at a millisecond of the clock that the agent's events tell."""

    door: str
    is_closed: bool
    at_ms: int


class Hall:
    """The doors. `beat` lets the next one happen; `turns` keeps what every door did, from the beginning on."""

    def __init__(self, at_ms: int) -> None:
        self.inputs = [True] * INPUTS
        self.beats = 0
        self.turns: dict[str, list[Turn]] = {
            name: [Turn(name, is_closed=True, at_ms=at_ms)] for name in names()
        }
        """The first of each says that it was closed when the hall was built."""

    def beat(self, at_ms: int) -> None:
        """The next beat, at this time."""
        first = self.beats * TURNS_A_BEAT % STANDING_DOORS
        for door in range(first, first + TURNS_A_BEAT):
            self._turn(door, at_ms, is_closed=not self.inputs[2 * door])
        self._turn(STANDING_DOORS + self.beats % RUNNING_DOORS, at_ms, is_closed=False)
        if self.beats >= HOLD:
            self._turn(STANDING_DOORS + (self.beats - HOLD) % RUNNING_DOORS, at_ms, is_closed=True)
        self.beats += 1

    def _turn(self, door: int, at_ms: int, *, is_closed: bool) -> None:
        self.inputs[2 * door] = self.inputs[2 * door + 1] = is_closed
        name = name_of(door)
        self.turns[name].append(Turn(name, is_closed, at_ms))

    def closed(self) -> Mapping[str, bool]:
        """Every door as it is now."""
        return {name: turns[-1].is_closed for name, turns in self.turns.items()}


def name_of(door: int) -> str:
    """`machine/guard` of a door by its number."""
    kind, place = ("still", door) if door < STANDING_DOORS else ("run", door - STANDING_DOORS)
    return f"{kind}-{place // DOORS_EACH}/d{place % DOORS_EACH}"


def names() -> list[str]:
    """Of every door."""
    return [name_of(door) for door in range(DOORS)]


def is_watched(door: str) -> bool:
    """Whether it is at a running machine, so that its opening is a violation."""
    return door.startswith("run-")


def config(*, broker: str, modbus_port: int, poll_ms: int) -> str:
    """The agent's configuration. A read may take seconds on a starved machine: that is not what is tried here."""
    device = (
        f"url: 'modbus+tcp://127.0.0.1:{modbus_port}', poll_ms: {poll_ms}, timeout_ms: 3000, stale_ms: 15000"
    )
    lines = [
        f"site: {SITE}",
        f"agent: {AGENT}",
        "labels: {zh: 一号网关, en: First gateway}",
        f"mqtt: {{url: 'mqtt://{broker}'}}",
        "store: {path: gw-01.db, size_max_mb: 512}",
        f"devices: {{plc: {{{device}}}}}",
        "machines:",
    ]
    return "\n".join([*lines, *_machines(), ""])


def _machines() -> Iterator[str]:
    for number in range(STANDING + RUNNING):
        name = name_of(number * DOORS_EACH).partition("/")[0]
        yield f"  {name}:"
        yield f"    labels: {{zh: 机器{number}, en: Machine {number}}}"
        if number >= STANDING:
            yield f"    signals: {{running: {{at: plc/di/{2 * DOORS + number - STANDING}}}}}"
        yield "    guards:"
        for door in range(number * DOORS_EACH, (number + 1) * DOORS_EACH):
            label = f"labels: {{zh: 门{door}, en: Door {door}}}"
            channels = f"channels: [{{at: plc/di/{2 * door}}}, {{at: plc/di/{2 * door + 1}}}]"
            yield f"      d{door % DOORS_EACH}: {{{label}, kind: interlocked_door, {channels}}}"
