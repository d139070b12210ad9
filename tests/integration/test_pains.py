"""What users of other products complain of most, each as one short scenario that this product must pass.

A real agent process reads real Modbus from stand-ins; what it told stands in a tiny gateway. The numbers are ranks in a
survey of public issue threads of other products. Here: one dead device stops all others (1), never reconnects
until it is restarted (7), a stale value is shown as live (8), polls faster than the bus can bear (17), and zero is taken
for nothing, or nothing for zero (25). The others that concern the way of a value have their tests elsewhere:
`ELSEWHERE` says where, and a test here that they are still there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_agent.wire.event import AgentStarted, GuardChanged, GuardState, MachineChanged
from simulators.fault_proxy import FaultProxy
from simulators.faults import Fault, FaultKind
from simulators.modbus_server import RegisterBankServer
from simulators.register_bank import Refusal, RegisterBank, Table
from simulators.serial_line import Pace, RtuSlaves, SerialLine
from simulators.served import Served
from tests.integration.edge_rig import ROOT, AgentProcess, TinyGateway, wait_for
from tests.servers import Mosquitto

pytestmark = pytest.mark.integration

ELSEWHERE = {
    "6 events of one instant overwrite each other in InfluxDB": "tests/integration/test_historian.py::"
    "test_every_event_is_one_point_also_those_of_one_instant",
    "9 messages lost when the broker restarts": "tests/integration/test_delivery_gateway.py::"
    "test_a_broker_that_is_killed_and_wiped_again_and_again_loses_nothing",
    "16 the buffer is lost with a restart": "tests/integration/test_agent_delivery.py::"
    "test_each_violation_arrives_once_whatever_is_killed",
    "16 a long outage overflows it": "tests/integration/test_delivery_gateway.py::"
    "test_days_of_backlog_wait_in_the_agent_and_not_on_the_broker",
    "20 wrong times after a power cut without NTP": "tests/unit/gateway/test_ingest.py::"
    "test_events_of_a_boot_without_a_clock_get_their_time_from_a_later_one_of_the_batch",
    "20 a clock that jumps": "tests/unit/edge/test_guard.py::"
    "test_a_wall_clock_that_jumps_changes_labels_and_nothing_else",
}

HEAD = """\
site: plant
agent: gw-01
labels: {{zh: 一号, en: One}}
mqtt: {{url: "{mqtt}"}}
store: {{path: var/gw-01.db, size_max_mb: 64}}
devices:
"""

MACHINE = """\
  m-{name}:
    labels: {{zh: 机器, en: Machine}}
    signals: {{{signals}}}
    guards:
      door:
        labels: {{zh: 门, en: Door}}
        kind: interlocked_door
        channels: [{{at: {name}/di/0}}, {{at: {name}/di/1}}]
"""

STALE_MS = 1000
HEALED_S = 5.0
TOLD_S = 1.0
"""More for the way of a state from the first good reply to its reader, on a machine that does other things besides."""

POLL_MS = 200


def closed_bank(*units: int) -> RegisterBank:
    """Units whose doors are closed and whose machines stand."""
    bank = RegisterBank(units, bits=32, words=32)
    for unit in units:
        bank.set_bits(unit, Table.DI, 0, [True, True])
    return bank


@dataclass
class Told:
    """What the agent has told so far."""

    gateway: TinyGateway

    def state(self, name: str) -> str | None:
        """How the door of this device's machine is shown to everybody now."""
        shown = self.gateway.state(f"state/m-{name}/door")
        return None if shown is None else str(shown["state"])

    def quality(self, name: str) -> str | None:
        shown = self.gateway.state(f"state/m-{name}/door")
        return None if shown is None else str(shown["quality"])

    def states(self, name: str) -> list[GuardState]:
        """Every state of that door in the journal, in order."""
        changes = self.gateway.bodies(GuardChanged)
        return [change.state for change in changes if change.machine == f"m-{name}"]

    async def shows(self, name: str, state: str) -> None:
        await wait_for(lambda: self.state(name) == state, f"{name} {state}")


@asynccontextmanager
async def watched(
    folder: Path, broker: Mosquitto, devices: Mapping[str, str], signals: str = ""
) -> AsyncIterator[Told]:
    """An agent that watches one door at each device (name: the device's keys)."""
    config = folder / "agent.yaml"
    lines = [HEAD.format(mqtt=broker.url)]
    lines += [f"  {name}: {{{keys}}}\n" for name, keys in devices.items()]
    lines += ["machines:\n", *(MACHINE.format(name=name, signals=signals) for name in devices)]
    config.write_text("".join(lines))
    agent = AgentProcess(config)
    with TinyGateway(broker.port) as gateway:
        agent.start()
        try:
            yield Told(gateway)
            assert agent.is_running, agent.log.read_text()
        finally:
            agent.kill()


def tcp(address: tuple[str, int], unit: int = 1, **more: object) -> str:
    """The keys of a device behind this address."""
    keys = {"poll_ms": POLL_MS, "timeout_ms": 300, "stale_ms": STALE_MS, **more}
    told = ", ".join(f"{key}: {value}" for key, value in keys.items())
    return f'url: "modbus+tcp://{address[0]}:{address[1]}", unit: {unit}, {told}'


def serial(path: str, unit: int) -> str:
    """The keys of a slave on this serial line."""
    return (
        f'url: "modbus+rtu://{path}?baud=19200", unit: {unit}, poll_ms: {POLL_MS}, timeout_ms: 200, '
        f"stale_ms: {STALE_MS}"
    )


async def test_1_three_devices_of_ten_die_each_in_its_own_way_and_the_others_keep_their_polls(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """One unit behind the shared gateway falls silent, one refuses connections, one is half-open; each comes back."""
    reads: Counter[int] = Counter()
    bank = closed_bank(*range(1, 9))
    async with AsyncExitStack() as plant:
        shared = await plant.enter_async_context(
            RegisterBankServer(bank, log=lambda served: reads.update([served.unit]))
        )
        refusing = await plant.enter_async_context(RegisterBankServer(closed_bank(1)))
        behind = await plant.enter_async_context(RegisterBankServer(closed_bank(1)))
        half_open = await plant.enter_async_context(FaultProxy(behind.address))
        devices = {f"unit-{unit}": tcp(shared.address, unit) for unit in range(1, 9)}
        devices |= {"refusing": tcp(refusing.address), "half-open": tcp(half_open.address)}
        dead = ["unit-8", "refusing", "half-open"]
        told = await plant.enter_async_context(watched(tmp_path, mosquitto, devices))
        for name in devices:
            await told.shows(name, "closed")

        bank.set_silent(8, silent=True)
        await refusing.stop()
        half_open.faults = [Fault(FaultKind.SWALLOW)]
        for name in dead:
            await told.shows(name, "unknown")
        loop = asyncio.get_running_loop()
        before, started_s = reads.copy(), loop.time()
        await asyncio.sleep(5)
        polls_due = (loop.time() - started_s) * 1000 / POLL_MS
        for unit in range(1, 8):
            assert reads[unit] - before[unit] >= 0.95 * polls_due - 1, f"unit {unit}"
            assert told.states(f"unit-{unit}") == [GuardState.CLOSED]

        healed_s = loop.time()
        bank.set_silent(8, silent=False)
        await refusing.start()
        half_open.faults = []
        for name in dead:
            await told.shows(name, "closed")
        assert loop.time() - healed_s <= HEALED_S + TOLD_S


async def test_1_a_device_that_refuses_every_read_costs_the_others_behind_its_gateway_nothing(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    bank = closed_bank(1, 2)
    async with RegisterBankServer(bank) as server:
        devices = {"sound": tcp(server.address, 1), "storming": tcp(server.address, 2)}
        async with watched(tmp_path, mosquitto, devices) as told:
            await told.shows("storming", "closed")
            bank.refuse(Refusal(2, exception_code=4))
            await told.shows("storming", "unknown")
            bank.set_bits(1, Table.DI, 0, [False, False])
            await told.shows("sound", "open")
            bank.accept_all(2)
            await told.shows("storming", "closed")


async def test_1_a_dead_slave_on_a_serial_line_leaves_the_others_four_fifths_of_their_polls(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """RTU has no transaction ids, so the line keeps silent after each vain question; the dead one is asked seldom."""
    reads: Counter[int] = Counter()
    bank = closed_bank(1, 2, 3, 4)
    slaves = RtuSlaves(bank, pace=Pace(), log=lambda served: reads.update([served.unit]))
    async with SerialLine(slaves) as line:
        devices = {f"unit-{unit}": serial(line.place, unit) for unit in bank.units}
        async with watched(tmp_path, mosquitto, devices) as told:
            for name in devices:
                await told.shows(name, "closed")
            bank.set_silent(4, silent=True)
            await told.shows("unit-4", "unknown")
            loop = asyncio.get_running_loop()
            before, started_s = reads.copy(), loop.time()
            await asyncio.sleep(6)
            polls_due = (loop.time() - started_s) * 1000 / POLL_MS
            for unit in (1, 2, 3):
                assert reads[unit] - before[unit] >= 0.8 * polls_due - 1, f"unit {unit}"
                assert told.states(f"unit-{unit}") == [GuardState.CLOSED]
            bank.set_silent(4, silent=False)
            await told.shows("unit-4", "closed")


async def test_7_a_device_that_was_away_is_read_again_without_a_restart_however_often(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """It is not there when the agent starts; then it goes by closing, by resetting, and by leaving connections half-open."""
    server = RegisterBankServer(closed_bank(1))
    await server.start()
    async with FaultProxy(server.address) as proxy:
        await proxy.stop()
        async with watched(tmp_path, mosquitto, {"plc": tcp(proxy.address)}) as told:
            await told.shows("plc", "unknown")
            for kind in (None, FaultKind.RESET, FaultKind.SWALLOW, FaultKind.CLOSE):
                await proxy.start()
                proxy.faults = []
                await told.shows("plc", "closed")
                proxy.faults = [] if kind is None else [Fault(kind)]
                if kind is None:
                    await proxy.stop()
                await told.shows("plc", "unknown")
                if proxy.is_listening:
                    await proxy.stop()
            assert len(told.gateway.bodies(AgentStarted)) == 1
    await server.stop()


async def test_8_a_lost_link_is_shown_as_unknown_and_never_as_the_last_value(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """The door opens while nobody can see it: until the link is back nothing is claimed about it."""
    bank = closed_bank(1)
    async with (
        RegisterBankServer(bank) as server,
        FaultProxy(server.address) as proxy,
        watched(tmp_path, mosquitto, {"plc": tcp(proxy.address)}) as told,
    ):
        await told.shows("plc", "closed")
        proxy.faults = [Fault(FaultKind.SWALLOW)]
        bank.set_bits(1, Table.DI, 0, [False, False])
        await told.shows("plc", "unknown")
        assert told.quality("plc") in {"stale", "comm_bad"}
        proxy.faults = []
        await told.shows("plc", "open")
        whole = [GuardState.CLOSED, GuardState.UNKNOWN, GuardState.OPEN]
        await wait_for(lambda: told.states("plc") == whole, f"the journal's {whole}")


async def test_8_a_gateway_box_that_answers_from_memory_is_found_out_by_the_heartbeat(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    bank = closed_bank(1)
    async with RegisterBankServer(bank) as server, FaultProxy(server.address) as proxy:

        async def beat() -> None:
            beats = 0
            while True:
                beats += 1
                bank.set_word(1, Table.HR, 0, beats % 65_536)
                await asyncio.sleep(0.05)

        heart = asyncio.create_task(beat())
        devices = {"plc": tcp(proxy.address, heartbeat="{at: hr/0, stale_ms: 1000}")}
        async with watched(tmp_path, mosquitto, devices) as told:
            await told.shows("plc", "closed")
            proxy.faults = [Fault(FaultKind.CACHED)]
            bank.set_bits(1, Table.DI, 0, [False, False])
            await told.shows("plc", "unknown")
            assert told.quality("plc") == "frozen"
            proxy.faults = []
            await told.shows("plc", "open")
        heart.cancel()


async def test_17_polls_faster_than_a_serial_line_are_skipped_counted_and_shared_fairly(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """Six units are to be read every 200 ms; slow slaves make one read take 60 ms. Nothing queues, nobody starves.

    What the line itself cannot bear `check` refuses beforehand; how slow the slaves are nobody knows before.
    """
    reads: Counter[int] = Counter()
    bank = closed_bank(*range(1, 7))

    def note(served: Served) -> None:
        reads[served.unit] += 1

    async with SerialLine(RtuSlaves(bank, pace=Pace(baud=19_200, turnaround_ms=50), log=note)) as line:
        devices = {f"unit-{unit}": serial(line.place, unit) for unit in bank.units}
        async with watched(tmp_path, mosquitto, devices) as told:
            for name in devices:
                await told.shows(name, "closed")
            before = reads.copy()
            await asyncio.sleep(4)
            bank.set_bits(6, Table.DI, 0, [False, False])
            await told.shows("unit-6", "open")
            shares = [reads[unit] - before[unit] for unit in bank.units]
            assert min(shares) >= 0.8 * max(shares)
            await wait_for(lambda: (now := told.gateway.health) and now.overruns > 0, "overruns in health")


async def test_25_zero_is_a_value_busy_is_not_zero_and_65535_is_not_a_value(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    """A closed guard of a running machine; the slave is busy (exception 6), then a broken sensor reads all ones, then 0."""
    bank = closed_bank(1)
    bank.set_word(1, Table.IR, 0, 240)
    signals = "speed: {at: plc/ir/0, type: uint16, scale: 0.1, unit: rpm, rated: 24, sentinel: [65535]}"
    async with (
        RegisterBankServer(bank) as server,
        watched(tmp_path, mosquitto, {"plc": tcp(server.address)}, signals) as told,
    ):
        await told.shows("plc", "closed")
        bank.refuse(Refusal(1, exception_code=6))
        await told.shows("plc", "unknown")
        bank.accept_all(1)
        await told.shows("plc", "closed")
        assert GuardState.OPEN not in told.states("plc"), "busy is not 0"
        for value, moving in ((65_535, None), (240, True), (0, False)):
            bank.set_word(1, Table.IR, 0, value)
            await wait_for(lambda: moved(told)[-1:] == [moving], f"moving {moving}")  # noqa: B023 — awaited here
        bank.set_bits(1, Table.DI, 0, [False, False])
        await told.shows("plc", "open")


def moved(told: Told) -> list[bool | None]:
    """What was told of the machine's motion, in order."""
    return [change.moving for change in told.gateway.bodies(MachineChanged)]


@pytest.mark.parametrize("pain", ELSEWHERE)
def test_the_other_pains_still_have_their_tests(pain: str) -> None:
    path, _, name = ELSEWHERE[pain].partition("::")
    assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")
