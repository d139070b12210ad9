"""Random walks over everything that can go wrong between a store and a journal, then healing, then the accounts.

The gateway and the broker here are small models of their own, written from the delivery protocol's page, sharing no
code with the product: what they disagree on with the sender is a fault of one of them. A walk draws its faults from a
seed, which is in the test's name; the broker loses, doubles, holds back and forgets; the agent is killed, restored
from an image, resumed from a snapshot, damaged, given a new store; the gateway is stopped, deleted, restored.
"""

from __future__ import annotations

import random
from collections import deque
from copy import deepcopy
from dataclasses import dataclass, field, replace

import pytest

from edge_agent.domain.delivery import AckOutcome, DeliveryMode, Match, Placed, Sender, Span
from edge_agent.domain.units import NS_PER_MS, NS_PER_S, MonoNs
from edge_agent.wire.status import Ack

pytestmark = pytest.mark.thorough

WALKS = 160
STEPS = 250
TICK_NS = 50 * NS_PER_MS
HEAL_TICKS = 4000
"""200 s: every backoff of 30 s has passed several times."""

Key = tuple[str, int]


@dataclass(frozen=True)
class Fact:
    """An event on paper: key, hash, the hash before it, and for seq 1 the key it follows."""

    epoch: str
    seq: int
    hash: str
    prev: str
    after: Key | None = None

    @property
    def key(self) -> Key:
        return self.epoch, self.seq


@dataclass
class Store:
    """An agent's file."""

    chain: list[Fact] = field(default_factory=list)
    acked: int = 0
    gone: set[int] = field(default_factory=set)

    def place(self, epoch: str, seq: int, digest: str) -> Placed:
        own = [(n, fact) for n, fact in enumerate(self.chain, 1) if fact.epoch == epoch]
        for n, fact in own:
            if fact.seq == seq:
                return Placed(Match.HELD if fact.hash == digest else Match.OTHER_HASH, n)
        return Placed(Match.BEYOND, own[-1][0]) if own else Placed(Match.UNKNOWN)


@dataclass(frozen=True)
class Beat:
    """The newest health, as far as the protocol reads it."""

    epoch: str
    acked: Fact | None
    first: Key
    gone: frozenset[Key]


@dataclass
class Gateway:
    """The journal and the rules of acceptance (delivery protocol §3), for one agent."""

    held: dict[Key, str] = field(default_factory=dict)
    order: list[Fact] = field(default_factory=list)
    quarantine: set[tuple[Key, str]] = field(default_factory=set)
    beat: Beat | None = None

    def receive_batch(self, batch: list[Fact]) -> Ack | None:
        covered: Fact | None = None
        for fact in batch:
            if fact.key in self.held:
                if self.held[fact.key] != fact.hash:
                    self.quarantine.add((fact.key, fact.hash))
                covered = fact
            elif self.is_next(fact):
                self.held[fact.key] = fact.hash
                self.order.append(fact)
                covered = fact
        to = batch[-1].epoch
        if covered is not None:
            return Ack(to, covered.epoch, covered.seq, self.held[covered.key], False)
        last = next((fact for fact in reversed(self.order) if fact.epoch == to), self.newest)
        return None if last is None else Ack(to, last.epoch, last.seq, last.hash, False)

    @property
    def newest(self) -> Fact | None:
        return self.order[-1] if self.order else None

    def is_next(self, fact: Fact) -> bool:
        if (fact.epoch, fact.seq - 1) in self.held:
            return True
        if fact.seq == 1 and (fact.after is None or fact.after in self.held):
            return True
        if self.beat is None:
            return False
        if fact.key == self.beat.first:
            return True
        return self.follows_gone(fact, self.beat.gone)

    def follows_gone(self, fact: Fact, gone: frozenset[Key]) -> bool:
        """The event after a gone range before which everything is held."""
        key = self.before(fact)
        if key is None or key not in gone:
            return False
        while key is not None and key in gone:
            epoch, seq = key
            key = (epoch, seq - 1) if seq > 1 else self.known_after(epoch)
        return key is None or key in self.held

    def before(self, fact: Fact) -> Key | None:
        return (fact.epoch, fact.seq - 1) if fact.seq > 1 else fact.after

    def known_after(self, epoch: str) -> Key | None:
        """What precedes an epoch whose first event is gone is not told by anybody: taken as given."""
        del epoch
        return None

    def receive_beat(self, beat: Beat) -> Ack | None:
        self.beat = beat
        acked = beat.acked
        if acked is None or self.held.get(acked.key) == acked.hash:
            return None
        newest = self.newest
        if newest is None:
            return Ack(beat.epoch, None, None, None, True)
        return Ack(beat.epoch, newest.epoch, newest.seq, newest.hash, True)


@dataclass
class Agent:
    """A store and its running sender; the epoch is new at each start."""

    store: Store
    sender: Sender
    epoch: str
    seq: int = 0
    connected: bool = False


class World:
    """One agent, one broker, one gateway, and a clock."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.now = MonoNs(0)
        self.epochs = 0
        self.forks = 0
        self.hashes = 0
        self.resumed = False
        self.ever_gone: set[Key] = set()
        self.gateway = Gateway()
        self.gateway_up = True
        self.to_gateway: deque[Fact | Beat] = deque()
        self.to_agent: deque[Ack] = deque()
        self.retained_ack: Ack | None = None
        self.retained_beat: Beat | None = None
        self.backup = deepcopy(self.gateway)
        self.agent = self.start(Store())
        self.image = deepcopy(self.agent.store)
        self.snapshot = deepcopy(self.agent)

    # the agent

    def start(self, store: Store) -> Agent:
        sender = Sender(DeliveryMode.GATEWAY, "", tail=len(store.chain), acked=store.acked)
        for n in sorted(store.gone):
            sender.lose(Span(n, n))
        agent = Agent(store, sender, "")
        self.begin_epoch(agent)
        return agent

    def begin_epoch(self, agent: Agent) -> None:
        self.epochs += 1
        agent.epoch, agent.seq = f"E{self.epochs}", 0
        agent.sender.begin_epoch(agent.epoch)
        self.commit(agent)

    def commit(self, agent: Agent) -> None:
        chain = agent.store.chain
        self.hashes += 1
        agent.seq += 1
        prev = chain[-1].hash if chain else "seed"
        after = chain[-1].key if chain and agent.seq == 1 else None
        chain.append(Fact(agent.epoch, agent.seq, f"h{self.hashes}", prev, after))
        agent.sender.extend(len(chain))

    def beat(self) -> Beat:
        store = self.agent.store
        acked = self.agent.sender.acked
        return Beat(
            self.agent.epoch,
            store.chain[acked - 1] if acked else None,
            store.chain[0].key,
            frozenset(store.chain[n - 1].key for n in store.gone),
        )

    def connect(self) -> None:
        if self.agent.connected:
            return
        self.agent.connected = True
        self.agent.sender.connect(self.draw.choice([1, 3, 20, 1000]), self.now)
        self.publish(self.beat())
        if self.retained_ack is not None:
            self.to_agent.append(self.retained_ack)

    def disconnect(self) -> None:
        self.agent.connected = False
        self.agent.sender.disconnect()
        self.to_agent.clear()

    def hear(self, ack: Ack) -> None:
        agent = self.agent
        position = ack.position
        placed = (
            Placed(Match.UNKNOWN)
            if position is None
            else agent.store.place(position.epoch, position.seq, position.hash)
        )
        outcome = agent.sender.receive_ack(ack, placed, self.now)
        agent.store.acked = agent.sender.acked
        if outcome is AckOutcome.FORKED:
            self.forks += 1
            self.begin_epoch(agent)

    def send(self) -> None:
        agent = self.agent
        if not agent.connected:
            return
        agent.sender.handle_timer(self.now)
        for n in agent.sender.take_sends(self.now):
            self.publish(agent.store.chain[n - 1])
            agent.sender.receive_puback(n, self.now, is_delivered=True)

    # the broker

    def publish(self, message: Fact | Beat) -> None:
        if isinstance(message, Beat):
            self.retained_beat = message
        self.to_gateway.append(message)

    def deliver(self, *, batch_max: int) -> None:
        if self.gateway_up:
            batch: list[Fact] = []
            while self.to_gateway and len(batch) < batch_max:
                message = self.to_gateway.popleft()
                if isinstance(message, Beat):
                    self.answer(self.gateway.receive_beat(message))
                else:
                    batch.append(message)
            if batch:
                self.answer(self.gateway.receive_batch(batch))
        while self.to_agent and self.agent.connected:
            self.hear(self.to_agent.popleft())

    def answer(self, ack: Ack | None) -> None:
        if ack is not None:
            self.retained_ack = ack
            self.to_agent.append(ack)

    # what goes wrong

    def step(self) -> None:
        act = self.draw.choices(
            [
                self.commit_some,
                self.pass_time,
                self.connect,
                self.disconnect,
                self.lose_messages,
                self.double_message,
                self.wipe_broker,
                self.kill_agent,
                self.toggle_gateway,
                self.delete_gateway,
                self.restore_gateway,
                self.keep_copies,
                self.restore_image,
                self.resume_snapshot,
                self.damage_event,
                self.replace_store,
            ],
            [30, 30, 15, 4, 8, 8, 2, 4, 4, 1, 1, 3, 1, 1, 1, 0.5],
        )[0]
        act()
        self.tick()

    def tick(self, batch_max: int = 50) -> None:
        self.now = MonoNs(self.now + TICK_NS)
        if self.now % (2 * NS_PER_S) == 0 and self.agent.connected:
            self.publish(self.beat())
        self.send()
        self.deliver(batch_max=self.draw.randint(1, batch_max))

    def commit_some(self) -> None:
        for _ in range(self.draw.randint(1, 8)):
            self.commit(self.agent)

    def pass_time(self) -> None:
        for _ in range(self.draw.randint(1, 100)):
            self.tick()

    def lose_messages(self) -> None:
        kept = [message for message in self.to_gateway if self.draw.getrandbits(1)]
        self.to_gateway = deque(kept)
        if self.draw.getrandbits(1):
            self.to_agent.clear()

    def double_message(self) -> None:
        if self.to_gateway:
            self.to_gateway.insert(
                self.draw.randrange(len(self.to_gateway) + 1), self.draw.choice(self.to_gateway)
            )
        if self.retained_ack is not None:
            self.to_agent.append(self.retained_ack)

    def wipe_broker(self) -> None:
        self.disconnect()
        self.to_gateway.clear()
        self.retained_ack = self.retained_beat = None

    def kill_agent(self) -> None:
        self.disconnect()
        self.agent = self.start(self.agent.store)

    def toggle_gateway(self) -> None:
        self.gateway_up = not self.gateway_up
        if self.gateway_up and self.retained_beat is not None:
            self.answer(self.gateway.receive_beat(self.retained_beat))

    def delete_gateway(self) -> None:
        self.gateway = Gateway(quarantine=self.gateway.quarantine)

    def restore_gateway(self) -> None:
        self.gateway = deepcopy(self.backup)

    def keep_copies(self) -> None:
        self.backup = deepcopy(self.gateway)
        self.image = deepcopy(self.agent.store)
        self.snapshot = deepcopy(self.agent)

    def restore_image(self) -> None:
        self.disconnect()
        self.agent = self.start(deepcopy(self.image))

    def resume_snapshot(self) -> None:
        self.disconnect()
        self.agent = deepcopy(self.snapshot)
        self.disconnect()
        self.resumed = True

    def damage_event(self) -> None:
        store, sender = self.agent.store, self.agent.sender
        unacked = [
            n
            for n in range(sender.acked + 1, len(store.chain))
            if n not in store.gone and store.chain[n - 1].seq > 1
        ]
        if unacked:
            n = self.draw.choice(unacked)
            self.ever_gone.add(store.chain[n - 1].key)
            store.gone.add(n)
            sender.lose(Span(n, n))

    def replace_store(self) -> None:
        self.disconnect()
        self.agent = self.start(Store())

    # the end

    def heal(self) -> None:
        """No more faults; one more event, so that something must move; then time."""
        self.gateway_up = False
        self.toggle_gateway()
        self.commit(self.agent)
        self.connect()
        for _ in range(HEAL_TICKS):
            self.tick()
            if self.agent.sender.acked == self.agent.sender.tail and not self.to_gateway:
                break


def audit(world: World) -> list[str]:
    """What the accounts say is wrong."""
    store, gateway = world.agent.store, world.gateway
    found: list[str] = []
    if world.agent.sender.acked != len(store.chain):
        found.append(f"stuck: acked {world.agent.sender.acked} of {len(store.chain)}")
    for n, fact in enumerate(store.chain, 1):
        if n in store.gone or fact.key in world.ever_gone:
            continue  # a stated gap; an image from before the damage may fill it, or may not
        # under the same key with another hash: two histories of one epoch, which both sides alarm
        if fact.key not in gateway.held:
            found.append(f"lost: {fact.key}")
        elif gateway.held[fact.key] != fact.hash and not world.resumed:
            found.append(f"conflict out of nothing: {fact.key}")
    keys = [fact.key for fact in gateway.order]
    if len(keys) != len(set(keys)):
        found.append("doubled")
    for epoch in {fact.epoch for fact in gateway.order}:
        own = [fact for fact in gateway.order if fact.epoch == epoch]
        # an image from before the damage fills the gap that the damaged store had left
        seqs = [fact.seq for fact in own if fact.key not in world.ever_gone]
        if seqs != sorted(seqs):
            found.append(f"out of order: {epoch} {seqs}")
    return found


@pytest.mark.parametrize("block", range(8))
def test_nothing_is_lost_doubled_out_of_order_or_stuck(block: int) -> None:
    """Twenty walks a block; a failure names its seed."""
    share = WALKS // 8
    for seed in range(block * share, (block + 1) * share):
        world = World(seed)
        for _ in range(STEPS):
            world.step()
        world.heal()
        assert (seed, audit(world)) == (seed, [])


def test_the_walks_meet_every_kind_of_trouble() -> None:
    """Walks that meet no fork or no quarantine would prove less than they say."""
    forks = quarantined = 0
    for seed in range(60):
        world = World(seed)
        for _ in range(STEPS):
            world.step()
        forks += world.forks
        quarantined += len(world.gateway.quarantine)
    assert forks > 0
    assert quarantined > 0


def test_the_auditor_can_fail() -> None:
    """A gateway that forgets one journaled event behind everybody's back is found out."""
    world = World(1)
    world.connect()
    world.commit_some()
    world.heal()
    assert audit(world) == []
    del world.gateway.held[world.agent.store.chain[0].key]
    assert audit(world) == [f"lost: {world.agent.store.chain[0].key}"]
    world.gateway.order.append(replace(world.gateway.order[0]))
    assert "doubled" in audit(world)
