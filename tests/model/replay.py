"""The product's own code under the model's schedule: whatever the model does next, the code must do the same.

Theory of operation. Two machines of the product decide about delivery. The gateway's (`gateway.domain.stream`) are
functions of what is held, so each question that the search ever asked is put to them once more (`check_gateway`), over a
`Holdings` that reads a model's journal: that covers every transition of the graph. The agent's (`Sender`) remembers, so
it is driven along ways through the graph (`Driver.follow`): shortest ways until each thing that ever happened to an agent in
each of its states has happened to the code (`ways_to_everything`), and random ones, which are long. After each step what it would send next and
what it takes as acked must be the model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from edge_agent.domain.delivery import (
    NOT_PLACED,
    AckOutcome,
    DeliveryMode,
    Match,
    Placed,
    Sender,
    Span,
)
from edge_agent.domain.units import NS_PER_S, MonoNs
from edge_agent.wire import event as wire
from edge_agent.wire import status
from edge_agent.wire.chain import seed_hash
from edge_agent.wire.codec import Stamp, seal
from gateway.domain import stream
from tests.model.explore import Graph
from tests.model.protocol import Heard, Protocol, Received, Verdict
from tests.model.values import Ack, Agent, Beat, Event, Gap, Journal
from tests.model.world import Act, Model, Step, World
from tests.scripted_agent import AGENT, SITE, ulid

OUTCOMES = {
    AckOutcome.IGNORED: Heard.NOTHING,
    AckOutcome.FORWARD: Heard.FORWARD,
    AckOutcome.BACK: Heard.BACK,
    AckOutcome.FORKED: Heard.FORK,
}
PATIENCE_NS = 60 * NS_PER_S
"""Longer than any pause of the sender."""

NEW_PROCESS = frozenset({Act.KILL, Act.IMAGE, Act.CLONE, Act.SNAPSHOT, Act.LOSE_STORE})
TO_ONE_AGENT = NEW_PROCESS | {
    Act.SEND,
    Act.HEAR,
    Act.DOUBLE_DOWN,
    Act.RESEND,
    Act.RECONNECT,
    Act.PRODUCE,
    Act.PRUNE,
    Act.DAMAGE,
}


# the model's values on the wire


@cache
def sealed(event: Event) -> wire.Event:
    """The event with a real hash."""
    before = event.before
    epoch = ulid(event.epoch)
    prev = seed_hash(SITE, AGENT, epoch) if before is None else sealed(before).hash
    body: wire.Body = wire.Observation("cycle", {"twist": event.twist})
    if event.seq == 1:
        body = wire.AgentStarted(position(before), f"1.{event.twist}", "c0ffee", clean_stop=False)
    at = f"2026-11-22T00:00:{event.n:02d}.000000Z"
    stamp = Stamp(SITE, AGENT, epoch, event.seq, "boot-1", event.n, at, wire.ClockState.SYNCED, prev)
    return seal(stamp, body)


def position(event: Event | None) -> wire.Position | None:
    """Where an event lies, as acks and healths name it."""
    return None if event is None else sealed(event).position


@cache
def spoken(ack: Ack) -> status.Ack:
    """The ack as it travels."""
    if ack.event is None:
        return status.Ack(ulid(ack.to), None, None, None, ack.reset)
    named = sealed(ack.event)
    return status.Ack(ulid(ack.to), named.epoch, named.seq, named.hash, ack.reset)


@cache
def health(beat: Beat) -> status.Health:
    """The beat as it travels."""
    gone = tuple(status.GoneRange(ulid(epoch), seq, seq) for epoch, seq in sorted(beat.gone))
    epoch = ulid(beat.epoch)
    return status.Health(
        True, epoch, "boot-1", acked=position(beat.acked), first=position(beat.first), gone=gone
    )


# the gateway


class Held:
    """`stream.Holdings` over a model's journal."""

    def __init__(self, journal: Journal) -> None:
        self._held = {(ulid(epoch), seq): sealed(event) for (epoch, seq), event in journal.held.items()}
        self._last = {ulid(epoch): sealed(event).position for epoch, event in journal.last.items()}
        self._newest = position(journal.newest)
        self._refused = {sealed(event).position for event in journal.refused}

    def hash_at(self, epoch: str, seq: int) -> str | None:
        found = self._held.get((epoch, seq))
        return None if found is None else found.hash

    def last(self, epoch: str) -> wire.Position | None:
        return self._last.get(epoch)

    def newest(self) -> wire.Position | None:
        return self._newest

    def latest_epoch(self) -> str | None:
        return next(reversed(self._last), None)

    def is_refused(self, position: wire.Position) -> bool:
        return position in self._refused

    def find_hash(self, digest: str) -> wire.Position | None:
        return next((event.position for event in self._held.values() if event.hash == digest), None)


held_of = cache(Held)


class Recorder(Protocol):
    """The protocol, remembering every question that the gateway was ever asked."""

    def __init__(self) -> None:
        super().__init__()
        self.received: list[tuple[Journal, Beat | None, tuple[Event, ...]]] = []
        self.doubted: list[tuple[Journal, Beat]] = []

    def _receive(self, journal: Journal, beat: Beat | None, batch: tuple[Event, ...]) -> Received:
        self.received.append((journal, beat, batch))
        return super()._receive(journal, beat, batch)

    def _demand_reset(self, journal: Journal, beat: Beat) -> Ack | None:
        self.doubted.append((journal, beat))
        return super()._demand_reset(journal, beat)


def check_gateway(asked: Recorder) -> int:
    """Put every question to the product; returns how many. Raises AssertionError at the first other answer."""
    for journal, beat, batch in asked.received:
        check_batch(asked, journal, beat, batch)
    for journal, beat in asked.doubted:
        reset = asked.demand_reset(journal, beat)
        real = stream.demand_reset(held_of(journal), health(beat))
        assert real == (None if reset is None else spoken(reset)), (journal, beat, reset, real)
    return len(asked.received) + len(asked.doubted)


def check_batch(protocol: Protocol, journal: Journal, beat: Beat | None, batch: tuple[Event, ...]) -> None:
    """Each verdict, with its losses, and each answer."""
    known = None if beat is None else health(beat)
    judged: dict[str, list[tuple[wire.Event, stream.Verdict]]] = {}
    after = journal
    for event in batch:
        real = stream.judge(sealed(event), held_of(after), known)
        verdict, gaps = protocol.judge(after, beat, event)
        assert as_model(real) == (verdict, gaps), (after, beat, event, real, verdict, gaps)
        after = protocol.written(after, event, verdict, gaps)
        judged[ulid(event.epoch)] = [*judged.pop(ulid(event.epoch), []), (sealed(event), real)]
    answers = [stream.answer(held_of(after), of_epoch, known) for of_epoch in judged.values()]
    acks = protocol.receive(journal, beat, batch).acks
    assert answers == [spoken(ack) for ack in acks], (journal, beat, batch, answers, acks)


EPOCHS = {ulid(number): number for number in range(100)}


def as_model(verdict: stream.Verdict) -> tuple[Verdict, tuple[Gap, ...]]:
    """The product's verdict in the model's words."""
    match verdict:
        case stream.Next(lost=lost):
            return Verdict.NEXT, _gaps(lost)
        case stream.Conflict(lost=lost):
            return Verdict.CONFLICT, _gaps(lost)
        case stream.Duplicate():
            return Verdict.DUPLICATE, ()
        case stream.Late():
            return Verdict.LATE, ()
        case stream.Ahead():
            return Verdict.AHEAD, ()


def _gaps(lost: Iterable[stream.Lost]) -> tuple[Gap, ...]:
    return tuple(Gap(EPOCHS[item.epoch], item.from_seq, item.to_seq) for item in lost)


# the agent


class Driver:
    """One `Sender` for each agent of the model, moved by the model's steps."""

    def __init__(self, world: World) -> None:
        self.now = MonoNs(0)
        self.senders = [self._started(agent) for agent in world.agents]

    def follow(self, way: Sequence[tuple[Step | None, World]]) -> None:
        """All steps of a way from the first world on. Raises AssertionError where the code goes another way."""
        for (_, before), (step, after) in pairwise(way):
            assert step is not None
            self.take(step, before, after)

    def take(self, step: Step, before: World, after: World) -> None:
        """One step, and what the agents stand at after it."""
        if step.act is Act.CLONE:
            self.senders.append(self._started(after.agents[-1]))
        elif step.act in NEW_PROCESS:
            self.senders[step.agent] = self._started(after.agents[step.agent])
        elif step.act in TO_ONE_AGENT:
            self._move(step, before, after)
        for sender, agent in zip(self.senders, after.agents, strict=True):
            stands = sender.acked, sender._skip_gone(sender._next), sender.tail
            assert stands == (agent.acked, agent.next, len(agent.chain)), (step, before, after, stands)
            if agent.next > len(agent.chain):
                assert sender.take_sends(self.now) == [], (step, before, after)

    def _move(self, step: Step, before: World, after: World) -> None:
        sender, was, agent = self.senders[step.agent], before.agents[step.agent], after.agents[step.agent]
        match step.act:
            case Act.SEND:
                assert sender.take_sends(self.now) == [was.next], (step, before)
                sender.receive_puback(was.next, self.now, is_delivered=True)
            case Act.HEAR | Act.DOUBLE_DOWN:
                self._hear(sender, was, agent, before.inboxes[step.agent][0])
            case Act.RESEND:
                self.now = MonoNs(self.now + PATIENCE_NS)
                sender.handle_timer(self.now)
            case Act.RECONNECT:
                sender.disconnect()
                self._connect(sender)
            case Act.PRUNE:
                sender.prune(agent.first)
            case Act.DAMAGE:
                sender.lose(Span(step.variant, step.variant))
                sender.extend(len(agent.chain))
            case _:
                sender.extend(len(agent.chain))

    def _hear(self, sender: Sender, was: Agent, agent: Agent, ack: Ack) -> None:
        outcome = sender.receive_ack(spoken(ack), placed(was, ack.event), self.now)
        is_fork = len(agent.chain) > len(was.chain)
        assert (outcome is AckOutcome.FORKED) == is_fork, (was, ack, outcome)
        if is_fork:
            sender.begin_epoch(ulid(agent.tail.epoch))
            sender.extend(len(agent.chain))

    def _started(self, agent: Agent) -> Sender:
        sender = Sender(
            DeliveryMode.GATEWAY,
            ulid(agent.tail.epoch),
            first=agent.first,
            tail=len(agent.chain),
            acked=agent.acked,
        )
        for n in sorted(agent.gone):
            sender.lose(Span(n, n))
        self._connect(sender)
        return sender

    def _connect(self, sender: Sender) -> None:
        """One publish at a time, so that each step of the model is one of the code; the retained ack is waited for."""
        sender.connect(1, self.now)
        self.now = MonoNs(self.now + PATIENCE_NS)


def placed(agent: Agent, event: Event | None) -> Placed:
    """What a store answers when it is asked for an ack's place."""
    if event is None or event.epoch not in {own.epoch for own in agent.chain}:
        return NOT_PLACED
    own = next((mine for mine in agent.chain if mine.key == event.key), None)
    if own is None:
        return Placed(Match.BEYOND, max(mine.n for mine in agent.chain if mine.epoch == event.epoch))
    if own.n < agent.first or own.n in agent.gone:
        return NOT_PLACED
    return Placed(Match.HELD if own is event else Match.OTHER_HASH, own.n)


@dataclass(frozen=True, slots=True)
class Happening:
    """What happened to an agent in one of its states."""

    agent: Agent
    act: Act
    detail: Ack | int


def happening(step: Step, world: World) -> Happening | None:
    """What a step does to an agent, None where it does nothing to any."""
    if step.act not in TO_ONE_AGENT or step.act in NEW_PROCESS:
        return None
    is_heard = step.act in {Act.HEAR, Act.DOUBLE_DOWN}
    detail = world.inboxes[step.agent][0] if is_heard else step.variant
    return Happening(world.agents[step.agent], step.act, detail)


def ways_to_everything(graph: Graph, model: Model) -> Iterator[list[tuple[Step | None, World]]]:
    """Shortest ways that together contain everything that happens to an agent anywhere in the graph."""
    where: dict[Happening, tuple[int, Step, World]] = {}
    for number, world in enumerate(graph.worlds):
        for step, after in model.steps(world):
            found = happening(step, world)
            if found is not None:
                where.setdefault(found, (number, step, after))
    covered: set[Happening] = set()
    for found, (number, step, after) in reversed(where.items()):  # the longest ways cover most
        if found not in covered:
            way = [*graph.way_to(number), (step, after)]
            for (_, before), (taken, _) in pairwise(way):
                assert taken is not None
                on_the_way = happening(taken, before)
                if on_the_way is not None:
                    covered.add(on_the_way)
            yield way


def follow_everything(graph: Graph, model: Model) -> int:
    """Drive the product's sender along ways that contain everything; returns how many steps that were."""
    steps = 0
    for way in ways_to_everything(graph, model):
        Driver(graph.worlds[0]).follow(way)
        steps += len(way) - 1
    return steps
