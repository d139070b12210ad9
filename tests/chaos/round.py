"""One round: a plant, a door, two lanes of faults; then everything healed and drained, and the books closed.

The door's thread opens for shorter than T_allow or for longer; a long opening is held until the agent has had clear
sight of it for long enough, and so is the time between two openings: then what had to be found is certain. (What is not,
because a fault lasts longer than the patience, the oracle leaves open.)
"""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

from tests.chaos.accounting import Finding, Verdict
from tests.chaos.audit import Books, close_books
from tests.chaos.drain import settle
from tests.chaos.oracle import OFF_DELAY_S, T_ALLOW_S
from tests.chaos.plant import GUARD, MACHINE, Options, Plant, wait_until
from tests.chaos.process import Span
from tests.chaos.schedule import FULL, Pace, Strike, kills, others
from tests.chaos.watch import Watch, recovered_at_s

SHORT_SHARE: Final = 0.2
SEEN_OPEN_S: Final = T_ALLOW_S + 1.0
SEEN_CLOSED_S: Final = OFF_DELAY_S + 1.0
PATIENCE_S: Final = 30.0
UP_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Plan:
    """A round as it was ordered."""

    seed: int
    number: int
    length_s: float
    faults: tuple[str, ...]
    folder: Path
    options: Options
    pace: Pace = FULL
    has_kills: bool = True
    keep: Path | None = None
    """Where stores and logs of a round with findings, or without an end, are copied."""


@dataclass(slots=True)
class Struck:
    """A fault that struck: its row and name, when, when it was healed, when everything worked again."""

    row: int
    name: str
    from_s: float
    healed_s: float = float("inf")
    recovered_s: float | None = None


@dataclass(slots=True)
class Result:
    """What came of a round. `failure` is why it could not be brought to its end."""

    seed: int
    number: int
    schedule: list[str] = field(default_factory=list)
    struck: list[Struck] = field(default_factory=list)
    books: Books = field(default_factory=Books)
    took_s: float = 0.0
    failure: str | None = None


def play(plan: Plan, sabotage: Callable[[Plant], None] = lambda _: None) -> Result:
    """Play one round; whatever goes wrong is in the result.

    `sabotage` is done to the drained plant before its books are closed: to see that they would show it.
    """
    result = Result(plan.seed, plan.number)
    started_s = time.monotonic()
    signal.signal(signal.SIGTERM, _end)  # this process has the round to itself: what it started ends with it
    try:
        plan.folder.mkdir(parents=True)
        with Plant(plan.folder, plan.options) as plant:
            try:
                _Round(plan, plant, result).play(sabotage)
            finally:
                if plan.keep and _is_telling(result.books):
                    kept = plan.keep / f"seed-{plan.seed}-{plan.folder.name}"
                    shutil.copytree(plan.folder, kept, dirs_exist_ok=True)
    except Exception:  # noqa: BLE001 — a round that fails is a result, with its reason
        result.failure = traceback.format_exc()
    result.took_s = time.monotonic() - started_s
    return result


def _is_telling(books: Books) -> bool:
    """Whether there is something to look into."""
    return bool(books.findings) or books.events == 0 or books.stale_at_s is not None


def _end(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)


class _Round:
    def __init__(self, plan: Plan, plant: Plant, result: Result) -> None:
        self._plan = plan
        self._plant = plant
        self._result = result
        self._over = threading.Event()
        self._failures: list[BaseException] = []

    def play(self, sabotage: Callable[[Plant], None]) -> None:
        plan, plant = self._plan, self._plant
        wait_until("the agent is heard", lambda: bool(plant.polls()), timeout_s=UP_S)
        watch = Watch(plant)
        watch.start()
        name = f"{plan.seed}/{plan.number}"
        lanes = [
            self._thread(
                lambda: self._strike(others(random.Random(f"{name}/faults"), plan.faults, plan.pace))
            ),
            self._thread(lambda: self._move_door(random.Random(f"{name}/door"))),
        ]
        if plan.has_kills:
            lane = kills(random.Random(f"{name}/kills"), plan.pace)
            lanes.append(self._thread(lambda: self._strike(lane)))
        self._over.wait(plan.length_s)
        self._over.set()
        for thread in lanes:
            thread.join()
        if self._failures:
            raise self._failures[0]
        undrained: list[Finding] = []
        try:
            settle(plant)
        except TimeoutError as failure:
            undrained = [Finding(Verdict.LOST, None, str(failure))]
        watch.stop()
        for struck in self._result.struck:
            struck.recovered_s = recovered_at_s(watch.looks, struck.healed_s)
        sabotage(plant)
        self._result.books = close_books(plant, watch.looks)
        self._result.books.findings += undrained

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as failure:  # noqa: BLE001 — told by the round's own thread
                self._failures.append(failure)
                self._over.set()

        thread = threading.Thread(target=guarded, daemon=True)
        thread.start()
        return thread

    def _strike(self, lane: Iterator[Strike]) -> None:
        for strike in lane:
            if self._over.wait(strike.after_s):
                return
            fault, plant = strike.fault, self._plant
            if not fault.fits(plant):
                continue
            struck = Struck(fault.row, fault.name, time.monotonic())
            with _marked(plant.blind, fault.blinds), _marked(plant.dark, fault.darkens):
                fault.inject(plant)
                self._result.struck.append(struck)
                self._result.schedule.append(f"{struck.from_s:.2f} {strike}")
                self._over.wait(strike.lasts_s)
                fault.heal(plant)
            struck.healed_s = time.monotonic()

    def _move_door(self, draw: random.Random) -> None:
        plant = self._plant
        while not self._over.is_set():
            with plant.door:
                plant.act("open", machine=MACHINE, guard=GUARD)
                if draw.random() < SHORT_SHARE:
                    time.sleep(draw.uniform(0.1, 0.7 * T_ALLOW_S))
                else:
                    self._hold(SEEN_OPEN_S + draw.uniform(0, 1.5))
                plant.act("close", machine=MACHINE, guard=GUARD)
                self._hold(SEEN_CLOSED_S + draw.uniform(0, 0.5))

    def _hold(self, seen_s: float) -> None:
        """Until the agent has had clear sight for so long, or patience ends."""
        since_s = time.monotonic()
        while time.monotonic() < since_s + PATIENCE_S:
            sight_s = self._plant.sight_since_s()
            if sight_s is not None and time.monotonic() >= max(sight_s + _START_S, since_s) + seen_s:
                return
            time.sleep(0.05)


_START_S: Final = 1.0
"""From a start of the agent to its first poll, on a quiet machine half a second."""


@contextlib.contextmanager
def _marked(spans: list[Span], is_so: bool) -> Iterator[None]:
    if not is_so:
        yield
        return
    span = Span(time.monotonic())
    spans.append(span)
    try:
        yield
    finally:
        span.until_s = time.monotonic() + _AFTER_S


_AFTER_S: Final = 1.0
"""A healed wire needs a moment: the agent's link is silent for a time-out, or dials anew."""
