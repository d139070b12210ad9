"""The simulated broker, uplink, intake and links keep to what the adapter suites pin of the real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from edge_agent.domain.plan import Table
from edge_agent.ports import (
    AckArrived,
    Answered,
    BlockFailed,
    BlockOk,
    LinkDown,
    LinkUp,
    Publication,
    UplinkReport,
)
from simulators.acts import Act, Verb
from simulators.cell import Cell
from simulators.draw import Draw
from tests.simulation.agent_node import SimUplink
from tests.simulation.fieldbus import BusWeather, ServedLog, SimFieldbus
from tests.simulation.gateway_node import INTAKE_RECEIVE_MAX, SimIntake
from tests.simulation.network import SimBroker
from tests.simulation.node import Life
from tests.simulation.plants import demo_plan
from tests.simulation.virtual_loop import run_virtual, virtual_loop

PREFIX = "guardwatch/v1/changyi/gw-01"
WILL = Publication(f"{PREFIX}/health", b"gone", retained=True)


def event(n: int) -> Publication:
    return Publication(f"{PREFIX}/events", f"event {n}".encode(), retained=False, place=n)


class Bench:
    """A broker, an uplink and an intake."""

    def __init__(self) -> None:
        loop = virtual_loop()
        self.broker = SimBroker(loop, Draw(1))
        self.agent, self.gateway = Life("agent"), Life("gateway")
        self.uplink = SimUplink(loop, self.broker, self.agent, "agent", f"{PREFIX}/ack", 20)
        self.intake = SimIntake(loop, self.broker, self.gateway)
        self.reports: list[UplinkReport] = []

    def open(self) -> None:
        self.uplink.open(WILL, self.reports.append)

    async def taken(self) -> list[bytes]:
        async with asyncio.timeout(60):
            messages = await self.intake.batch()
        self.intake.done(messages)
        return [message.payload for message in messages]

    def of(self, kind: type[UplinkReport]) -> list[UplinkReport]:
        return [report for report in self.reports if isinstance(report, kind)]


def on_bench(story: Callable[[Bench], Coroutine[object, object, None]]) -> None:
    async def main() -> None:
        await story(Bench())

    run_virtual(main)


def test_every_publish_is_answered_and_arrives_in_order() -> None:
    async def story(bench: Bench) -> None:
        bench.intake.open()
        bench.open()
        for n in range(10):
            bench.uplink.publish(event(n))
        await asyncio.sleep(1)
        assert await bench.taken() == [f"event {n}".encode() for n in range(10)]
        answers = [report for report in bench.reports if isinstance(report, Answered)]
        assert [answer.publication.place for answer in answers] == list(range(10))
        assert all(answer.is_heard and answer.refusal is None for answer in answers)

    on_bench(story)


def test_a_message_that_nobody_gets_is_taken_and_not_heard() -> None:
    async def story(bench: Bench) -> None:
        bench.open()
        bench.uplink.publish(event(1))
        await asyncio.sleep(1)
        (answer,) = bench.of(Answered)
        assert isinstance(answer, Answered)
        assert (answer.refusal, answer.is_heard) == (None, False)

    on_bench(story)


def test_hears_its_retained_and_live_acks_and_nothing_else() -> None:
    async def story(bench: Bench) -> None:
        bench.intake.open()
        bench.intake.publish_retained(f"{PREFIX}/ack", b"old")
        bench.intake.publish_retained("guardwatch/v1/changyi/gw-02/ack", b"another's")
        await asyncio.sleep(1)
        bench.open()
        await asyncio.sleep(1)
        bench.intake.publish_retained(f"{PREFIX}/ack", b"new")
        await asyncio.sleep(1)
        acks = [report.payload for report in bench.reports if isinstance(report, AckArrived)]
        assert acks == [b"old", b"new"]

    on_bench(story)


def test_a_publish_while_the_link_is_down_is_dropped_not_queued() -> None:
    async def story(bench: Bench) -> None:
        bench.broker.stop(is_wiped=False)
        bench.open()
        bench.uplink.publish(event(1))
        bench.broker.start()
        await asyncio.sleep(10)
        assert bench.of(LinkUp)
        assert not bench.of(Answered)

    on_bench(story)


def test_each_up_is_followed_by_one_down() -> None:
    async def story(bench: Bench) -> None:
        bench.open()
        for _ in range(3):
            await asyncio.sleep(10)
            bench.broker.stop(is_wiped=False)
            await asyncio.sleep(0.1)
            bench.broker.start()
        after_up = [
            later
            for report, later in zip(bench.reports, bench.reports[1:], strict=False)
            if isinstance(report, LinkUp)
        ]
        assert len(after_up) == 3
        assert all(isinstance(report, LinkDown) for report in after_up)

    on_bench(story)


@pytest.mark.parametrize(("is_clean", "left"), [(False, b"gone"), (True, None)])
def test_the_last_will_speaks_for_a_lost_agent_and_not_for_one_that_leaves(
    is_clean: bool, left: bytes | None
) -> None:
    async def story(bench: Bench) -> None:
        bench.open()
        await asyncio.sleep(1)
        if is_clean:
            await bench.uplink.close()
        else:
            bench.uplink.vanish()
        assert bench.broker.retained(WILL.topic) == left

    on_bench(story)


def test_a_retained_message_expires() -> None:
    async def story(bench: Bench) -> None:
        bench.open()
        bench.uplink.publish(Publication(f"{PREFIX}/state/m/g", b"closed", retained=True, expiry_s=60))
        await asyncio.sleep(59)
        assert bench.broker.retained(f"{PREFIX}/state/m/g") == b"closed"
        await asyncio.sleep(2)
        assert bench.broker.retained(f"{PREFIX}/state/m/g") is None

    on_bench(story)


def test_a_wiped_broker_remembers_nothing() -> None:
    async def story(bench: Bench) -> None:
        bench.open()
        bench.uplink.publish(Publication(f"{PREFIX}/health", b"beat", retained=True))
        await asyncio.sleep(1)
        bench.broker.stop(is_wiped=True)
        assert bench.broker.retained(f"{PREFIX}/health") is None

    on_bench(story)


def test_a_gateway_that_pubacks_nothing_gets_its_receive_maximum_and_no_more() -> None:
    async def story(bench: Bench) -> None:
        bench.intake.open()
        bench.open()
        for n in range(300):
            bench.uplink.publish(event(n))
            await asyncio.sleep(0.1)
        assert len(await bench.intake.batch()) == INTAKE_RECEIVE_MAX
        assert bench.broker.connections[0].waiting == 300 - INTAKE_RECEIVE_MAX

    on_bench(story)


def test_a_straggler_arrives_after_the_reconnect_and_a_silent_link_carries_nothing() -> None:
    async def story(bench: Bench) -> None:
        bench.broker.weather.straggle_share = 1.0
        bench.intake.open()
        bench.open()
        bench.uplink.publish(event(1))
        assert bench.uplink.connection is not None
        bench.uplink.connection.cut("reset by peer")
        await asyncio.sleep(5)
        assert await bench.taken() == [b"gone", b"event 1"]  # its will, too
        bench.uplink.connection.fall_silent(8.0)
        bench.uplink.publish(event(2))
        await asyncio.sleep(7)
        assert not bench.intake._inbox
        assert bench.of(LinkUp)
        await asyncio.sleep(3)
        assert isinstance(bench.of(LinkDown)[-1], LinkDown)

    on_bench(story)


def test_links_answer_as_the_plant_stands_and_fail_as_links_fail() -> None:
    async def main() -> None:
        cell, weather, log = Cell(1), BusWeather(), ServedLog()
        bus = SimFieldbus(virtual_loop(), cell, Draw(1), weather, log)
        plan = demo_plan()
        block = next(
            item for item in plan.blocks if item.table is Table.DISCRETE_INPUT and item.device == "plc-mixer"
        )
        outcome = await bus.read(1, block, 500)
        assert isinstance(outcome, BlockOk)
        assert len(outcome.data) == block.length_bytes
        assert outcome.data[0] & 0b1111 == 0b1111  # both doors closed
        cell.machines["mixer-18"].guards["door-1"].move(closed=False)
        cell.advance(cell.now_ms + 200)
        opened = await bus.read(1, block, 500)
        assert isinstance(opened, BlockOk)
        assert opened.data[0] & 0b1111 == 0b1100
        cell.act(Act(Verb.UNPLUG, device="plc-mixer"))
        before_ns = virtual_loop().now_ns
        assert await bus.read(1, block, 500) == BlockFailed("timeout")
        assert virtual_loop().now_ns - before_ns == pytest.approx(500_000_000, abs=1000)
        weather.link_down = True
        assert await bus.read(2, block, 500) == BlockFailed("link")
        assert [read.is_good for read in log.of("plc-mixer")] == [True, True, False]
        assert [read.is_good for read in log.of("plc-belt")] == [False]

    run_virtual(main)
