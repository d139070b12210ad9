"""Modbus links over the physical cell: answers when and what its controllers would, and fails as links fail.

Every read happens at one instant of the cell (that of the request or that of the reply, so content may be as old as
the request), and is written down in the `ServedLog` with what really was so then: that log, not the product, is the
auditors' source for "good data said so".
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from edge_agent.domain.plan import ReadBlock, Table
from edge_agent.ports import BlockFailed, BlockOk, BlockOutcome
from simulators.cell import Cell, Image
from simulators.draw import Draw
from simulators.machine import Machine
from simulators.plant import DEVICES
from tests.simulation.virtual_loop import VirtualLoop


class Fault(StrEnum):
    """How a read can fail. `late`: the reply comes after the timeout, and must not be taken for another's."""

    TIMEOUT = "timeout"
    LATE = "late"
    EXCEPTION = "exception:6"
    SHORT = "short"
    LINK = "link"


@dataclass(slots=True)
class BusWeather:
    """Shares of reads that fail, and how slow replies are.

    `link_down`: nothing can be reached at all; `table_down`: this table is answered with exceptions.
    """

    latency_ms_max: int = 8
    fault_share: float = 0.0
    late_share: float = 0.0
    exception_share: float = 0.0
    short_share: float = 0.0
    link_down: bool = False
    table_down: Table | None = None


@dataclass(frozen=True, slots=True)
class Plain:
    """A machine as its wires had it at one instant: channels and bypass by guard, what tells motion, the mode."""

    channels: dict[str, tuple[bool, ...]]
    bypassed: dict[str, bool]
    is_moving: bool
    mode: str


@dataclass(frozen=True, slots=True)
class Served:
    """One read: when asked, when answered or given up (virtual ns), what was so (None: no answer, or a stopped PLC's).

    `stopped`: the memory that a stopped program left, one object for each time that it stopped.
    """

    device: str
    block: int
    requested_ns: int
    ended_ns: int
    is_good: bool
    plain: Plain | None
    stopped: Image | None = None


class ServedLog:
    """Every read of one agent's run, by device, in order of its end."""

    def __init__(self) -> None:
        self.on_read: Callable[[Served], None] = lambda _served: None
        self._reads: dict[str, list[Served]] = {}

    def note(self, served: Served) -> None:
        """One more."""
        self._reads.setdefault(served.device, []).append(served)
        self.on_read(served)

    def of(self, device: str) -> list[Served]:
        """Every read of one device."""
        return self._reads.get(device, [])


_UNITS: Final = {spec.unit: spec for spec in DEVICES.values()}


class SimFieldbus:
    """`edge_agent.ports.Fieldbus` over the cell; `log` gets every read."""

    def __init__(
        self, loop: VirtualLoop, cell: Cell, draw: Draw, weather: BusWeather, log: ServedLog
    ) -> None:
        self._loop = loop
        self._cell = cell
        self._draw = draw
        self._weather = weather
        self._log = log
        self._busy = False
        self.requests: Counter[int] = Counter()

    async def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        """Ask the controller; one request in flight."""
        assert not self._busy, "a second request on a link that has one in flight"
        self._busy = True
        self.requests[block.table.function_code] += 1
        try:
            return await self._read(unit, block, timeout_ms)
        finally:
            self._busy = False

    async def close(self) -> None:
        """Nothing to give back."""

    async def _read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        requested_ns = self._loop.now_ns
        spec = _UNITS[unit]
        fault = self._draw_fault(block)
        cell = self._advance()
        controller = cell.controllers[spec.device]
        latency_ms = self._draw.between(1, self._weather.latency_ms_max)
        if fault is None and not controller.answers:
            fault = Fault.TIMEOUT
        if fault in {Fault.TIMEOUT, Fault.LATE}:
            latency_ms = timeout_ms
        is_late = fault is not None or self._draw.chance(0.5)  # of a failed read nobody sees the content
        if is_late:
            await asyncio.sleep(latency_ms / 1000)
            self._advance()
        image = cell.image(spec.device)
        stopped = controller.frozen
        plain = read_wires(cell.machines[spec.id]) if stopped is None else None
        if not is_late:
            await asyncio.sleep(latency_ms / 1000)
        is_good = fault is None
        self._log.note(
            Served(
                spec.device,
                block.id,
                requested_ns,
                self._loop.now_ns,
                is_good,
                plain if is_good else None,
                stopped if is_good else None,
            )
        )
        match fault:
            case None:
                return BlockOk(encode(image, block))
            case Fault.LATE:
                return BlockFailed(Fault.TIMEOUT.value)
            case _:
                return BlockFailed(fault.value)

    def _draw_fault(self, block: ReadBlock) -> Fault | None:
        weather, draw = self._weather, self._draw
        if weather.link_down or not self._cell.endpoint_open:
            return Fault.LINK
        if draw.chance(weather.fault_share):
            return Fault.TIMEOUT
        if draw.chance(weather.late_share):
            return Fault.LATE
        if block.table is weather.table_down or draw.chance(weather.exception_share):
            return Fault.EXCEPTION
        return Fault.SHORT if draw.chance(weather.short_share) else None

    def _advance(self) -> Cell:
        """Let the cell's time catch up."""
        self._cell.advance(max(self._cell.now_ms, self._loop.now_ns // 1_000_000))
        return self._cell


def read_wires(machine: Machine) -> Plain:
    """What the wires of a machine carry now. Its speed counts from 3 %, above where any reading of 2 % could lie."""
    guards = machine.guards.values()
    return Plain(
        {guard.spec.id: guard.channels for guard in guards},
        {guard.spec.id: guard.bypassed for guard in guards},
        machine.contactor or not machine.zero_speed or machine.speed > 0.03,
        machine.mode.value,
    )


def encode(image: Image, block: ReadBlock) -> bytes:
    """The data bytes of the answer: bits packed from the least significant on, registers big-endian."""
    span = slice(block.start, block.start + block.count)
    match block.table:
        case Table.DISCRETE_INPUT:
            packed = sum(bit << place for place, bit in enumerate(image.discrete_inputs[span]))
            return packed.to_bytes((block.count + 7) // 8, "little")
        case Table.HOLDING_REGISTER:
            words = image.holding_registers[span]
        case Table.INPUT_REGISTER:
            words = image.input_registers[span]
        case Table.COIL:
            raise AssertionError("the plant has no coils")
    return b"".join(word.to_bytes(2, "big") for word in words)
