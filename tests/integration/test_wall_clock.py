"""Real processes whose wall clock is set while they run, each its own; their monotonic clocks stay real."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge_agent.wire.event import (
    AgentStarted,
    Event,
    Observation,
    ViolationCleared,
    ViolationRaised,
)
from gateway.domain.journal import ClockStepped
from tests.integration.edge_rig import AgentProcess, Edge, edge, wait_for
from tests.integration.gateway_process import GatewayProcess
from tests.servers import Mosquitto

pytestmark = pytest.mark.integration

OPEN_S = 2.0
TOLERANCE_MS = 1500
"""Two polls, the delays of the rule and what a loaded machine adds; each step is a hundred times that at least."""

NOW = datetime.now(UTC)
SUMMER = datetime(2028, 3, 26, 0, 59, 59, tzinfo=UTC)
"""A second later Europe's clocks go from 2 to 3."""

STEPS = {
    "an hour back": -3600,
    "ten days ahead": 864_000,
    "to 1970": 60 - int(NOW.timestamp()),
    "past the end of 32 bits": 2**31 + 1 - int(NOW.timestamp()),
    "to the last second before summer time": int(SUMMER.timestamp() - NOW.timestamp()),
}


class WallClock:
    """A wall clock that the test sets, for a program that is run by it."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.set(0)

    def set(self, ahead_s: int) -> None:
        """So many seconds ahead of the real one."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(ahead_s))
        fresh.replace(self._file)

    def command(self, module: str, config: Path) -> list[str]:
        """Run a program by it."""
        return [sys.executable, "-m", "tests.chaos.steered", str(self._file), module, "run", str(config)]


@dataclass
class Plant:
    """An agent and a gateway, each with a wall clock of its own."""

    edge: Edge
    gateway: GatewayProcess
    of_agent: WallClock
    of_gateway: WallClock

    def told(self, kind: type) -> list[Event]:
        return [event for event in self.edge.gateway.journal if isinstance(event.body, kind)]

    def row(self) -> Mapping[str, object]:
        """The one violation of the door in the log."""
        items = self.gateway.get("/api/v1/violations?rule=guard_open_motion")["items"]
        assert isinstance(items, list)
        (row,) = items
        assert isinstance(row, dict)
        return row

    def steps(self) -> list[int]:
        """What the agent told of steps, in ms."""
        seen = [event.body for event in self.told(Observation)]
        return [
            int(str(body.detail["step_ms"]))
            for body in seen
            if isinstance(body, Observation) and body.what == "clock_step"
        ]


@asynccontextmanager
async def plant(folder: Path, broker: Mosquitto) -> AsyncIterator[Plant]:
    """The mixer runs behind a closed door; everything has been read and told."""
    (folder / "a").mkdir()
    of_agent, of_gateway = WallClock(folder / "a"), WallClock(folder)
    gateway = GatewayProcess(folder / "gw", broker.port, more="time_zone: Europe/Berlin\n")
    gateway.start_as(of_gateway.command("gateway", gateway.config))
    try:
        async with edge(folder, broker) as around:
            around.set_running(True)
            around.agent.start_as(of_agent.command("edge_agent", around.agent.config))
            await wait_for(lambda: around.gateway.bodies(AgentStarted), "agent_started")
            yield Plant(around, gateway, of_agent, of_gateway)
    finally:
        gateway.stop()


@pytest.mark.parametrize("step", STEPS)
async def test_a_step_while_a_violation_is_open(tmp_path: Path, mosquitto: Mosquitto, step: str) -> None:
    """One raise, one clear, the true duration, one word on the step from each; and the record never runs back."""
    async with plant(tmp_path, mosquitto) as here:
        here.edge.set_door(closed=False)
        await wait_for(lambda: here.told(ViolationRaised), "the raise")
        for clock in (here.of_agent, here.of_gateway):
            clock.set(STEPS[step])
        await wait_for(here.steps, "the agent's word on the step")
        await wait_for(lambda: here.gateway.bodies(ClockStepped), "the gateway's entry")
        await asyncio.sleep(OPEN_S)
        here.edge.set_door(closed=True)
        await wait_for(lambda: here.told(ViolationCleared), "the clear")
        await asyncio.to_thread(_wait, lambda: here.row()["state"] == "cleared")
        (raised,), (cleared,) = here.told(ViolationRaised), here.told(ViolationCleared)
        assert isinstance(cleared.body, ViolationCleared)
        true_ms = cleared.mono_ms - raised.mono_ms
        assert abs(cleared.body.duration_ms - true_ms) < TOLERANCE_MS
        assert cleared.body.duration_max_ms == cleared.body.duration_ms
        told_ms = STEPS[step] * 1000
        assert [round(step_ms / 1000) for step_ms in here.steps()] == [told_ms // 1000]
        (stepped,) = here.gateway.bodies(ClockStepped)
        assert abs(stepped.step_ms - told_ms) < TOLERANCE_MS
        assert abs((stepped.leap_ms or 0) - max(0, told_ms)) < TOLERANCE_MS
        labels = [event.at for event in here.edge.gateway.journal]
        assert labels == sorted(labels)
        row = here.row()
        assert row["duration_ms"] == cleared.body.duration_ms
        items = here.gateway.get("/api/v1/violations")["items"]
        assert isinstance(items, list)
        assert [item["origin"] for item in items if isinstance(item, dict)] == ["agent"], (
            "no finding of the gateway's"
        )
        assert await here.edge.agent.stop() == 0


async def test_in_another_boot_the_monotonic_clock_of_this_one_measures_nothing(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """The machine comes back with a monotonic clock that is a day ahead (a time namespace of its own)."""
    async with edge(tmp_path, mosquitto) as here:
        here.set_running(True)
        await here.started()
        here.set_door(closed=False)
        await wait_for(lambda: here.gateway.bodies(ViolationRaised), "the raise")
        here.agent.kill()
        again = AgentProcess(here.agent.config)
        command = [
            "unshare",
            "--time",
            "--monotonic",
            "86400",
            "--boottime",
            "86400",
            "--fork",
            "--kill-child",
        ]
        again.start_as([*command, sys.executable, "-m", "edge_agent", "run", str(again.config)])
        try:
            await wait_for(lambda: len(here.gateway.bodies(AgentStarted)) == 2, "the next run")
            await asyncio.sleep(1)
            here.set_door(closed=True)
            await wait_for(lambda: here.gateway.bodies(ViolationCleared), "the clear")
        finally:
            again.kill()
        (raised,) = here.gateway.bodies(ViolationRaised)
        (cleared,) = here.gateway.bodies(ViolationCleared)
        assert cleared.occurrence == raised.occurrence
        assert cleared.duration_min_ms <= cleared.duration_ms <= cleared.duration_max_ms < 60_000
        first, *_, last = here.gateway.journal
        assert first.boot != last.boot
        assert last.mono_ms - first.mono_ms > 86_400_000


def _wait(look: object) -> None:
    asyncio.run(wait_for(look, "the gateway's row"))  # type: ignore[arg-type]  # a plain callable
