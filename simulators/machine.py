"""One machine with its guards, switches, safety relay and controller: the physics between an act and a register.

    door moves ─▶ contacts (skew, bounce, stuck, taped) ─▶ channels ─┬─▶ controller's image
                                                                     └─▶ safety relay ─▶ contactor ─▶ drive
         ▲                                                                                   │
         └── bolt ◀── solenoid ◀── unlock request and standstill proven ◀── standstill ◀────┘

The safety relay follows ISO 13849-1 and ISO 14119 usage: an open guard, an unbolted lock or a pressed E-stop drops the
output at once; afterwards a *reset* (button pressed and released with every cause cleared) arms it again, and only a
*start* runs the machine. Whatever defeats it in real plants is here as well: a jumpered guard, a taped switch, a bypass
key, a welded contactor. Everything that takes time is put on the cell's schedule, so the state between two scheduled
moments does not change (but for speed, which has a closed form).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from simulators.draw import Draw
from simulators.drive import Drive
from simulators.plant import GuardSpec, MachineSpec, Mode
from simulators.truth import Fact, GuardTruth, MachineTruth

BOUNCE_MS_MAX: Final = 3  # a contact chatters for some ms (switch makers state up to 5 to 10 ms in all)
CONTACTOR_MS: Final = (15, 35)  # a contactor's drop-out and pull-in time
BOLT_MS: Final = (60, 120)  # a solenoid's bolt, in or out
STANDSTILL_PROOF_MS: Final = 200  # the monitor wants that long without a pulse
UNLOCK_DELAY_MS: Final = 500  # the controller's own delay on top, before it drives the solenoid
CHATTER_MS: Final = 10  # a loose contact on a vibrating frame opens and closes 50 times a second
BUTTON_MS: Final = 300  # how long a hand holds a button


class Schedule(Protocol):
    """What a machine needs of the cell: the time, later calls, and a place for truths."""

    now_ms: int

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Call `action` `delay_ms` from now."""

    def note(self, fact: Fact, *, value: bool) -> None:
        """Write a truth down, as of now."""


class Guard:
    """A guard, its contacts and its bolt. `on_change` is called whenever what the safety relay sees may differ."""

    def __init__(
        self, machine: str, spec: GuardSpec, schedule: Schedule, draw: Draw, on_change: Callable[[], None]
    ) -> None:
        self.spec = spec
        self.closed = True
        self.bolted = spec.has_lock
        self.bypassed = False
        self.defeated = False
        self.taped = False
        self.unlock_requested = False
        self.solenoid = False
        self.aux_released = False
        self.open_count = 0
        self._machine = machine
        self._schedule = schedule
        self._draw = draw
        self._on_change = on_change
        self._contacts = [True] * len(spec.channels)
        self._stuck: list[bool | None] = [None] * len(spec.channels)
        self._is_stuck = False
        self._chattering: dict[int, bool] = {}
        self._moves = 0
        self._note("closed", value=True)
        self._note("indicated_closed", value=True)

    @property
    def channels(self) -> tuple[bool, ...]:
        """What the wires carry, faults included: True = closed."""
        if not (self.taped or self._is_stuck):
            return tuple(self._contacts)
        return tuple(
            True if self.taped else contact if stuck is None else stuck
            for contact, stuck in zip(self._contacts, self._stuck, strict=True)
        )

    @property
    def stops_machine(self) -> bool:
        """Whether the safety relay sees a demand: any channel open or lock not proven, and nothing suspends it."""
        if self.bypassed or self.defeated:
            return False
        return not all(self.channels) or (self.spec.has_lock and not self.bolted)

    def move(self, *, closed: bool) -> str | None:
        """Open or close it; the reason when that cannot be done."""
        if self.closed == closed:
            return f"{self.spec.id} is {'closed' if closed else 'open'} already"
        if not closed and self.bolted:
            return f"{self.spec.id} is locked"
        self.closed = closed
        self.open_count += not closed
        self._moves += 1
        self._note("closed", value=closed)
        for index in range(len(self._contacts)):
            self._switch(index, closed=closed)
        if closed:
            self.drive_bolt()
        return None

    def stick(self, channel: int, value: bool | None) -> None:  # noqa: FBT001 — a contact's value, or none
        """Channel 1 or 2 stays at `value`, or follows the guard again (null)."""
        self._stuck[channel - 1] = value
        self._is_stuck = any(at is not None for at in self._stuck)
        self.changed()

    def chatter(self, channel: int, *, on: bool) -> None:
        """Channel 1 or 2 opens and closes all the time, or follows the guard again."""
        is_going = channel in self._chattering
        if on or is_going:
            self._chattering[channel] = on
        if on and not is_going:
            self._flip(channel)

    def drive_bolt(self) -> None:
        """Let the bolt go where solenoid, tool and leaf let it; it takes its time."""
        self._schedule.after(self._draw.between(*BOLT_MS), self._settle_bolt)

    def force_bolt(self, *, released: bool) -> None:
        """Use the auxiliary release, at once, or put it back."""
        self.aux_released = released
        if released:
            self._settle_bolt()
        else:
            self.drive_bolt()

    def changed(self) -> None:
        """Tell truth and machine that a channel, bolt or suspension may differ."""
        self._note("indicated_closed", value=all(self.channels))
        if self.spec.has_lock:
            self._note("bolted", value=self.bolted)
        self._on_change()

    def truth(self) -> GuardTruth:
        """The guard as it is."""
        bolted = self.bolted if self.spec.has_lock else None
        return GuardTruth(self.closed, bolted, self.channels, self.bypassed)

    def _flip(self, channel: int) -> None:
        if not self._chattering[channel]:
            del self._chattering[channel]
            self.stick(channel, None)
            return
        self.stick(channel, not self.channels[channel - 1])
        self._schedule.after(CHATTER_MS, partial(self._flip, channel))

    def _note(self, name: str, *, value: bool) -> None:
        self._schedule.note(Fact(self._machine, self.spec.id, name), value=value)

    def _switch(self, index: int, *, closed: bool) -> None:
        """Let one contact follow the leaf: some ms later, and chattering."""
        at_ms = self._draw.between(0, self.spec.skew_ms_max)
        move = self._moves
        for bounce in range(2 * self._draw.between(0, self.spec.bounce_max) + 1):
            value = closed if bounce % 2 == 0 else not closed
            self._schedule.after(at_ms, partial(self._set_contact, index, move, value=value))
            at_ms += self._draw.between(1, BOUNCE_MS_MAX)

    def _set_contact(self, index: int, move: int, *, value: bool) -> None:
        if move == self._moves:  # else the leaf has moved on and this contact with it
            self._contacts[index] = value
            self.changed()

    def _settle_bolt(self) -> None:
        if self.solenoid or self.aux_released:
            self.bolted = False
        elif self.spec.has_lock and self.closed:
            self.bolted = True
        self.changed()


class Machine:
    """A machine: see the module's picture. Starts stopped, armed (already reset) and closed."""

    def __init__(self, spec: MachineSpec, schedule: Schedule, draw: Draw) -> None:
        self.spec = spec
        self.mode = Mode.AUTO
        self.safety_out = True
        self.running_wanted = False
        self.contactor = False
        self.welded = False
        self.zero_speed = True
        self.reset_pressed = False
        self.start_pressed = False
        self.reset_count = 0
        self.slip_percent = 0
        self.moving = False
        self._schedule = schedule
        self._draw = draw
        self._drive = Drive(spec.runup_ms, spec.rundown_ms)
        self._contactor_bound = False
        self.guards = {
            guard.id: Guard(spec.id, guard, schedule, draw.split(guard.id), self.settle)
            for guard in spec.guards
        }
        self._note_moving(moving=False)

    @property
    def edm_ok(self) -> bool:
        """Whether the mirror contacts agree that the contactor dropped with the output."""
        return self.safety_out or not self.contactor

    @property
    def speed(self) -> float:
        """Share of the rated speed, now."""
        return self._drive.speed(self._schedule.now_ms)

    @property
    def demanded(self) -> bool:
        """Whether any guard wants the machine stopped."""
        return any(guard.stops_machine for guard in self.guards.values())

    def start(self) -> None:
        """Press start: runs the machine when the relay is armed and no lock is being released, else does nothing."""
        self.start_pressed = True
        self._schedule.after(BUTTON_MS, self._release_start)
        if self.safety_out and not any(guard.solenoid for guard in self.guards.values()):
            self.running_wanted = True
            self.settle()

    def stop(self) -> None:
        """Press stop: the motor is switched off, the relay stays armed."""
        self.running_wanted = False
        self.settle()

    def reset(self) -> None:
        """Press reset; it takes effect when released (ISO 13849-1: on the falling edge)."""
        self.reset_pressed = True
        self._schedule.after(BUTTON_MS, self._release_reset)

    def weld(self, *, welded: bool) -> None:
        """The contactor's contacts weld where they are closed, or come free."""
        self.welded = welded
        self.settle()

    def request_unlock(self, guard: Guard, *, unlock: bool) -> None:
        """Ask for a lock's release (granted once standstill is proven), or for locking again."""
        guard.unlock_requested = unlock
        if unlock:
            self._schedule.after(UNLOCK_DELAY_MS, self._grant_unlocking)
        else:
            guard.solenoid = False
            guard.drive_bolt()

    def settle(self) -> None:
        """Let the relay judge and the contactor follow."""
        if self.demanded and self.safety_out:
            self.safety_out = False
            self.running_wanted = False
        wanted = (self.safety_out and self.running_wanted) or (self.welded and self.contactor)
        if wanted == self._contactor_bound:
            return
        self._contactor_bound = wanted
        self._schedule.after(self._draw.between(*CONTACTOR_MS), lambda: self._switch_contactor(on=wanted))

    def truth(self) -> MachineTruth:
        """The machine as it is."""
        return MachineTruth(
            moving=self.moving,
            powered=self.contactor,
            speed_rpm=self.speed * self.spec.rated_rpm,
            mode=self.mode.value,
            guards={guard_id: guard.truth() for guard_id, guard in self.guards.items()},
        )

    def _release_start(self) -> None:
        self.start_pressed = False

    def _release_reset(self) -> None:
        self.reset_pressed = False
        self.reset_count += 1
        if not self.demanded:
            self.safety_out = True

    def _switch_contactor(self, *, on: bool) -> None:
        if on != self._contactor_bound or on == self.contactor:
            return  # taken back before the contactor moved
        self.contactor = on
        self._drive.power(self._schedule.now_ms, on=on)
        if on:
            self.zero_speed = False
            self._note_moving(moving=True)
        else:
            stands_ms = self._drive.standstill_ms()
            assert stands_ms is not None
            self._schedule.after(stands_ms - self._schedule.now_ms, self._come_to_rest)

    def _come_to_rest(self) -> None:
        if self.contactor or self.speed > 0:
            return  # started again meanwhile
        self._note_moving(moving=False)
        self._schedule.after(STANDSTILL_PROOF_MS, self._prove_standstill)

    def _prove_standstill(self) -> None:
        if not self.moving:
            self.zero_speed = True
            self._schedule.after(UNLOCK_DELAY_MS, self._grant_unlocking)

    def _grant_unlocking(self) -> None:
        for guard in self.guards.values():
            if guard.unlock_requested and not guard.solenoid and self.zero_speed and not self.running_wanted:
                guard.solenoid = True
                guard.drive_bolt()

    def _note_moving(self, *, moving: bool) -> None:
        self.moving = moving
        self._schedule.note(Fact(self.spec.id, "", "moving"), value=moving)
