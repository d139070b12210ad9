"""The people at the machines: some careful, some who try everything that hurts.

A script is a generator that acts on the plant and yields how many milliseconds until it goes on (`simulators.people`
has the careful ones). `restless` is the other kind: it opens jumpered doors on running machines, turns bypass keys,
breaks wires, stops controllers. `put_right` undoes all of it.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from simulators.acts import Act, Verb
from simulators.cell import Cell
from simulators.draw import Draw
from simulators.machine import Guard, Machine
from simulators.plant import DEVICES, Mode

Script = Generator[int, None, None]

PAUSE_MS: Final = (300, 9_000)
SHORT_MS: Final = (50, 1_500)


def restless(cell: Cell, machine: Machine, draw: Draw) -> Script:
    """Somebody who tries everything, at one machine, for ever."""
    device = machine.spec.device
    while True:
        yield draw.between(*PAUSE_MS)
        if not machine.contactor:
            machine.reset()
            yield draw.between(400, 900)
            machine.start()
            yield draw.between(*SHORT_MS)
        guard = draw.choice(list(machine.guards.values()))
        deed = draw.between(0, 9)
        if deed <= 4:
            yield from open_and_close(guard, draw, is_jumpered=draw.chance(0.6))
        elif deed == 5 and guard.spec.bypass_at is not None:
            cell.act(Act(Verb.BYPASS, machine=machine.spec.id, guard=guard.spec.id, on=True))
            yield draw.between(200, 15_000)
            cell.act(Act(Verb.BYPASS, machine=machine.spec.id, guard=guard.spec.id, on=False))
        elif deed == 6 and len(guard.spec.channels) > 1:
            guard.stick(draw.between(1, 2), draw.chance(0.5))
            yield draw.between(100, 8_000)
            yield from open_and_close(guard, draw, is_jumpered=True)
            guard.stick(1, None)
            guard.stick(2, None)
        elif deed == 7:
            machine.mode = draw.choice(list(Mode))
        elif deed == 8:
            cell.act(Act(draw.choice((Verb.PLC_STOP, Verb.UNPLUG)), device=device))
            yield draw.between(500, 25_000)
            cell.act(Act(Verb.PLC_RUN, device=device))
            cell.act(Act(Verb.PLUG, device=device))
        else:
            machine.stop()


def open_and_close(guard: Guard, draw: Draw, *, is_jumpered: bool) -> Script:
    """Open a guard, with the safety circuit jumpered or not, and close it again."""
    guard.defeated = is_jumpered
    guard.changed()
    if guard.spec.has_lock:
        guard.force_bolt(released=True)
    if guard.move(closed=False) is None:
        yield draw.between(50, 6_000)
        guard.move(closed=True)
        yield draw.between(100, 600)
    if guard.spec.has_lock:
        guard.force_bolt(released=False)
        yield draw.between(200, 400)
    guard.defeated = False
    guard.changed()


def put_right(cell: Cell) -> None:
    """Everything closed, healthy and answering; machines stopped."""
    for device in DEVICES:
        for verb in (Verb.PLC_RUN, Verb.PLUG, Verb.PRESENT):
            cell.act(Act(verb, device=device))
    for machine in cell.machines.values():
        machine.mode = Mode.AUTO
        machine.weld(welded=False)
        machine.stop()
        for guard in machine.guards.values():
            guard.stick(1, None)
            if len(guard.spec.channels) > 1:
                guard.stick(2, None)
            guard.taped = guard.bypassed = guard.defeated = False
            guard.unlock_requested = guard.solenoid = False
            if not guard.closed:
                guard.move(closed=True)
            if guard.spec.has_lock:
                guard.force_bolt(released=False)
            guard.changed()


def move_all(cell: Cell, *, is_closed: bool) -> None:
    """Every guard one way, at machines that stand."""
    for machine in cell.machines.values():
        for guard in machine.guards.values():
            if guard.spec.has_lock and not is_closed:
                guard.force_bolt(released=True)
            if guard.closed != is_closed:
                guard.move(closed=is_closed)
            if guard.spec.has_lock and is_closed:
                guard.force_bolt(released=False)
