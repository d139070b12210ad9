"""Operators: seeded people who run a machine, reach into it properly, and sometimes not.

A script is a generator that acts on its machine and yields how many ms until it goes on; the cell wakes it on virtual
time. One in `IMPROPER_SHARE` visits is improper, in one of the ways that investigations of real accidents name: opening
during run-down, using the interlock as a stop button, a taped switch, a bypass key in automatic mode.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final

from simulators.draw import Draw
from simulators.machine import Guard, Machine
from simulators.plant import GuardKind, Mode

Script = Generator[int, None, None]

IMPROPER_SHARE: Final = (
    0.2  # about a fifth to a quarter of machines run with defeated safeguards (IFA surveys)
)
LOOK_MS: Final = 250  # how often a waiting person looks again
PATIENCE_MS: Final = 60_000  # after which a waiting person gives up
BETWEEN_VISITS_MS: Final = (60_000, 240_000)
WORK_MS: Final = (5_000, 40_000)
HAND_MS: Final = (400, 1_500)  # from one grip to the next


def operator(machine: Machine, draw: Draw) -> Script:
    """A shift at one machine: start it, and visit it every few minutes."""
    yield draw.between(500, 3_000)
    machine.start()
    while True:
        yield draw.between(*BETWEEN_VISITS_MS)
        guard = draw.choice(list(machine.guards.values()))
        if draw.chance(IMPROPER_SHARE):
            yield from draw.choice(improper_visits(guard))(machine, guard, draw)
        elif guard.spec.kind in {GuardKind.ESTOP, GuardKind.PULL_CORD}:
            yield from routine_check(machine, guard, draw)
        else:
            yield from proper_visit(machine, guard, draw)
        yield from restart(machine, draw)


def proper_visit(machine: Machine, guard: Guard, draw: Draw) -> Script:
    """Stop, wait for standstill, open, work, close."""
    machine.stop()
    if guard.spec.has_lock:
        machine.request_unlock(guard, unlock=True)
    yield from until(lambda: machine.zero_speed and not guard.bolted)
    yield from reach_in(guard, draw)
    if guard.spec.has_lock:
        machine.request_unlock(guard, unlock=False)
        yield from until(lambda: guard.bolted)


def routine_check(machine: Machine, guard: Guard, draw: Draw) -> Script:
    """Test an E-stop or cord at a stopped machine."""
    machine.stop()
    yield from until(lambda: machine.zero_speed)
    yield from reach_in(guard, draw)


def impatient_visit(machine: Machine, guard: Guard, draw: Draw) -> Script:
    """Open while the machine still runs down; a lock is forced with the tool."""
    machine.stop()
    yield draw.between(*HAND_MS)
    if guard.spec.has_lock:
        guard.force_bolt(released=True)
    yield from reach_in(guard, draw)
    if guard.spec.has_lock:
        guard.force_bolt(released=False)
        yield from until(lambda: guard.bolted)


def demand_stop_visit(_machine: Machine, guard: Guard, draw: Draw) -> Script:
    """Use the interlock as a stop button: open at full speed."""
    yield from reach_in(guard, draw)


def taped_visit(machine: Machine, guard: Guard, draw: Draw) -> Script:
    """Tape the switch and work inside with the machine running: invisible to the interlock, and to us."""
    guard.taped = True
    guard.changed()
    yield draw.between(*HAND_MS)
    if guard.spec.has_lock:
        machine.stop()
        machine.request_unlock(guard, unlock=True)
        yield from until(lambda: not guard.bolted)
    yield from reach_in(guard, draw)
    if guard.spec.has_lock:
        machine.request_unlock(guard, unlock=False)
        yield from until(lambda: guard.bolted)
    guard.taped = False
    guard.changed()


def bypassed_visit(machine: Machine, guard: Guard, draw: Draw) -> Script:
    """Turn the bypass key and open, without leaving automatic mode."""
    machine.mode = Mode.AUTO
    guard.bypassed = True
    guard.changed()
    yield draw.between(*HAND_MS)
    yield from reach_in(guard, draw)
    guard.bypassed = False
    guard.changed()


Visit = Callable[[Machine, Guard, Draw], Script]


def improper_visits(guard: Guard) -> list[Visit]:
    """The ways to misuse this guard."""
    if guard.spec.kind in {GuardKind.ESTOP, GuardKind.PULL_CORD}:
        return [demand_stop_visit]
    if guard.spec.has_lock:
        return [impatient_visit, taped_visit]
    return [impatient_visit, demand_stop_visit, taped_visit, bypassed_visit]


def reach_in(guard: Guard, draw: Draw) -> Script:
    """Open, work, close (or press and release); a guard that does not open is left alone."""
    if guard.move(closed=False) is not None:
        return
    yield draw.between(*WORK_MS)
    guard.move(closed=True)
    yield draw.between(*HAND_MS)


def restart(machine: Machine, draw: Draw) -> Script:
    """Reset where the relay tripped, then start."""
    yield draw.between(*HAND_MS)
    if not machine.safety_out:
        machine.reset()
        yield draw.between(*HAND_MS)
    machine.start()


def until(condition: Callable[[], bool]) -> Script:
    """Look every now and then until it is so, or patience ends."""
    for _ in range(PATIENCE_MS // LOOK_MS):
        if condition():
            return
        yield LOOK_MS
