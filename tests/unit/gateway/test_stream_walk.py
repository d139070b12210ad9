"""Random walks: whatever broker, disks and people do, nothing is lost unstated, doubled, out of order, or stuck.

The world is small and its own: agents that keep to the protocol's section 2 (`ScriptedAgent`), a broker that loses,
doubles, delays and forgets, a gateway that is nothing but a journal under `domain.stream`. A walk takes random steps,
then everything is left in peace; by the end every agent must be through, and every event of every living store held,
refused as a conflict, or inside a stated gap. Seeds are fixed; a failure prints its own.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from edge_agent.wire.event import Event, Position
from edge_agent.wire.status import Ack, Health
from gateway.domain.stream import Conflict, Late, Lost, Next, Verdict, answer, demand_reset, judge
from tests.scripted_agent import ScriptedAgent, Store, note, ulid

pytestmark = pytest.mark.thorough

STEPS = 250
WALKS = 150
PEACE_ROUNDS = 60
WINDOW = 4


@dataclass
class Gateway:
    """A journal. What is on its disk: `held`, `order`, `lost`, `refused`, `bridged`; in its memory: `health`."""

    held: dict[tuple[str, int], str] = field(default_factory=dict)
    order: list[Event] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    refused: set[Position] = field(default_factory=set)
    bridged: set[Position] = field(default_factory=set)
    health: Health | None = None

    def hash_at(self, epoch: str, seq: int) -> str | None:
        return self.held.get((epoch, seq))

    def last(self, epoch: str) -> Position | None:
        return next((event.position for event in reversed(self.order) if event.epoch == epoch), None)

    def newest(self) -> Position | None:
        return self.order[-1].position if self.order else None

    def latest_epoch(self) -> str | None:
        epochs = list(dict.fromkeys(event.epoch for event in self.order))
        return epochs[-1] if epochs else None

    def is_stated_lost(self, epoch: str, seq: int) -> bool:
        return any(
            lost.epoch == epoch and lost.from_seq <= seq and (lost.to_seq is None or seq <= lost.to_seq)
            for lost in self.lost
        )

    def is_refused(self, position: Position) -> bool:
        return position in self.refused

    def find_hash(self, digest: str) -> Position | None:
        return next((event.position for event in self.order if event.hash == digest), None)

    def take(self, event: Event) -> Verdict:
        verdict = judge(event, self, self.health)
        if isinstance(verdict, Conflict | Late):
            self.refused.add(event.position)
        if isinstance(verdict, Conflict):
            self.lost += verdict.lost
        if not isinstance(verdict, Next):
            return verdict
        self.lost += verdict.lost
        if any(lost.to_seq is None and "damaged" in lost.reason for lost in verdict.lost):
            self.bridged.add(event.position)
        key = (event.epoch, event.seq)
        assert key not in self.held, "doubled"
        last = self.last(event.epoch)
        assert last is None or event.seq > last.seq, "out of order"
        assert event.seq == 1 or self.accounts_for(event.epoch, event.seq - 1), "a hole that nobody stated"
        self.held[key] = event.hash
        self.order.append(event)
        return verdict

    def accounts_for(self, epoch: str, seq: int) -> bool:
        return (epoch, seq) in self.held or self.is_stated_lost(epoch, seq)


@dataclass
class World:
    """Agents, broker, gateway, and the dice."""

    dice: random.Random
    gateway: Gateway = field(default_factory=Gateway)
    agents: list[ScriptedAgent] = field(default_factory=list)
    upward: list[Event | Health] = field(default_factory=list)
    downward: list[tuple[ScriptedAgent, Ack]] = field(default_factory=list)
    kept_health: Health | None = None
    kept_ack: Ack | None = None
    backups: list[Gateway] = field(default_factory=list)
    images: list[Store] = field(default_factory=list)
    before_first: set[Position] = field(default_factory=set)
    epochs: int = 0
    notes: int = 0

    def start_run(self, store: Store) -> None:
        self.epochs += 1
        store.start(ulid(self.epochs))

    def new_agent(self, store: Store) -> ScriptedAgent:
        self.start_run(store)
        agent = ScriptedAgent(store, says_after=self.dice.random() < 0.5)
        self.agents.append(agent)
        return agent

    @property
    def agent(self) -> ScriptedAgent:
        return self.dice.choice(self.agents)

    # what agents do

    def mint(self) -> None:
        self.notes += 1
        self.agent.store.add(note(f"n{self.notes}"))

    def restart(self) -> None:
        self.start_run(self.agent.store)

    def send(self, agent: ScriptedAgent | None = None) -> None:
        agent = agent or self.agent
        self.upward += agent.to_send(WINDOW)

    def beat(self, agent: ScriptedAgent | None = None) -> None:
        agent = agent or self.agent
        self.kept_health = agent.health()
        first = self.kept_health.first
        before = agent.store.events[: 0 if first is None else agent.store.index_of(first)]
        self.before_first |= {event.position for event in before}
        self.upward.append(self.kept_health)

    def reconnect(self) -> None:
        agent = self.agent
        if self.kept_ack is not None:
            self.downward.append((agent, self.kept_ack))
        self.beat(agent)
        self.send(agent)

    def prune(self) -> None:
        agent = self.agent
        index = None if agent.acked is None else agent.store.index_of(agent.acked)
        if index is not None and index > agent.pruned:
            agent.pruned = self.dice.randint(agent.pruned, index)

    def damage(self) -> None:
        agent = self.agent
        if len(agent.store.events) > agent.pruned + 2:
            agent.damaged.add(self.dice.randrange(agent.pruned, len(agent.store.events) - 1))

    # what people and disks do

    def take_image(self) -> None:
        self.images.append(self.agent.store.image())

    def restore_image(self) -> None:
        if self.images:
            agent = self.agent
            self.agents.remove(agent)
            self.new_agent(self.dice.choice(self.images).image()).acked = None

    def run_clone(self) -> None:
        if self.images and len(self.agents) < 3:
            self.new_agent(self.dice.choice(self.images).image())

    def resume_snapshot(self) -> None:
        """A running machine goes back to a snapshot of itself: the same epoch, another future."""
        agent = self.agent
        index = None if agent.acked is None else agent.store.index_of(agent.acked)
        keep = self.dice.randint(1, len(agent.store.events))
        if agent.store.events[keep - 1].epoch == agent.store.epoch and agent.pruned < keep:
            del agent.store.events[keep:]
            agent.damaged = {n for n in agent.damaged if n < keep - 1}
            if index is not None and index >= keep:
                agent.acked = agent.store.events[keep - 1].position

    def lose_store(self) -> None:
        self.agents.remove(self.agent)
        self.new_agent(Store())

    def back_up(self) -> None:
        self.backups.append(copy.deepcopy(self.gateway))

    def restore_gateway(self) -> None:
        if self.backups:
            self.gateway = copy.deepcopy(self.dice.choice(self.backups))
            self.connect_gateway()

    def delete_gateway(self) -> None:
        self.gateway = Gateway()
        self.connect_gateway()

    def connect_gateway(self) -> None:
        self.gateway.health = None
        self.upward.clear()
        if self.kept_health is not None:
            self.upward.append(self.kept_health)

    # what the broker does

    def wipe_broker(self) -> None:
        self.upward.clear()
        self.downward.clear()
        self.kept_ack = self.kept_health = None

    def lose(self) -> None:
        if self.upward:
            del self.upward[self.dice.randrange(len(self.upward))]
        if self.downward:
            del self.downward[self.dice.randrange(len(self.downward))]

    def double(self) -> None:
        if self.upward:
            item = self.dice.choice(self.upward)
            self.upward.insert(self.dice.randint(0, len(self.upward)), item)

    def delay(self) -> None:
        if self.upward:
            self.upward.append(self.upward.pop(0))

    def deliver(self) -> None:
        batch, self.upward = self.upward[: (n := self.dice.randint(1, 6))], self.upward[n:]
        by_epoch: dict[str, list[tuple[Event, Verdict]]] = {}
        for item in batch:
            if isinstance(item, Health):
                self.gateway.health = item
            else:
                by_epoch.setdefault(item.epoch, []).append((item, self.gateway.take(item)))
        acks = [answer(self.gateway, judged, self.gateway.health) for judged in by_epoch.values()]
        resets = [demand_reset(self.gateway, item) for item in batch if isinstance(item, Health)]
        for ack in [*acks, *(reset for reset in resets if reset is not None)]:
            self.kept_ack = ack
            self.downward += [(agent, ack) for agent in self.agents]

    def hear(self) -> None:
        if self.downward:
            agent, ack = self.downward.pop(0)
            if agent in self.agents and agent.take(ack):
                self.start_run(agent.store)

    # the end

    def live_in_peace(self) -> None:
        for _ in range(PEACE_ROUNDS):
            for agent in self.agents:
                self.beat(agent)
                self.drain()
                self.send(agent)
                self.drain()

    def drain(self) -> None:
        while self.upward or self.downward:
            while self.upward:
                self.deliver()
            while self.downward:
                self.hear()

    def audit(self) -> None:
        for agent in self.agents:
            store = agent.store
            assert not agent.to_send(), f"stuck: {len(agent.to_send())} wait, acked {agent.acked}"
            for n, event in enumerate(store.events):
                is_held = self.gateway.held.get((event.epoch, event.seq)) == event.hash
                is_here = is_held or self.gateway.is_stated_lost(event.epoch, event.seq)
                is_refused = event.position in self.gateway.refused
                assert is_here or is_refused or self.is_nameless(store, n), f"lost: {event.epoch}/{event.seq}"

    def is_nameless(self, store: Store, n: int) -> bool:
        """Whether a stated gap covers it that cannot name it: before `first`, or around a run that is gone as a whole."""
        if store.events[n].position in self.before_first and any(
            "pruned" in lost.reason for lost in self.gateway.lost
        ):
            return True
        bridged = (store.index_of(position) for position in self.gateway.bridged)
        return any(index is not None and n < index for index in bridged)


def steps(world: World) -> list[tuple[int, Callable[[], None]]]:
    """Each possible step and its weight."""
    return [
        (30, world.mint),
        (25, world.send),
        (40, world.deliver),
        (40, world.hear),
        (12, world.beat),
        (6, world.reconnect),
        (4, world.restart),
        (8, world.lose),
        (6, world.double),
        (6, world.delay),
        (4, world.prune),
        (1, world.damage),
        (2, world.take_image),
        (1, world.restore_image),
        (1, world.run_clone),
        (1, world.resume_snapshot),
        (1, world.lose_store),
        (2, world.back_up),
        (1, world.restore_gateway),
        (1, world.delete_gateway),
        (2, world.wipe_broker),
    ]


def walk(seed: int) -> World:
    world = World(random.Random(seed))
    world.new_agent(Store())
    weighted = steps(world)
    # each walk has its own weather: some faults often, some never
    weights = [weight * world.dice.choice((0, 1, 1, 4)) if weight < 10 else weight for weight, _ in weighted]
    for _ in range(STEPS):
        world.dice.choices([step for _, step in weighted], weights)[0]()
    return world


@pytest.mark.parametrize("part", range(5))
def test_nothing_is_lost_unstated_doubled_out_of_order_or_stuck(part: int) -> None:
    for seed in range(part * WALKS, (part + 1) * WALKS):
        try:
            world = walk(seed)
            world.live_in_peace()
            world.audit()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_the_walks_meet_what_they_are_meant_to_meet() -> None:
    worlds = [walk(seed) for seed in range(WALKS)]
    assert any(world.gateway.refused for world in worlds), "no conflict"
    assert any(lost.to_seq is None for world in worlds for lost in world.gateway.lost), "no replaced store"
    assert any("damaged" in lost.reason for world in worlds for lost in world.gateway.lost), "no damage"
    assert any("pruned" in lost.reason for world in worlds for lost in world.gateway.lost), "no pruning"
    assert any(len(world.agents) > 1 for world in worlds), "no clone"
