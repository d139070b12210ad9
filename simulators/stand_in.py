"""The cell in real time: a scenario's performance behind a real Modbus endpoint and, if wished, a control port.

Every `TICK_S` virtual time catches up with the machine's monotonic clock (times `speed`) and the controllers' images go
into the register bank, each in one piece. An act over the control port is done at once, between two ticks, and answered
with its time on CLOCK_MONOTONIC, which other processes of the machine share: latency from the real change of a door to
whatever an observer sees is one subtraction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Final

from simulators.acts import Act, read_act
from simulators.cell import Image
from simulators.control import Answer, ControlPort
from simulators.endpoint import FREE_PORT, Endpoint, Site, SpoiltEndpoint, endpoint
from simulators.plant import DEVICES, DI_COUNT, GUARDS, HR_COUNT, MACHINES
from simulators.register_bank import RegisterBank, Table
from simulators.scenario import Performance, Refused, Scenario
from simulators.served import ServedLog
from simulators.truth import Fact

TICK_S: Final = 0.005  # a twentieth of the demo's poll interval: no poll sees the loop, only the plant
QUESTIONS: Final = ("truth", "spans", "open_while_moving")


class StandIn:
    """The stand-in plant. `start`, then `run` until `stop`; `server.place` and `control.address` say where."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        site: Site = FREE_PORT,
        control: tuple[str, int] | None = None,
        seed: int | None = None,
        speed: float = 1.0,
        served_log: ServedLog | None = None,
        on_refused: Callable[[Refused], None] | None = None,
    ) -> None:
        self.performance = Performance(scenario, seed=seed)
        self.bank = RegisterBank([spec.unit for spec in DEVICES.values()], bits=DI_COUNT, words=HR_COUNT)
        self._wire: SpoiltEndpoint | None = None
        if control is not None or scenario.spoils:  # only then can something happen to the wire
            self._wire = SpoiltEndpoint(self.bank, site, served_log, seed=self.performance.seed)
        self.server: Endpoint = self._wire or endpoint(self.bank, site, served_log)
        self.control = ControlPort(self.answer, control) if control else None
        self._speed = speed
        self._on_refused = on_refused
        self._images: dict[str, Image] = {}
        self._started_s = 0.0

    async def start(self) -> None:
        """Listen on every port, at time 0 of the scenario. Raises OSError when a port cannot be had."""
        self._started_s = asyncio.get_running_loop().time()
        self._catch_up()
        await self.server.start()
        if self.control is not None:
            await self.control.start()

    async def run(self) -> None:
        """Let the plant live until cancelled."""
        while True:
            self._catch_up()
            await self._settle_endpoint()
            await asyncio.sleep(TICK_S)

    async def stop(self) -> None:
        """Close every port."""
        if self.control is not None:
            await self.control.stop()
        await self.server.stop()

    def mono_ms(self, cell_ms: int) -> float:
        """The CLOCK_MONOTONIC milliseconds of a moment of the cell."""
        return self._started_s * 1000 + cell_ms / self._speed

    def act(self, act: Act) -> str | None:
        """Do something to the plant, now; the reason when it cannot be done. Registers show it from here on."""
        self._catch_up()
        reason = self.performance.cell.act(act)
        self._publish()
        return reason

    def answer(self, request: dict[str, object]) -> Answer:
        """Serve the control port: {"do": …} acts, {"ask": "truth"} asks. Raises ValueError for a bad request."""
        if "ask" in request:
            return self._tell(request)
        refused = self.act(read_act(request))
        cell_ms = self.performance.cell.now_ms
        return {
            "done": refused is None,
            "reason": refused,
            "cell_ms": cell_ms,
            "mono_ms": self.mono_ms(cell_ms),
        }

    def _tell(self, request: dict[str, object]) -> Answer:
        """Answer a question; times of spans are [from, until or null] in CLOCK_MONOTONIC ms."""
        self._catch_up()
        cell = self.performance.cell
        machine, guard = str(request.get("machine", "")), str(request.get("guard", ""))
        match request["ask"]:
            case "truth":
                return {"truth": asdict(cell.truth()), "mono_ms": self.mono_ms(cell.now_ms)}
            case "open_while_moving" if (machine, guard) in GUARDS:
                return {"spans": self._mono_spans(cell.log.open_while_moving(machine, guard))}
            case "spans" if machine in {*MACHINES, *DEVICES} and isinstance(request.get("value"), bool):
                fact = Fact(machine, guard, str(request.get("name", "")))
                spans = cell.log.of(fact, value=request["value"] is True)
                return {"spans": self._mono_spans([(span.from_ms, span.until_ms) for span in spans])}
            case _:
                raise ValueError(
                    f"`ask` takes {', '.join(QUESTIONS)}, the latter two with a known machine and guard; "
                    "`spans` also with the `name` of a fact and its boolean `value`"
                )

    def _mono_spans(self, spans: list[tuple[int, int | None]]) -> list[list[float | None]]:
        return [
            [self.mono_ms(from_ms), None if until_ms is None else self.mono_ms(until_ms)]
            for from_ms, until_ms in spans
        ]

    def _catch_up(self) -> None:
        elapsed_s = asyncio.get_running_loop().time() - self._started_s
        for refused in self.performance.advance(int(elapsed_s * 1000 * self._speed)):
            if self._on_refused is not None:
                self._on_refused(refused)
        self._publish()

    def _publish(self) -> None:
        """Put the controllers' images and silences into the bank."""
        cell = self.performance.cell
        for device, spec in DEVICES.items():
            image = cell.image(device)
            if image != self._images.get(device):
                self._images[device] = image
                self.bank.set_bits(spec.unit, Table.DI, 0, image.discrete_inputs)
                self.bank.set_words(spec.unit, Table.HR, 0, image.holding_registers)
                self.bank.set_words(spec.unit, Table.IR, 0, image.input_registers)
            self.bank.set_silent(spec.unit, silent=not cell.controllers[device].answers)
        if self._wire is not None and self._wire.faults is not cell.wire:
            self._wire.faults = cell.wire

    async def _settle_endpoint(self) -> None:
        wanted = self.performance.cell.endpoint_open
        if wanted and not self.server.is_listening:
            await self.server.start()
        elif not wanted and self.server.is_listening:
            await self.server.stop()
