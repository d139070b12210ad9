"""The casting-sand cell: three machines, their guards and people, as a pure function of seed, acts and virtual time.

    cell = Cell(seed=7)
    cell.act(Act(Verb.START, machine="mixer-18"))     # done at cell.now_ms
    cell.advance(5_000)                               # virtual ms; no clock is read, nothing sleeps
    cell.image("plc-mixer").discrete_inputs           # what its controller would answer over Modbus
    cell.truth(); cell.log.open_while_moving("mixer-18", "door-1")

Theory of operation: a heap of (time, order, action). `advance` runs what is due, in order; between two entries nothing
changes but speeds, which have a closed form. So days pass in seconds, and equal seeds with equal acts give equal
traces, whatever the sizes of the steps. Draws come from streams split by machine and guard: an act on one machine
never shifts the bounces of another.

The controllers copy signals into their images at once; a stopped one keeps its last image and its heartbeat stands.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from simulators.acts import Act, Verb
from simulators.draw import Draw
from simulators.faults import Fault
from simulators.machine import Guard, Machine
from simulators.people import Script, operator
from simulators.plant import (
    DEVICES,
    DI_COUNT,
    DI_EDM_OK,
    DI_LOCK_CMD,
    DI_LOCKED,
    DI_RESET,
    DI_RUN_FB,
    DI_SAFETY_OUT,
    DI_START,
    DI_ZERO_SPEED,
    HR_CFG_CRC,
    HR_COUNT,
    HR_HEARTBEAT,
    HR_MAP_VERSION,
    HR_MODE,
    HR_RESET_COUNT,
    IR_BELT_SPEED,
    IR_COUNT,
    IR_SPEED,
    MAP_VERSION,
    MODE_VALUES,
    PLANT,
)
from simulators.truth import Fact, Truth, TruthLog

HEARTBEAT_MS: Final = 100
WORD_RANGE: Final = 0x10000


@dataclass(frozen=True, slots=True)
class Image:
    """One controller's memory as Modbus serves it."""

    discrete_inputs: tuple[bool, ...]
    holding_registers: tuple[int, ...]
    input_registers: tuple[int, ...]


class Controller:
    """A PLC: whether its program runs, whether its unit answers, whether its input module is there."""

    def __init__(self) -> None:
        self.answers = True
        self.module_present = True
        self.frozen: Image | None = None
        self._beats_ms = 0
        self._runs_since_ms = 0

    def heartbeat(self, now_ms: int) -> int:
        """The free-running counter of the program."""
        return (self._beats_ms + now_ms - self._runs_since_ms) // HEARTBEAT_MS % WORD_RANGE

    def stop(self, now_ms: int, image: Image) -> None:
        """Stop the program: from now on Modbus answers with `image`."""
        self._beats_ms += now_ms - self._runs_since_ms
        self.frozen = image

    def run(self, now_ms: int) -> None:
        """Run the program again."""
        self._runs_since_ms = now_ms
        self.frozen = None


class Cell:
    """The plant. `people=True` puts a seeded operator at each machine."""

    def __init__(self, seed: int, *, people: bool = False) -> None:
        self.now_ms = 0
        self.log = TruthLog()
        self.endpoint_open = True
        self.wire: tuple[Fault, ...] = ()
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        draw = Draw(seed)
        self.machines = {spec.id: Machine(spec, self, draw.split(spec.id)) for spec in PLANT}
        self.controllers = {device: Controller() for device in DEVICES}
        self._note_devices()
        if people:
            for spec in PLANT:
                self._follow(operator(self.machines[spec.id], draw.split(f"operator of {spec.id}")))

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Run `action` `delay_ms` from now (0: still at this instant, after what is due already)."""
        self._order += 1
        heapq.heappush(self._heap, (self.now_ms + delay_ms, self._order, action))

    def note(self, fact: Fact, *, value: bool) -> None:
        """Write a truth down, as of now."""
        self.log.note(fact, self.now_ms, value=value)

    @property
    def next_ms(self) -> int | None:
        """When something happens next by itself; null when nothing is under way."""
        return self._heap[0][0] if self._heap else None

    def advance(self, to_ms: int) -> None:
        """Let virtual time pass up to and including `to_ms` (never back)."""
        assert to_ms >= self.now_ms, f"time runs forwards: {to_ms} is before {self.now_ms}"
        while self._heap and self._heap[0][0] <= to_ms:
            self.now_ms, _, action = heapq.heappop(self._heap)
            action()
        self.now_ms = to_ms

    def act(self, act: Act) -> str | None:
        """Do something now; the reason when it cannot be done (a locked door), null when it was."""
        if act.verb in {Verb.REFUSE, Verb.LISTEN}:
            self.endpoint_open = act.verb is Verb.LISTEN
            self._note_devices()
            return None
        if act.verb is Verb.HEAL:
            self.wire = ()
            return None
        if act.fault is not None:
            self.wire += (Fault(act.fault, act.delay_ms, share=act.percent / 100),)
            return None
        if act.device:
            self._act_on_controller(act)
            return None
        machine = self.machines[act.machine]
        if not act.guard:
            act_on_machine(machine, act)
            return None
        return act_on_guard(machine, machine.guards[act.guard], act)

    def truth(self) -> Truth:
        """Everything as it really is, now."""
        return Truth(
            at_ms=self.now_ms,
            machines={machine_id: machine.truth() for machine_id, machine in self.machines.items()},
            devices={device: self._is_live(controller) for device, controller in self.controllers.items()},
        )

    def image(self, device: str) -> Image:
        """What the controller's memory holds now (see `simulators.plant` for the map)."""
        controller = self.controllers[device]
        image = controller.frozen or self._live_image(device)
        if controller.module_present:
            return image
        return Image((True,) * DI_COUNT, image.holding_registers, image.input_registers)

    def _live_image(self, device: str) -> Image:
        spec = DEVICES[device]
        machine = self.machines[spec.id]
        bits = [False] * DI_COUNT
        words = [0] * HR_COUNT
        for guard in machine.guards.values():
            copy_guard(guard, bits, words)
        bits[DI_RUN_FB] = machine.contactor
        bits[DI_ZERO_SPEED] = machine.zero_speed
        bits[DI_SAFETY_OUT] = machine.safety_out
        bits[DI_EDM_OK] = machine.edm_ok
        bits[DI_RESET] = machine.reset_pressed
        bits[DI_START] = machine.start_pressed
        words[HR_HEARTBEAT] = self.controllers[device].heartbeat(self.now_ms)
        words[HR_MAP_VERSION] = MAP_VERSION
        words[HR_MODE] = MODE_VALUES[machine.mode]
        words[HR_RESET_COUNT] = machine.reset_count % WORD_RANGE
        words[HR_CFG_CRC] = spec.cfg_crc
        analog = [0] * IR_COUNT
        analog[IR_SPEED] = round(machine.speed * spec.rated_rpm * 10)
        if spec.belt_mm_s is not None:
            analog[IR_BELT_SPEED] = round(
                machine.speed * spec.belt_mm_s * (100 - machine.slip_percent) / 1000
            )
        return Image(tuple(bits), tuple(words), tuple(analog))

    def _act_on_controller(self, act: Act) -> None:
        controller = self.controllers[act.device]
        match act.verb:
            case Verb.PLC_STOP if controller.frozen is None:
                controller.stop(self.now_ms, self._live_image(act.device))
            case Verb.PLC_RUN if controller.frozen is not None:
                controller.run(self.now_ms)
            case Verb.UNPLUG | Verb.PLUG:
                controller.answers = act.verb is Verb.PLUG
            case Verb.ABSENT | Verb.PRESENT:
                controller.module_present = act.verb is Verb.PRESENT
            case _:
                pass  # stopped or running already
        self._note_devices()

    def _is_live(self, controller: Controller) -> bool:
        return (
            self.endpoint_open
            and controller.answers
            and controller.frozen is None
            and controller.module_present
        )

    def _note_devices(self) -> None:
        for device, controller in self.controllers.items():
            self.note(Fact(device, "", "live"), value=self._is_live(controller))

    def _follow(self, script: Script) -> None:
        """Let a person go on with the script until its next pause."""
        pause_ms = next(script, None)
        if pause_ms is not None:
            self.after(pause_ms, lambda: self._follow(script))


def copy_guard(guard: Guard, bits: list[bool], words: list[int]) -> None:
    """Put a guard's signals where the map has them."""
    for at, value in zip(guard.spec.channels, guard.channels, strict=True):
        bits[at] = value
    if guard.spec.has_lock:
        bits[DI_LOCKED] = guard.bolted
        bits[DI_LOCK_CMD] = guard.solenoid
    if guard.spec.bypass_at is not None:
        bits[guard.spec.bypass_at] = guard.bypassed
    if guard.spec.open_count_at is not None:
        words[guard.spec.open_count_at] = guard.open_count % WORD_RANGE


def act_on_machine(machine: Machine, act: Act) -> None:
    """Do something to a machine as a whole."""
    match act.verb:
        case Verb.START:
            machine.start()
        case Verb.STOP:
            machine.stop()
        case Verb.RESET:
            machine.reset()
        case Verb.MODE:
            machine.mode = act.mode
        case Verb.WELD | Verb.UNWELD:
            machine.weld(welded=act.verb is Verb.WELD)
        case Verb.SLIP:
            machine.slip_percent = act.percent
        case verb:
            raise AssertionError(f"{verb} is not done to a machine")


def act_on_guard(machine: Machine, guard: Guard, act: Act) -> str | None:
    """Do something to a guard; the reason when it cannot be done."""
    match act.verb:
        case Verb.OPEN | Verb.PRESS | Verb.PULL:
            return guard.move(closed=False)
        case Verb.CLOSE | Verb.RELEASE | Verb.RESET_CORD:
            return guard.move(closed=True)
        case Verb.UNLOCK | Verb.LOCK:
            machine.request_unlock(guard, unlock=act.verb is Verb.UNLOCK)
        case Verb.AUX_RELEASE | Verb.AUX_RESTORE:
            guard.force_bolt(released=act.verb is Verb.AUX_RELEASE)
        case Verb.STICK:
            guard.stick(act.channel, act.on)
        case Verb.UNSTICK:
            guard.stick(act.channel, None)
        case Verb.CHATTER:
            guard.chatter(act.channel, on=act.on)
        case Verb.BYPASS:
            guard.bypassed = act.on
        case Verb.DEFEAT | Verb.RESTORE:
            guard.defeated = act.verb is Verb.DEFEAT
        case Verb.TAPE | Verb.UNTAPE:
            guard.taped = act.verb is Verb.TAPE
        case verb:
            raise AssertionError(f"{verb} is not done to a guard")
    guard.changed()
    return None
