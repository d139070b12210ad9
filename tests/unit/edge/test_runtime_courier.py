"""The courier between a real store and a broker on paper: order, window, damage, forks, connections that change."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from edge_agent.adapters.minting import Run
from edge_agent.adapters.signing import SigningKey
from edge_agent.adapters.store_sqlite import EventStore
from edge_agent.domain.delivery import NOT_PLACED, DeliveryMode, Placed, ReportPolicy, Sender, Span
from edge_agent.domain.findings import Draft
from edge_agent.domain.units import GuardId
from edge_agent.ports import (
    AckArrived,
    Answered,
    Committed,
    LinkDown,
    LinkUp,
    Publication,
    Reading,
    UplinkReport,
)
from edge_agent.runtime.courier import Courier
from edge_agent.runtime.desk import Desk
from edge_agent.wire.event import Observation, Position
from edge_agent.wire.status import Ack, Health, encode_status
from tests.unit.edge.rig import Layout, Rig, cell
from tests.unit.edge.test_runtime_pump import DirectOutbox, HandClock


@dataclass
class PaperUplink:
    """Keeps what is published."""

    published: list[Publication] = field(default_factory=list)

    def open(self, will: Publication, report: Callable[[UplinkReport], None]) -> None:
        raise AssertionError("the courier opens nothing")

    def publish(self, publication: Publication) -> None:
        self.published.append(publication)

    async def close(self) -> None:
        raise AssertionError("the courier closes nothing")

    def places(self) -> list[int]:
        return [item.place for item in self.published if item.place is not None]


class Bench:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = HandClock()
        run = Run("site", "gw", "boot-1", "1", "c" * 64)
        self.store = EventStore(path, run, size_max_mb=16, sign=SigningKey.generate().sign)
        begun = self.store.begin_epoch(self.clock.pair())
        assert isinstance(begun, Committed)
        self.outbox = DirectOutbox(self.store, [])
        self.sender = Sender(DeliveryMode.GATEWAY, self.store.epoch, tail=1)
        self.uplink = PaperUplink()
        self.desk = Desk(cell(Layout()), version="1", public_key="k")
        self.forks: list[Ack] = []
        self.damage: list[Span] = []
        self.courier = Courier(
            self.sender,
            ReportPolicy(3600),
            self.outbox,
            self.uplink,
            self.desk,
            clock=self.clock,
            on_up=self.greet,
            on_fork=self.fork,
            on_damage=self.damage.append,
        )

    async def greet(self) -> None:
        health = Health(online=True, epoch=self.store.epoch, boot="boot-1")
        self.desk.greet(self.store.epoch, health, "2026-01-01T00:00:00Z", 1, are_current=True)

    async def fork(self, ack: Ack) -> None:
        self.forks.append(ack)

    def commit(self, count: int) -> None:
        drafts = [Draft(self.clock.mono(), Observation("fact", {"n": n})) for n in range(count)]
        committed = self.store.commit(drafts, {}, self.clock.pair())
        assert isinstance(committed, Committed)
        self.courier.extend(committed)

    async def hear(self, *reports: UplinkReport) -> None:
        for report in reports:
            self.courier.report(report)
        await self.courier.step()

    async def ack(self, place: int, digest: str | None = None, *, reset: bool = False) -> None:
        position = self.store._kept(place)
        assert position is not None
        ack = Ack(self.store.epoch, position.epoch, position.seq, digest or position.hash, reset)
        await self.hear(AckArrived(encode_status(ack)))

    async def connect(self, receive_maximum: int = 1000) -> None:
        await self.hear(LinkUp(receive_maximum))
        self.clock.now_ms += 1000
        await self.courier.step()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "gw.db")


async def test_health_goes_first_then_birth_then_events_after_the_wait(bench: Bench) -> None:
    bench.commit(2)
    await bench.hear(LinkUp(1000))
    names = [item.topic.split("/", 4)[4] for item in bench.uplink.published]
    assert names == ["health", "model", "model/mixer"]
    bench.clock.now_ms += 1000
    await bench.courier.step()
    assert bench.uplink.places() == [1, 2, 3]


async def test_what_is_pruned_on_its_way_to_be_read_is_not_sent_and_not_called_damaged(bench: Bench) -> None:
    bench.commit(20)
    bench.courier._cache.clear()
    bench.store._pruner.first = 15  # in the store's own thread, after the sender has named what it sends
    await bench.connect(receive_maximum=100)
    assert bench.uplink.places() == list(range(15, 22))
    assert bench.damage == []
    assert bench.sender.free_slots == 100 - len(bench.uplink.published)


async def test_old_events_are_read_back_and_live_ones_queue_behind(bench: Bench) -> None:
    bench.commit(600)
    await bench.connect()
    assert bench.uplink.places() == list(range(1, 257))
    payloads = {item.place: item.payload for item in bench.uplink.published if item.place}
    assert payloads == bench.store.read(list(range(1, 257))).payloads
    bench.commit(1)
    await bench.ack(256)
    assert bench.uplink.places() == list(range(1, 513))


async def test_unanswered_publishes_never_exceed_the_receive_maximum(bench: Bench) -> None:
    bench.commit(100)
    await bench.connect(receive_maximum=10)
    assert len(bench.uplink.published) == 10
    for _ in range(40):
        oldest = bench.uplink.published.pop(0)
        await bench.hear(Answered(oldest, None, is_heard=True))
        assert len(bench.uplink.published) <= 10


async def test_where_one_publish_may_wait_statuses_that_never_end_leave_every_second_turn_to_events(
    bench: Bench,
) -> None:
    bench.commit(5)
    await bench.connect(receive_maximum=1)
    for n in range(20):
        bench.desk.put_health(Health(online=True, epoch=bench.store.epoch, boot="boot-1", polls=n))
        await bench.hear(Answered(bench.uplink.published[-1], None, is_heard=True))
    sent = [item.place for item in bench.uplink.published]
    assert sent[0] is None
    assert sent[1:13] == [1, None, 2, None, 3, None, 4, None, 5, None, 6, None]


async def test_a_damaged_event_is_told_and_the_rest_is_sent(bench: Bench) -> None:
    bench.commit(400)
    with closing(sqlite3.connect(bench.path, isolation_level=None)) as database:
        database.execute("UPDATE event SET payload = x'7b7d' WHERE n IN (5, 6)")
    await bench.connect()
    assert bench.damage == [Span(5, 6)]
    assert bench.uplink.places()[:6] == [1, 2, 3, 4, 7, 8]
    assert bench.sender.receive_maximum - bench.sender.free_slots == len(bench.uplink.published)


async def test_another_hash_asks_for_a_fork(bench: Bench) -> None:
    bench.commit(3)
    await bench.connect()
    await bench.ack(2, "0" * 64)
    assert [ack.seq for ack in bench.forks] == [2]


async def test_rubbish_on_the_ack_topic_changes_nothing(bench: Bench) -> None:
    bench.commit(3)
    await bench.connect()
    await bench.hear(
        AckArrived(b""), AckArrived(b"[]"), AckArrived(b'{"to":1}'), AckArrived(b"\xff" * 70_000)
    )
    assert bench.sender.acked == 0
    await bench.ack(4)
    assert bench.sender.acked == 4


async def test_a_reset_sends_again_from_there(bench: Bench) -> None:
    bench.commit(5)
    await bench.connect()
    await bench.ack(6)
    bench.uplink.published.clear()
    await bench.ack(3, reset=True)
    assert bench.uplink.places() == [4, 5, 6]


async def test_what_was_read_for_a_connection_that_is_gone_is_not_sent_on_the_next(bench: Bench) -> None:
    bench.commit(300)
    original = bench.outbox.read

    async def read_while_reconnecting(places: list[int]) -> Reading:
        bench.courier.report(LinkDown("cut"))
        bench.courier.report(LinkUp(1000))
        return await original(places)

    bench.outbox.read = read_while_reconnecting  # type: ignore[method-assign, assignment]
    await bench.connect()
    assert bench.uplink.places() == []
    bench.outbox.read = original  # type: ignore[method-assign]
    bench.clock.now_ms += 1000
    await bench.courier.step()
    bench.clock.now_ms += 1000
    await bench.courier.step()
    assert bench.uplink.places() == list(range(1, 257))


async def test_states_take_at_most_half_of_the_window(bench: Bench) -> None:
    bench.commit(100)
    view = Rig(cell()).door()
    bench.desk.put_views([replace(view, guard=GuardId(f"door-{n}")) for n in range(50)], "", 100)
    await bench.connect(receive_maximum=10)
    assert len([item for item in bench.uplink.published if item.place is None]) <= 5


async def test_many_states_go_out_a_few_at_a_time_and_each_event_comes_between(bench: Bench) -> None:
    await bench.connect(receive_maximum=1000)
    view = Rig(cell()).door()
    bench.desk.put_views([replace(view, guard=GuardId(f"door-{n}")) for n in range(50)], "", 100)
    bench.uplink.published.clear()
    bench.commit(1)
    await bench.courier.step()
    waiting = bench.desk.take(1000, 1000)
    assert bench.uplink.places()
    assert len(waiting) >= 40


async def test_all_states_that_wait_go_out_without_anything_else_happening(bench: Bench) -> None:
    await bench.connect(receive_maximum=1000)
    view = Rig(cell()).door()
    bench.desk.put_views([replace(view, guard=GuardId(f"door-{n}")) for n in range(50)], "", 100)
    bench.courier.poke()
    running = asyncio.create_task(bench.courier.run(lambda: None))
    for _ in range(30):
        await asyncio.sleep(0)
    running.cancel()
    assert not bench.desk.take(1000, 1000)
    assert len({item.topic for item in bench.uplink.published if "door-" in item.topic}) >= 50


async def test_an_ack_of_the_latest_events_is_placed_without_the_store(bench: Bench) -> None:
    bench.commit(3)
    await bench.connect()
    asked: list[Position] = []

    async def place(position: Position) -> Placed:
        asked.append(position)
        return NOT_PLACED

    bench.outbox.place = place  # type: ignore[method-assign]
    await bench.ack(3)
    assert (bench.sender.acked, asked) == (3, [])
    await bench.ack(3, "f" * 64)
    assert len(asked) == 1, "another hash at its place: only the store knows"
