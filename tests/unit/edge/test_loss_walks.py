"""Random lives of an agent that loses findings: no beat vouches for a gateway that cannot know what was lost.

A walk fills the outbox and the disk, hangs commits, cuts the link, withholds acks, forks and resets the stream, in any
order and at any pace; then all is well, and the agent must soon be believed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from random import Random

import pytest

from edge_agent.domain.delivery import DeliveryMode
from edge_agent.domain.findings import Draft
from edge_agent.domain.wall import WallPair
from edge_agent.ports import AckArrived, Committed, LinkDown, LinkUp, Loss, Publication, StoreFull
from edge_agent.runtime import pump as pump_module
from edge_agent.runtime.agent import Agent, Stored, World
from edge_agent.runtime.schedule import lines
from edge_agent.wire.codec import decode
from edge_agent.wire.event import Event, Json, StateReport
from edge_agent.wire.status import Ack, encode_status
from edge_agent.wire.topics import Channel
from tests.simulation.virtual_loop import run_virtual
from tests.unit.edge.test_runtime_agent import PlantLink, PromptUplink, healths
from tests.unit.edge.test_runtime_pump import Bench, DirectOutbox, LoopClock

WALKS = 12

STEPS = 40

PAUSES_S = (0.01, 0.3, 1, 2.5, 5)

WELL_AFTER_S = 90
"""A report follows once the one before it is acked, and the beat after it says so."""


class BookedOutbox(DirectOutbox):
    """Keeps book of what is lost, by what goes in and what comes out."""

    is_unhealed = False
    losses = 0

    async def commit(
        self, drafts: Sequence[Draft], memory: Mapping[str, Json], pair: WallPair, loss: Loss | None = None
    ) -> Committed | StoreFull:
        outcome = await super().commit(drafts, memory, pair, loss)
        if isinstance(outcome, StoreFull):
            return outcome
        stored = [event.body for event in outcome.events]
        if loss is not None or any(draft.body not in stored for draft in drafts):
            self.is_unhealed = True
            self.losses += 1
        elif any(isinstance(body, StateReport) and body.part == body.parts for body in stored):
            self.is_unhealed = False
        return outcome


class AckingUplink(PromptUplink):
    """A gateway behind the broker: acks each event at once, or none."""

    def __init__(self, *, is_gateway: bool) -> None:
        super().__init__()
        self.is_gateway = self.is_acking = is_gateway
        self.last: Event | None = None

    def publish(self, publication: Publication) -> None:
        super().publish(publication)
        if publication.topic.endswith(f"/{Channel.EVENTS}"):
            event = decode(publication.payload)
            assert isinstance(event, Event)
            self.last = event
            self.ack()

    def ack(self) -> None:
        """All that has come, unless it is silent."""
        if self.last is not None and self.is_acking:
            at = self.last
            self.say(Ack(at.epoch, at.epoch, at.seq, at.hash, reset=False))

    def say(self, ack: Ack) -> None:
        """An ack of any content."""
        self.report(AckArrived(encode_status(ack)))


class Walk:
    """One agent and what happens to it."""

    def __init__(self, rng: Random, mode: DeliveryMode) -> None:
        self.rng, self.bench = rng, Bench(clock=LoopClock())
        self.outbox = BookedOutbox(self.bench.store, self.bench.said)
        self.uplink = AckingUplink(is_gateway=mode is DeliveryMode.GATEWAY)
        world = World(
            self.bench.clock,
            self.outbox,
            self.uplink,
            {name: PlantLink(self.bench.plant) for name in lines(self.bench.cell)},
            rss_mb=lambda: int(self.outbox.is_unhealed),  # asked in the moment in which a health is made
            notify=lambda _state: None,
        )
        stored = Stored(first=1, tail=self.bench.store.tail, acked=0, gone=(), recall=dict)
        self.agent = Agent(self.bench.cell, world, stored, mode=mode, version="1", public_key="")
        self.limit_bytes = self.bench.store._limit_bytes

    async def live(self) -> None:
        """Run, walk, be well, stop."""
        stop = asyncio.Event()
        running = asyncio.create_task(self.agent.run(stop))
        acts = [
            self.move, self.move, self.move, self.fill, self.fill_up, self.tighten, self.make_room, self.hang, self.flood,
            self.cut, self.connect, self.silence, self.hear, self.fork, self.reset,
        ]  # fmt: skip
        for certain in (self.cut, self.flood, self.fill_up, self.flood):  # at least one loss
            await asyncio.sleep(self.rng.choice(PAUSES_S))
            certain()
        for _ in range(STEPS):
            await asyncio.sleep(self.rng.choice(PAUSES_S))
            self.rng.choice(acts)()
        self.make_room()
        self.connect()
        await asyncio.sleep(1)
        self.hear()
        await asyncio.sleep(WELL_AFTER_S)
        stop.set()
        await running

    def move(self) -> None:
        """A contact of the plant."""
        signal = self.rng.choice(["closed", "locked", "bypass", "running", "estop", "mode"])
        setattr(self.bench.plant, signal, self.rng.randint(0, 1))

    def fill(self) -> None:
        """The disk."""
        self.outbox.is_full = True

    def fill_up(self) -> None:
        """The outbox, now or soon."""
        store = self.bench.store
        store._limit_bytes = max(16, store._unacked_bytes + self.rng.choice([-300, 0]))

    def tighten(self) -> None:
        """Nearly full: room for events, perhaps none for a report."""
        store = self.bench.store
        store._limit_bytes = max(16, store._unacked_bytes * 100 // self.rng.choice([94, 96, 98, 99]))

    def make_room(self) -> None:
        """In the outbox and on the disk, which does not hang any more."""
        self.bench.store._limit_bytes = self.limit_bytes
        self.outbox.is_full = False
        if self.outbox.hold is not None:
            self.outbox.hold.set()
        self.outbox.hold = None

    def hang(self) -> None:
        """The disk."""
        self.outbox.hold = self.outbox.hold or asyncio.Event()

    def flood(self) -> None:
        """Findings at once."""
        for number in range(self.rng.choice([3, 60])):
            self.agent.observe("flood", {"n": number})

    def cut(self) -> None:
        """The link."""
        self.uplink.report(LinkDown("cut"))

    def connect(self) -> None:
        """Anew."""
        self.cut()
        self.uplink.report(LinkUp(self.rng.choice([1, 20, 1000])))

    def silence(self) -> None:
        """The gateway says nothing."""
        self.uplink.is_acking = False

    def hear(self) -> None:
        """The gateway, if there is one."""
        self.uplink.is_acking = self.uplink.is_gateway
        self.uplink.ack()

    def fork(self) -> None:
        """The gateway knows another history."""
        if self.uplink.is_acking and not self.outbox.is_full:
            epoch = self.bench.store.epoch
            self.uplink.say(Ack(epoch, epoch, self.bench.store.tail + 1000, "0" * 64, reset=False))

    def reset(self) -> None:
        """The gateway lost everything."""
        if self.uplink.is_acking:
            self.uplink.say(Ack(self.bench.store.epoch, None, None, None, reset=True))


async def walked(rng: Random, mode: DeliveryMode) -> Walk:
    """A walk that is over."""
    walk = Walk(rng, mode)
    await walk.live()
    return walk


@pytest.mark.parametrize("mode", DeliveryMode)
@pytest.mark.parametrize("seed", range(WALKS))
def test_no_beat_vouches_between_a_loss_and_the_report_that_makes_it_good(
    seed: int, mode: DeliveryMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = Random(seed)
    monkeypatch.setattr(pump_module, "UNSTORED_MAX", rng.choice([5, 50, 5000]))
    monkeypatch.setattr(pump_module, "COMMIT_EVENTS_MAX", rng.choice([1, 2, 1000]))
    walk = run_virtual(lambda: walked(rng, mode))
    assert walk.outbox.losses > 0, "a walk that loses nothing shows nothing"
    told = healths(walk.uplink.published)
    assert {health["outbox_pct"] for health in told if health["rss_mb"]} <= {100}
    assert not walk.outbox.is_unhealed
    assert told[-1]["outbox_pct"] < 100
