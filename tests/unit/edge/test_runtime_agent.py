"""The agent's own loops on a store in memory: what it shows while storing lags behind reading."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edge_agent.domain.delivery import DeliveryMode
from edge_agent.domain.findings import Draft
from edge_agent.domain.plan import ReadBlock
from edge_agent.ports import (
    AckArrived,
    Answered,
    BlockOk,
    BlockOutcome,
    LinkDown,
    LinkUp,
    Publication,
    UplinkReport,
)
from edge_agent.runtime.agent import Agent, Stored, World
from edge_agent.runtime.schedule import lines
from edge_agent.wire.event import Json, Observation
from edge_agent.wire.status import Ack, encode_status
from tests.simulation.virtual_loop import run_virtual
from tests.unit.edge.rig import DOOR, Plant
from tests.unit.edge.test_runtime_pump import Bench, LoopClock


@dataclass
class PlantLink:
    """Answers within a millisecond what the plant says."""

    plant: Plant
    requests: Counter[int] = field(default_factory=Counter)

    async def read(self, unit: int, block: ReadBlock, timeout_ms: int) -> BlockOutcome:
        await asyncio.sleep(0.001)
        return BlockOk(self.plant.block(block))

    async def close(self) -> None:
        pass


@dataclass
class PromptUplink:
    """A broker that answers at once; keeps what is published."""

    published: list[Publication] = field(default_factory=list)
    report: Callable[[UplinkReport], None] = lambda _report: None

    def open(self, will: Publication, report: Callable[[UplinkReport], None]) -> None:
        self.report = report
        report(LinkUp(1000))

    def publish(self, publication: Publication) -> None:
        self.published.append(publication)
        self.report(Answered(publication, None, is_heard=True))

    async def close(self) -> None:
        pass


def agent_on(bench: Bench, uplink: PromptUplink, mode: DeliveryMode = DeliveryMode.BROKER) -> Agent:
    links = {name: PlantLink(bench.plant) for name in lines(bench.cell)}
    world = World(bench.clock, bench.outbox, uplink, links, rss_mb=lambda: None, notify=lambda _state: None)
    stored = Stored(first=1, tail=bench.store.tail, acked=0, gone=(), recall=dict)
    return Agent(bench.cell, world, stored, mode=mode, version="1", public_key="")


async def shown_while_the_disk_hangs() -> tuple[list[str], list[str]]:
    """How the door is shown while its opening waits for the disk, and afterwards."""
    bench, uplink = Bench(clock=LoopClock()), PromptUplink()
    stop = asyncio.Event()
    running = asyncio.create_task(agent_on(bench, uplink).run(stop))
    await asyncio.sleep(10)
    bench.outbox.hold = asyncio.Event()
    bench.plant.closed = 0
    await asyncio.sleep(2.5)
    uplink.published.clear()
    await asyncio.sleep(30)
    uplink.report(LinkDown("cut"))
    uplink.report(LinkUp(1000))
    await asyncio.sleep(30)
    hanging = states(uplink.published)
    bench.outbox.hold.set()
    await asyncio.sleep(1)
    afterwards = states(uplink.published)
    stop.set()
    await running
    return hanging, afterwards


def states(published: list[Publication]) -> list[str]:
    return [json.loads(item.payload)["state"] for item in published if item.topic.endswith(f"/{DOOR}")]


def test_a_guards_state_is_not_published_anew_while_its_change_waits_for_the_disk() -> None:
    """Nobody may read "closed, as of now" of a door that the agent has seen open: what was published expires."""
    hanging, afterwards = run_virtual(shown_while_the_disk_hangs)
    assert hanging == []
    assert afterwards == ["open"]


async def beats_while_judging_lags() -> list[tuple[int, int, int]]:
    """Counters and moment of the health before the disk hangs, of the one that a connection begins with meanwhile, of one after."""
    bench, uplink = Bench(clock=LoopClock()), PromptUplink()
    stop = asyncio.Event()
    running = asyncio.create_task(agent_on(bench, uplink).run(stop))
    await asyncio.sleep(10)
    bench.outbox.hold = asyncio.Event()
    bench.plant.closed = 0
    await asyncio.sleep(30)
    before = counters(uplink.published)[-1]
    uplink.report(LinkDown("cut"))
    uplink.report(LinkUp(1000))
    await asyncio.sleep(5)
    greeted = counters(uplink.published)[-1]
    assert sum(item.topic.endswith("/model") for item in uplink.published) == 2, "it has greeted"
    bench.outbox.hold.set()
    await asyncio.sleep(5)
    after = counters(uplink.published)[-1]
    stop.set()
    await running
    return [before, greeted, after]


def healths(published: list[Publication]) -> list[dict[str, Any]]:
    told = [json.loads(item.payload) for item in published if item.topic.endswith("/health")]
    return [health for health in told if health["online"]]


def counters(published: list[Publication]) -> list[tuple[int, int, int]]:
    return [(health["polls"], health["beats"], health["mono_ms"]) for health in healths(published)]


def test_the_health_that_greets_a_broker_vouches_for_nothing_while_judging_lags() -> None:
    """A link that comes and goes would else keep on the board, as of now, what the agent knows to be over."""
    before, greeted, after = run_virtual(beats_while_judging_lags)
    assert greeted == before
    assert after > before


def told_full(bench: Bench, uplink: PromptUplink) -> tuple[int, int, int]:
    """The outbox as the newest health tells it, the last event that it names, and the last state report in the store."""
    texts = bench.store.read(range(1, bench.store.tail + 1)).payloads.values()
    events = [json.loads(text) for text in texts]
    reports = [event["seq"] for event in events if event["kind"] == "state_report"]
    newest = healths(uplink.published)[-1]
    return newest["outbox_pct"], newest["seq"], reports[-1]


async def beats_around_a_loss() -> list[tuple[int, int, int]]:
    """`told_full` before findings are lost, while there is no room, with room but before a report, and after that."""
    bench, uplink = Bench(clock=LoopClock()), PromptUplink()
    stop = asyncio.Event()
    running = asyncio.create_task(agent_on(bench, uplink, DeliveryMode.GATEWAY).run(stop))
    await asyncio.sleep(10)
    told = [told_full(bench, uplink)]
    limit_bytes, bench.store._limit_bytes = bench.store._limit_bytes, 1
    bench.plant.closed = 0
    await asyncio.sleep(10)
    told.append(told_full(bench, uplink))
    bench.store._limit_bytes = limit_bytes
    await asyncio.sleep(10)
    told.append(told_full(bench, uplink))
    (last,) = bench.store.read([bench.store.tail]).payloads.values()
    epoch, seq, digest = (json.loads(last)[name] for name in ("epoch", "seq", "hash"))
    uplink.report(AckArrived(encode_status(Ack(epoch, epoch, seq, digest, reset=False))))
    await asyncio.sleep(10)
    told.append(told_full(bench, uplink))
    stop.set()
    await running
    return told


def test_an_agent_that_lost_findings_vouches_for_nothing_before_a_report_makes_them_good() -> None:
    """Seed 1129948: its beats kept guards on the board as closed that it knew to be unknown. The report waits here until
    the one before it is acked; a full outbox is what a gateway takes for "it cannot say what it sees".
    """
    before, lost, room, healed = run_virtual(beats_around_a_loss)
    assert before[0] < 100
    assert lost[0] == room[0] == 100
    assert lost[2] == room[2] == before[2], "no report yet"
    assert healed[0] < 100
    assert healed[1] >= healed[2] > room[2], "and what it names has to be journaled before it is believed"


async def outbox_told_by_the_run_after_a_loss() -> tuple[set[int], int]:
    """What its beats tell before there is room for a report (97 % wait for an ack), and after that."""
    bench, uplink = Bench(clock=LoopClock()), PromptUplink()
    for number in range(40):
        bench.store.commit(
            [Draft(bench.clock.mono(), Observation("fill", {"n": number}))], {}, bench.clock.pair()
        )
    stop = asyncio.Event()
    running = asyncio.create_task(agent_on(bench, uplink, DeliveryMode.GATEWAY).run(stop))
    await asyncio.sleep(10)
    bench.store._limit_bytes = 1
    bench.plant.closed = 0
    await asyncio.sleep(5)
    stop.set()
    await running
    uplink.published.clear()
    stop.clear()
    bench.outbox.hold = asyncio.Event()
    running = asyncio.create_task(agent_on(bench, uplink, DeliveryMode.GATEWAY).run(stop))
    bench.store._limit_bytes = bench.store._unacked_bytes * 100 // 96
    await asyncio.sleep(1)
    assert healths(uplink.published), "it has greeted before its first commit"
    bench.outbox.hold.set()
    await asyncio.sleep(20)
    waiting = {health["outbox_pct"] for health in healths(uplink.published)}
    bench.store._limit_bytes *= 2
    await asyncio.sleep(5)
    healed = healths(uplink.published)[-1]["outbox_pct"]
    stop.set()
    await running
    return waiting, healed


def test_the_run_after_a_loss_vouches_for_nothing_either_before_its_report() -> None:
    waiting, healed = run_virtual(outbox_told_by_the_run_after_a_loss)
    assert waiting == {100}
    assert healed < 100


async def beats_after_the_store_hung() -> tuple[int, int]:
    """How many beats went out before the store hung, and by when its marks went on but a commit still hung."""
    bench, uplink = Bench(clock=LoopClock()), PromptUplink()
    stop = asyncio.Event()
    running = asyncio.create_task(agent_on(bench, uplink).run(stop))
    await asyncio.sleep(10)
    bench.outbox.hold, bench.outbox.hold_marks = asyncio.Event(), asyncio.Event()
    bench.plant.closed = 0
    before = len(counters(uplink.published))
    await asyncio.sleep(5)
    bench.outbox.hold_marks.set()
    await asyncio.sleep(5)
    after = len(counters(uplink.published))
    bench.outbox.hold.set()
    stop.set()
    await running
    return before, after


def test_a_beat_that_was_begun_before_judging_lagged_is_not_given_once_it_does() -> None:
    """The beat asks the store first; while it waited for that, a change found no way to the disk."""
    before, after = run_virtual(beats_after_the_store_hung)
    assert after == before


@dataclass
class StampingUplink(PromptUplink):
    """Keeps when each beat says that it was made, and when it went out (milliseconds of `mono`)."""

    mono_ns: Callable[[], int] = lambda: 0
    stamps: list[tuple[int, int]] = field(default_factory=list)

    def publish(self, publication: Publication) -> None:
        if publication.topic.endswith("/health") and b'"online":true' in publication.payload:
            made_ms = json.loads(publication.payload)["mono_ms"]
            self.stamps.append((made_ms, self.mono_ns() // 1_000_000))
        super().publish(publication)


async def moments_of_beats() -> list[tuple[int, int]]:
    """When each beat of ten seconds says that it was made, and when it went out."""
    bench = Bench(clock=LoopClock())
    uplink = StampingUplink(mono_ns=bench.clock.mono)
    stop = asyncio.Event()
    running = asyncio.create_task(agent_on(bench, uplink).run(stop))
    await asyncio.sleep(10)
    stop.set()
    await running
    return uplink.stamps


def test_a_beat_says_when_it_was_made() -> None:
    stamps = run_virtual(moments_of_beats)
    assert len(stamps) >= 5
    assert all(gone_ms - 50 <= made_ms <= gone_ms for made_ms, gone_ms in stamps)
    assert stamps[-1][0] - stamps[0][0] >= 7000


async def stopped_as_the_disk_fills_up() -> tuple[int, bool]:
    """How many findings are said to wait when the agent has ended, and whether its store took any of them."""
    bench, uplink = Bench(clock=LoopClock()), PromptUplink()
    stop = asyncio.Event()
    running = asyncio.create_task(agent_on(bench, uplink).run(stop))
    await asyncio.sleep(10)
    tail = bench.store.tail
    bench.outbox.hold = asyncio.Event()
    bench.plant.closed = 0
    await asyncio.sleep(1)
    bench.outbox.is_full = True
    stop.set()
    await asyncio.sleep(0.1)
    bench.outbox.hold.set()
    await running
    stored = [
        json.loads(text)["kind"]
        for text in bench.store.read(range(tail + 1, bench.store.tail + 1)).payloads.values()
    ]
    return sum(waiting.dropped for waiting in bench.outbox.waiting[-1:]), "guard_changed" in stored


def test_findings_that_a_full_disk_refuses_while_the_agent_stops_are_said() -> None:
    dropped, is_stored = run_virtual(stopped_as_the_disk_fills_up)
    assert not is_stored
    assert dropped > 0


async def met_by_an_ack_with_an_endless_hash() -> list[Json]:
    """What is told of the forks, the agent having been sent another such ack after the first."""
    bench, uplink = Bench(clock=LoopClock()), PromptUplink()
    stop = asyncio.Event()
    running = asyncio.create_task(agent_on(bench, uplink, DeliveryMode.GATEWAY).run(stop))
    for _ in range(2):
        await asyncio.sleep(10)
        epoch = bench.store.epoch
        uplink.report(AckArrived(encode_status(Ack(epoch, epoch, 1, "f" * 60_000, reset=False))))
    await asyncio.sleep(10)
    stop.set()
    await running
    payloads = bench.store.read(list(range(1, bench.store.tail + 1))).payloads.values()
    events = [json.loads(payload) for payload in payloads]
    return [event["acked_hash"] for event in events if event.get("what") == "epoch_fork"]


def test_an_ack_says_no_more_in_the_journal_than_an_event_can_hold() -> None:
    """Whoever may write on the ack topic could else end the agent with one message."""
    assert run_virtual(met_by_an_ack_with_an_endless_hash) == ["f" * 64, "f" * 64]
