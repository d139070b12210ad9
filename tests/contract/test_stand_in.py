"""The stand-in plant in real time: its registers over Modbus, its control port, its log, its absences."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusIOException

from simulators.control import LINE_BYTES_MAX
from simulators.endpoint import Site, Transport
from simulators.fleet import Fleet, FleetPlan
from simulators.register_bank import Table
from simulators.rtu import seal
from simulators.scenario import Refused, Scenario, load_scenario, shipped
from simulators.served import Served, json_lines_log
from simulators.stand_in import TICK_S, StandIn
from tests.serial_master import Master

STILL = Scenario("still", {"zh": "静", "en": "Still"}, seed=1, people=False, length_ms=None, steps=())
DOOR = {"machine": "mixer-18", "guard": "door-1"}


class Plant:
    """A living stand-in with a Modbus client and a control connection."""

    def __init__(self, stand_in: StandIn, client: AsyncModbusTcpClient) -> None:
        self.stand_in = stand_in
        self.client = client

    async def ask(self, **request: object) -> dict[str, object]:
        """One request over the control port."""
        return await self.ask_line(json.dumps(request).encode())

    async def ask_line(self, line: bytes) -> dict[str, object]:
        assert self.stand_in.control is not None
        reader, writer = await asyncio.open_connection(*self.stand_in.control.address)
        writer.write(line + b"\n")
        answer = await reader.readline()
        writer.close()
        found = json.loads(answer)
        assert isinstance(found, dict)
        return found

    async def bits(self, unit: int = 1) -> list[bool]:
        """The first 16 discrete inputs."""
        return list((await self.client.read_discrete_inputs(0, count=16, device_id=unit)).bits[:16])


@pytest_asyncio.fixture
async def served() -> list[Served]:
    return []


@pytest_asyncio.fixture
async def plant(served: list[Served]) -> AsyncIterator[Plant]:
    stand_in = StandIn(STILL, control=("127.0.0.1", 0), served_log=served.append)
    await stand_in.start()
    life = asyncio.create_task(stand_in.run())
    client = await connected(stand_in.server.place)
    yield Plant(stand_in, client)
    client.close()
    life.cancel()
    await stand_in.stop()


async def connected(place: str) -> AsyncModbusTcpClient:
    host, port = place.split(":")
    client = AsyncModbusTcpClient(host, port=int(port), timeout=0.3, retries=0, reconnect_delay=0)
    assert await client.connect()
    return client


async def until_open(plant: Plant) -> float:
    """Poll until both channels of the service door read open; the time of that answer, CLOCK_MONOTONIC ms."""
    while True:
        if (await plant.bits())[:2] == [False, False]:
            return asyncio.get_running_loop().time() * 1000
        await asyncio.sleep(0.002)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so; the test's own time limit ends a wait in vain."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.001)


async def test_an_act_over_the_control_port_shows_in_the_registers_after_the_time_it_answers(
    plant: Plant,
) -> None:
    before_ms = asyncio.get_running_loop().time() * 1000
    answer = await plant.ask(do="open", **DOOR)
    seen_ms = await until_open(plant)
    assert answer["done"] is True
    changed_ms = answer["mono_ms"]
    assert isinstance(changed_ms, float)
    assert before_ms - 1 <= changed_ms <= seen_ms


async def test_truth_can_be_asked_from_outside(plant: Plant) -> None:
    await plant.ask(do="start", machine="mixer-18")
    await plant.ask(do="defeat", **DOOR)
    await plant.ask(do="open", **DOOR)
    await until_open(plant)
    truth = (await plant.ask(ask="truth"))["truth"]
    assert isinstance(truth, dict)
    assert truth["machines"]["mixer-18"]["moving"] is True
    assert truth["machines"]["mixer-18"]["guards"]["door-1"]["closed"] is False
    spans = (await plant.ask(ask="open_while_moving", **DOOR))["spans"]
    assert isinstance(spans, list)
    assert [until for _, until in spans] == [None]
    opened = await plant.ask(ask="spans", name="closed", value=False, **DOOR)
    assert isinstance(opened["spans"], list)
    assert len(opened["spans"]) == 1


async def test_what_cannot_be_done_says_why(plant: Plant) -> None:
    answer = await plant.ask(do="open", machine="mixer-18", guard="door-2")
    assert (answer["ok"], answer["done"], answer["reason"]) == (True, False, "door-2 is locked")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"hello", "Expecting value"),
        (b"[1]", "the line is no JSON object"),
        (b'{"do": "fly"}', "`do` cannot be `fly`"),
        (b'{"ask": "weather"}', "`ask` takes truth, spans, open_while_moving"),
        (b'{"ask": "spans", "machine": "mixer-18", "value": 3}', "`ask` takes"),
        (b"[" * 60_000, "recursion"),
    ],
)
async def test_bad_requests_are_answered_and_harm_nothing(plant: Plant, line: bytes, error: str) -> None:
    answer = await plant.ask_line(line)
    assert answer["ok"] is False
    assert error in str(answer["error"])
    assert (await plant.ask(ask="truth"))["ok"] is True


async def test_a_line_beyond_the_limit_ends_only_its_connection(plant: Plant) -> None:
    assert plant.stand_in.control is not None
    reader, writer = await asyncio.open_connection(*plant.stand_in.control.address)
    writer.write(b"x" * (LINE_BYTES_MAX + 10))
    assert await reader.read() == b""
    writer.close()
    assert (await plant.ask(ask="truth"))["ok"] is True


async def test_an_unplugged_unit_is_silent_and_comes_back(plant: Plant) -> None:
    await plant.ask(do="unplug", device="plc-mixer")
    with pytest.raises(ModbusIOException):
        await plant.bits(1)
    assert await plant.bits(2)
    await plant.ask(do="plug", device="plc-mixer")
    assert await plant.bits(1)


async def test_a_refusing_endpoint_closes_and_listens_again_on_its_port(plant: Plant) -> None:
    place = plant.stand_in.server.place
    await plant.ask(do="refuse")
    await until(lambda: not plant.stand_in.server.is_listening)
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection(*place.split(":"))
    await plant.ask(do="listen")
    await until(lambda: plant.stand_in.server.is_listening)
    again = await connected(place)
    assert not (await again.read_discrete_inputs(0, count=1, device_id=1)).isError()
    again.close()


async def test_the_wire_is_spoilt_and_healed_over_the_control_port(plant: Plant) -> None:
    assert await plant.ask(do="spoil", fault="exception", percent=100, delay_ms=0)
    await until(lambda: bool(plant.stand_in.performance.cell.wire))
    await asyncio.sleep(2 * TICK_S)
    assert (await plant.client.read_discrete_inputs(0, count=1, device_id=1)).isError()
    await plant.ask(do="heal")
    await asyncio.sleep(2 * TICK_S)
    assert await plant.bits(1)


async def test_the_served_log_tells_what_clients_were_told(
    plant: Plant, served: list[Served], tmp_path: Path
) -> None:
    got = [int(bit) for bit in await plant.bits(1)]
    with (tmp_path / "served.jsonl").open("w") as file:
        json_lines_log(file)(served[-1])
    line = json.loads((tmp_path / "served.jsonl").read_text())
    assert line == {
        "mono_ms": served[-1].mono_ms,
        "unit": 1,
        "fc": 2,
        "address": 0,
        "count": 16,
        "values": got,
        "exception": None,
    }


async def test_speed_lets_a_story_pass_in_a_moment() -> None:
    """At a thousandfold the demo's first door is open and closed again within a tenth of a second."""
    scenario = load_scenario(shipped()["door-open-while-running"])
    assert isinstance(scenario, Scenario)
    stand_in = StandIn(scenario, speed=1000)
    await stand_in.start()
    life = asyncio.create_task(stand_in.run())
    await until(lambda: stand_in.performance.cell.now_ms >= 20_000)
    assert stand_in.performance.cell.log.open_while_moving("mixer-18", "door-1")[0] == (10_000, 18_000)
    life.cancel()
    await stand_in.stop()


async def test_steps_that_cannot_be_done_are_told(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "labels: {zh: 甲, en: A}\nsteps: [{at_s: 0, do: open, machine: mixer-18, guard: door-2}]\n"
    )
    scenario = load_scenario(path)
    assert isinstance(scenario, Scenario)
    told: list[Refused] = []
    stand_in = StandIn(scenario, on_refused=told.append)
    await stand_in.start()
    await stand_in.stop()
    assert [refused.reason for refused in told] == ["door-2 is locked"]


async def test_a_fleet_serves_every_unit_and_changes_as_drawn() -> None:
    plan = FleetPlan(servers=3, units=5, guards=8, changes_per_s=1000, seed=3)
    fleet, twin = Fleet(plan), Fleet(plan)
    assert [fleet.change_one() for _ in range(50)] == [twin.change_one() for _ in range(50)]
    places = await fleet.start()
    life = asyncio.create_task(fleet.run())
    await until(lambda: fleet.changes >= 100)
    for place, bank in zip(places, fleet.banks, strict=True):
        client = await connected(place)
        reply = await client.read_discrete_inputs(0, count=16, device_id=5)
        assert len(reply.bits) == 16
        assert reply.bits[::2] == reply.bits[1::2], "both channels of a door change at once"
        assert len(bank.word_span(5, Table.DI, 0, 1)) == 1
        client.close()
    life.cancel()
    await fleet.stop()


RTU_REQUEST = seal(bytes.fromhex("01 02 0000 0004"))
RTU_DOORS_CLOSED = seal(bytes.fromhex("01 02 01 0F"))


async def rtu_reply(place: str) -> bytes:
    """What the plant says of its doors, over a serial port or TCP."""
    if place.startswith("/"):
        master = Master(place)
        master.send(RTU_REQUEST)
        reply = await master.hear(len(RTU_DOORS_CLOSED))
        master.close()
        return reply
    host, port = place.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(RTU_REQUEST)
    reply = await reader.readexactly(len(RTU_DOORS_CLOSED))
    writer.close()
    return reply


@pytest.mark.parametrize("control", [None, ("127.0.0.1", 0)], ids=["straight", "through the fault proxy"])
@pytest.mark.parametrize("transport", [Transport.RTU, Transport.RTU_OVER_TCP])
async def test_the_same_plant_speaks_rtu(transport: Transport, control: tuple[str, int] | None) -> None:
    stand_in = StandIn(STILL, site=Site(transport), control=control)
    await stand_in.start()
    assert await rtu_reply(stand_in.server.place) == RTU_DOORS_CLOSED
    await stand_in.stop()


async def test_a_fleet_of_serial_ports_has_one_for_each_endpoint() -> None:
    fleet = Fleet(FleetPlan(servers=2, units=2, guards=2, changes_per_s=0, site=Site(Transport.RTU)))
    places = await fleet.start()
    assert len(set(places)) == 2
    assert [await rtu_reply(place) for place in places] == [RTU_DOORS_CLOSED] * 2
    await fleet.stop()
