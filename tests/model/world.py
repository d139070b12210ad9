"""Everything at once: agents, broker, gateway, and every step that any of them, or the weather, or a fault can take.

Theory of operation. A `World` is a value; `Model.steps` lists every step that is possible in it and the world after
it. Steps are of three sorts. *Fair* ones happen by themselves again and again: send, deliver, hear, health, the
resend timer. *Weather* may happen at any time and any number of times, but nobody may rely on it: losing and doubling
of messages, reconnects, a restarted gateway, one that dies between commit and answer, new events (up to a bound).
*Faults* are disasters, at most `Bound.faults` of them in one history: a kill, an image, a clone, a resumed snapshot,
pruning, damage, a lost store, a wiped broker, a restored or deleted journal.

Reductions. Channels are queues, so a message that is lost may as well be lost when its turn has come. A doubled
message comes again at the end of its queue, which with the loss of the first is a delay. What a full inbox cannot take
pushes out the oldest ack, which could have been lost anyway. Losses and doublings need no counter, so there is no
bound on them. A backup is a beginning of the journal, so it is no part of the state.

Simplifications. An image is the store as it was when one of its events was the last, with the acks and the damage of
today or with none yet, not every file that ever was. A gateway that restarts gets the health that it heard last as the
retained one; a newer one on its way is taken as lost. Room for messages is small, and the window of sending with it.
Reports and occurrences are left out: what they heal is `gateway.domain.reconcile`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

from tests.model.protocol import Heard, Protocol
from tests.model.values import EMPTY_JOURNAL, Ack, Agent, Beat, Event, Journal, agent_of, journal_of

T = TypeVar("T")


class Act(StrEnum):
    """Every kind of step, in words."""

    SEND = "sends the next event"
    DELIVER = "the gateway gets a message"
    DELIVER_ALL = "the gateway gets all messages as one batch"
    HEAR = "hears an ack"
    BEAT = "publishes health"
    RESEND = "has waited without progress: again from acked"
    PRODUCE = "stores an event"
    RECONNECT = "reconnects"
    LOSE_UP = "the broker loses a message to the gateway"
    LOSE_DOWN = "misses an ack"
    DOUBLE_UP = "a message to the gateway comes twice"
    DOUBLE_DOWN = "gets an ack that will come again"
    GATEWAY_RESTART = "the gateway restarts"
    UNANSWERED = "the gateway dies between commit and answer"
    KILL = "is killed and restarts"
    IMAGE = "is restored from an image of its store"
    CLONE = "runs a second time, from an image"
    SNAPSHOT = "is resumed from a snapshot of the running machine"
    PRUNE = "prunes acked events"
    DAMAGE = "cannot read a stored event any more"
    LOSE_STORE = "loses its store"
    WIPE_BROKER = "the broker is wiped"
    RESTORE_GATEWAY = "the gateway's journal is restored from a backup"
    DELETE_GATEWAY = "the gateway's journal is deleted"


FAIR = frozenset({Act.SEND, Act.DELIVER, Act.DELIVER_ALL, Act.HEAR, Act.BEAT, Act.RESEND})
"""They go on for ever by themselves."""

FAULTS = frozenset(
    {
        Act.KILL,
        Act.IMAGE,
        Act.CLONE,
        Act.SNAPSHOT,
        Act.PRUNE,
        Act.DAMAGE,
        Act.LOSE_STORE,
        Act.WIPE_BROKER,
        Act.RESTORE_GATEWAY,
        Act.DELETE_GATEWAY,
    }
)
"""They are counted."""


class Step(NamedTuple):
    """What happens, to which agent, and which variant of it."""

    act: Act
    agent: int = 0
    variant: int = 0


@dataclass(frozen=True, slots=True)
class Bound:
    """How far the search goes: events beside the first of each run, faults, room in the channels, window of sending."""

    events: int
    faults: int
    up: int = 2
    down: int = 1
    window: int = 2
    kinds: frozenset[Act] = FAULTS


class Gateway(NamedTuple):
    """Its disk, and the newest health in its memory."""

    journal: Journal
    beat: Beat | None


class Tally(NamedTuple):
    """What the search counts, and what the auditor must know of the past.

    `is_resumed`: two histories of one epoch exist. `is_forgetful`: a gateway lost what it had promised. `is_owed`: a
    store was lost with events that the gateway, which knew that store, did not hold.
    """

    events: int = 0
    epochs: int = 1
    faults: int = 0
    twists: int = 0
    is_resumed: bool = False
    is_forgetful: bool = False
    is_owed: bool = False


class World(NamedTuple):
    """One moment. `inboxes`: acks on their way, to each agent; `up`: messages on their way to the gateway."""

    agents: tuple[Agent, ...]
    inboxes: tuple[tuple[Ack, ...], ...]
    up: tuple[Event | Beat, ...]
    retained: Ack | None
    gateway: Gateway
    tally: Tally


NO_STORE = agent_of((), 1, 0, frozenset(), 0, 1)


class Model:
    """The steps of one protocol within one bound."""

    def __init__(self, protocol: Protocol, bound: Bound) -> None:
        self.protocol = protocol
        self.bound = bound

    def first(self) -> World:
        """A new agent beside a new gateway."""
        agent = self._run(NO_STORE, Tally(), 0)
        return World((agent,), ((),), (), None, Gateway(EMPTY_JOURNAL, None), Tally())

    def steps(self, world: World) -> Iterator[tuple[Step, World]]:
        """Every step that is possible, fair ones first, and where it leads."""
        for index in range(len(world.agents)):
            yield from self._agent_steps(world, index)
        if world.up:
            yield from self._gateway_steps(world)
        yield from self._broker_steps(world)
        if world.tally.faults < self.bound.faults:
            for step, after in self._faults(world):
                if step.act in self.bound.kinds:
                    yield step, after

    # what agents do by themselves

    def _agent_steps(self, world: World, index: int) -> Iterator[tuple[Step, World]]:
        protocol, bound = self.protocol, self.bound
        agents, inboxes, up, retained, gateway, tally = world
        agent, inbox = agents[index], inboxes[index]
        if inbox:
            rest = _with(inboxes, index, inbox[1:])
            yield Step(Act.HEAR, index), self._heard(world, index, inbox[0], rest)
            yield Step(Act.LOSE_DOWN, index), World(agents, rest, up, retained, gateway, tally)
            if len(inbox) < bound.down:
                again = _with(inboxes, index, (*inbox[1:], inbox[0]))
                yield Step(Act.DOUBLE_DOWN, index), self._heard(world, index, inbox[0], again)
        if len(up) < bound.up:
            event = protocol.to_send(agent, bound.window)
            if event is not None:
                sent = _with(agents, index, protocol.sent(agent))
                yield Step(Act.SEND, index), World(sent, inboxes, (*up, event), retained, gateway, tally)
            beaten = (*up, protocol.beat(agent))
            yield Step(Act.BEAT, index), World(agents, inboxes, beaten, retained, gateway, tally)
        back = protocol.go_back(agent)
        if back is not agent:
            backed = _with(agents, index, back)
            yield Step(Act.RESEND, index), World(backed, inboxes, up, retained, gateway, tally)
        if retained is not None:
            anew, told = _with(agents, index, back), _with(inboxes, index, (retained,))
            yield Step(Act.RECONNECT, index), World(anew, told, up, retained, gateway, tally)
        if tally.events < bound.events:
            minted = _with(agents, index, protocol.mint(agent, _twist(tally, index)))
            counted = tally._replace(events=tally.events + 1)
            yield Step(Act.PRODUCE, index), World(minted, inboxes, up, retained, gateway, counted)

    def _heard(self, world: World, index: int, ack: Ack, inboxes: tuple[tuple[Ack, ...], ...]) -> World:
        agent, outcome = self.protocol.hear(world.agents[index], ack)
        tally = world.tally
        if outcome is Heard.FORK:
            tally = tally._replace(epochs=tally.epochs + 1)
            agent = self.protocol.begin_epoch(agent, tally.epochs, _twist(tally, index))
        agents = _with(world.agents, index, agent)
        return World(agents, inboxes, world.up, world.retained, world.gateway, tally)

    # what the gateway does

    def _gateway_steps(self, world: World) -> Iterator[tuple[Step, World]]:
        up = world.up
        one = self._delivered(world, up[:1], up[1:])
        yield Step(Act.DELIVER), one
        yield Step(Act.LOSE_UP), world._replace(up=up[1:])
        if len(up) > 1:
            yield Step(Act.DELIVER_ALL), self._delivered(world, up, ())
        if len(up) < self.bound.up:
            yield Step(Act.DOUBLE_UP), self._delivered(world, up[:1], (*up[1:], up[0]))
        if one.gateway.journal is not world.gateway.journal:
            yield Step(Act.UNANSWERED), _restarted(world, one.gateway.journal, world.tally)

    def _delivered(
        self, world: World, batch: tuple[Event | Beat, ...], rest: tuple[Event | Beat, ...]
    ) -> World:
        """Healths are heard first; then events; acks and the reset go out after the commit, retained."""
        journal, beat = world.gateway
        beats = [message for message in batch if isinstance(message, Beat)]
        events = tuple(message for message in batch if isinstance(message, Event))
        beat = beats[-1] if beats else beat
        acks: tuple[Ack, ...] = ()
        if events:
            journal, acks, _ = self.protocol.receive(journal, beat, events)
        reset = self.protocol.demand_reset(journal, beats[-1]) if beats else None
        acks = acks if reset is None else (*acks, reset)
        if not acks:
            return World(
                world.agents, world.inboxes, rest, world.retained, Gateway(journal, beat), world.tally
            )
        inboxes = tuple((*inbox, *acks)[-self.bound.down :] for inbox in world.inboxes)
        return World(world.agents, inboxes, rest, acks[-1], Gateway(journal, beat), world.tally)

    def _broker_steps(self, world: World) -> Iterator[tuple[Step, World]]:
        """A gateway that restarts gets the retained health, and nothing that was under way."""
        if world.gateway.beat is not None:
            yield Step(Act.GATEWAY_RESTART), _restarted(world, world.gateway.journal, world.tally)

    # disasters

    def _faults(self, world: World) -> Iterator[tuple[Step, World]]:
        tally = world.tally._replace(faults=world.tally.faults + 1)
        for index in range(len(world.agents)):
            yield from self._faults_of(world, index, tally)
        if world.retained is not None or world.up:
            none: tuple[Ack, ...] = ()
            inboxes = tuple(none for _ in world.inboxes)
            wiped = World(world.agents, inboxes, (), None, world.gateway, tally)
            yield Step(Act.WIPE_BROKER), wiped
        entries = world.gateway.journal.entries
        forgetful = tally._replace(is_forgetful=True, is_owed=False)
        for length in range(1, len(entries)):
            after = _restarted(world, journal_of(entries[:length]), forgetful)
            yield Step(Act.RESTORE_GATEWAY, variant=length), after
        if entries:
            yield Step(Act.DELETE_GATEWAY), _restarted(world, EMPTY_JOURNAL, forgetful)

    def _faults_of(self, world: World, index: int, tally: Tally) -> Iterator[tuple[Step, World]]:
        agent, new = world.agents[index], tally._replace(epochs=tally.epochs + 1)
        yield Step(Act.KILL, index), self._put(world, index, self._run(agent, new, index), new)
        copied = new._replace(twists=new.twists + 1)
        for variant, image in enumerate(_images(agent)):
            restored = self._put(world, index, self._run(image, copied, index), copied)
            yield Step(Act.IMAGE, index, variant), restored
            if len(world.agents) == 1:
                agents = (agent, self._run(image, copied, 1))
                inboxes = (*world.inboxes, _retained(world))
                clone = World(agents, inboxes, world.up, world.retained, world.gateway, copied)
                yield Step(Act.CLONE, index, variant), clone
        yield from self._snapshots(world, index, tally)
        for first in range(agent.first + 1, min(agent.ever + 1, len(agent.chain)) + 1):
            gone = frozenset(n for n in agent.gone if n >= first)
            pruned = agent_of(agent.chain, first, agent.ever, gone, agent.acked, agent.next)
            yield Step(Act.PRUNE, index, first), self._put(world, index, pruned, tally, stays=True)
        for place in range(agent.first, len(agent.chain) + 1):
            if place not in agent.gone:
                yield Step(Act.DAMAGE, index, place), self._damaged(world, index, place, tally)
        journal = world.gateway.journal
        is_owed = bool(journal.held) and any(
            journal.held.get(event.key) is not event and event not in journal.refused for event in agent.chain
        )
        lost = new._replace(is_owed=new.is_owed or is_owed)
        run = self._run(NO_STORE, lost, index)
        yield Step(Act.LOSE_STORE, index), self._put(world, index, run, lost)

    def _snapshots(self, world: World, index: int, tally: Tally) -> Iterator[tuple[Step, World]]:
        """A running machine goes back to an earlier moment of its present run, and on in another way."""
        agent = world.agents[index]
        resumed = tally._replace(twists=tally.twists + 1, is_resumed=True)
        for length in range(1, len(agent.chain)):
            if agent.chain[length - 1].epoch == agent.tail.epoch and length >= agent.first:
                acked = min(agent.acked, length)
                image = agent_of(
                    agent.chain[:length],
                    agent.first,
                    min(agent.ever, length),
                    frozenset(n for n in agent.gone if n < length),
                    acked,
                    acked + 1,
                )
                yield Step(Act.SNAPSHOT, index, length), self._put(world, index, image, resumed)

    def _damaged(self, world: World, index: int, place: int, tally: Tally) -> World:
        """§2.6: never sent again, named in health, and an observation says so: it stands behind the damage."""
        agent = world.agents[index]
        gone = agent.gone | {place}
        hurt = agent_of(agent.chain, agent.first, agent.ever, gone, agent.acked, agent.next)
        noted = self.protocol.mint(hurt, _twist(tally, index))
        return self._put(world, index, noted, tally, stays=True)

    def _run(self, image: Agent, tally: Tally, index: int) -> Agent:
        """A process starts on this store."""
        store = image.chain, image.first, image.acked, image.ever, image.gone
        return self.protocol.run(*store, epoch=tally.epochs, twist=_twist(tally, index))

    def _put(self, world: World, index: int, agent: Agent, tally: Tally, *, stays: bool = False) -> World:
        """The agent in its new state; unless its connection stays, it connects anew."""
        agents = _with(world.agents, index, agent)
        inboxes = world.inboxes if stays else _with(world.inboxes, index, _retained(world))
        return World(agents, inboxes, world.up, world.retained, world.gateway, tally)


def _with(items: tuple[T, ...], index: int, item: T) -> tuple[T, ...]:
    return (item,) if len(items) == 1 else (*items[:index], item, *items[index + 1 :])


def _twist(tally: Tally, index: int) -> int:
    return 2 * tally.twists + index


def _retained(world: World) -> tuple[Ack, ...]:
    return (world.retained,) if world.retained else ()


def _restarted(world: World, journal: Journal, tally: Tally) -> World:
    """A gateway with this journal connects: no health in its memory, no session, only what is retained."""
    up = (world.gateway.beat,) if world.gateway.beat else ()
    return World(world.agents, world.inboxes, up, world.retained, Gateway(journal, None), tally)


def _images(agent: Agent) -> Iterator[Agent]:
    """The store as it was when one of its events was the last: as acked and damaged as today, and fresh."""
    for length in range(1, len(agent.chain) + 1):
        chain = agent.chain[:length]
        yield agent_of(chain, 1, 0, frozenset(), 0, 1)
        if length >= agent.first and (agent.ever or agent.gone):
            gone = frozenset(n for n in agent.gone if n < length)
            acked = min(agent.acked, length)
            yield agent_of(chain, agent.first, min(agent.ever, length), gone, acked, acked + 1)
