"""The delivery protocol on paper: what an agent and a gateway do, written from its page as functions of values.

It shares no code with the product; `replay` compares the two. Each method is one sentence or two of the protocol,
named in its docstring; `mutants` overrides single ones to show that the model can fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from functools import cache
from typing import NamedTuple

from tests.model.values import (
    Ack,
    Agent,
    Beat,
    Entry,
    Event,
    Gap,
    Journal,
    Key,
    Refused,
    ack_of,
    agent_of,
    beat_of,
    event_after,
    journal_of,
)


class Heard(StrEnum):
    """What an ack did to an agent."""

    NOTHING = "nothing"
    FORWARD = "forward"
    BACK = "back"
    FORK = "fork"


class Verdict(StrEnum):
    """What a gateway makes of an event."""

    NEXT = "next"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    LATE = "late"
    AHEAD = "ahead"


class Received(NamedTuple):
    """The journal after a batch, the acks in the order in which they are published, and each event's verdict."""

    journal: Journal
    acks: tuple[Ack, ...]
    verdicts: tuple[tuple[Event, Verdict], ...]


class Protocol:
    """The rules. Without state: what they were asked before is remembered only for speed."""

    def __init__(self) -> None:
        self.hear = cache(self._hear)
        self.receive = cache(self._receive)
        self.demand_reset = cache(self._demand_reset)

    # section 2, the agent

    def begin_epoch(self, agent: Agent, epoch: int, twist: int) -> Agent:
        """§1: a new epoch in this store; its first event takes up after the last one."""
        started = event_after(agent.chain, epoch, 1, twist)
        return _replaced(agent, chain=(*agent.chain, started))

    def run(
        self,
        chain: tuple[Event, ...],
        first: int,
        acked: int,
        ever: int,
        gone: frozenset[int],
        epoch: int,
        twist: int,
    ) -> Agent:
        """§1, §2.1: a new run on this store goes on after acked, which the store keeps, in an epoch of its own."""
        return self.begin_epoch(agent_of(chain, first, ever, gone, acked, acked + 1), epoch, twist)

    def mint(self, agent: Agent, twist: int) -> Agent:
        """§1: the next event of the present epoch."""
        tail = agent.tail
        return _replaced(
            agent, chain=(*agent.chain, event_after(agent.chain, tail.epoch, tail.seq + 1, twist))
        )

    def to_send(self, agent: Agent, window: int) -> Event | None:
        """§2.1: the next event in chain order, at most `window` beyond acked (what is gone not counted)."""
        if agent.next > len(agent.chain):
            return None
        lowest = max(agent.acked + 1, agent.first)
        ahead = sum(1 for n in range(lowest, agent.next) if n not in agent.gone)
        return agent.chain[agent.next - 1] if ahead < window else None

    def sent(self, agent: Agent) -> Agent:
        """The event after the one just sent comes next."""
        return _replaced(agent, next_place=agent.next + 1)

    def go_back(self, agent: Agent) -> Agent:
        """§2.4: without progress, and after a reconnect, again from acked."""
        return _replaced(agent, next_place=agent.acked + 1)

    def beat(self, agent: Agent) -> Beat:
        """§2.1: the health of this moment. Acked is kept apart from its event; first can still be sent."""
        stored = range(agent.first, len(agent.chain) + 1)
        first = next((n for n in stored if n not in agent.gone), None)
        return beat_of(
            agent.tail.epoch,
            agent.chain[agent.acked - 1] if agent.acked else None,
            agent.chain[first - 1] if first else None,
            frozenset(agent.chain[n - 1].key for n in agent.gone),
        )

    def _hear(self, agent: Agent, ack: Ack) -> tuple[Agent, Heard]:
        """§2.2, §2.3: what an ack does."""
        event = ack.event
        if event is not None:
            place = self.place(agent, event)
            if place is not None:
                return self.move(agent, place, may_go_back=ack.reset)
            if event.epoch == agent.tail.epoch and self.is_another(agent, event):
                return self.go_back(agent), Heard.FORK
        if ack.reset and ack.to == agent.tail.epoch:
            return self.move(agent, 0, may_go_back=True)
        return agent, Heard.NOTHING

    def place(self, agent: Agent, event: Event) -> int | None:
        """Where in its store an agent finds this very event; pruned and damaged ones it cannot compare."""
        n = event.n
        is_mine = n <= len(agent.chain) and agent.chain[n - 1] is event
        return n if is_mine and n >= agent.first and n not in agent.gone else None

    def is_another(self, agent: Agent, event: Event) -> bool:
        """§2.3: another hash at a seq of the present epoch that it holds, or a seq beyond its own."""
        own = next((mine for mine in agent.chain if mine.key == event.key), None)
        if own is None:
            return True
        return own is not event and own.n >= agent.first and own.n not in agent.gone

    def move(self, agent: Agent, place: int, *, may_go_back: bool) -> tuple[Agent, Heard]:
        """§2.2: forward, and back only by a reset."""
        if place > agent.acked:
            return _replaced(agent, acked=place, next_place=max(agent.next, place + 1)), Heard.FORWARD
        if place < agent.acked and may_go_back:
            return _replaced(agent, acked=place, next_place=place + 1), Heard.BACK
        return agent, Heard.NOTHING

    # section 3, the gateway

    def _receive(self, journal: Journal, beat: Beat | None, batch: tuple[Event, ...]) -> Received:
        """§3.1: each event is judged in its turn; each epoch of the batch is answered once, after the commit."""
        by_epoch: dict[int, list[tuple[Event, Verdict]]] = {}
        verdicts: list[tuple[Event, Verdict]] = []
        for event in batch:
            verdict, gaps = self.judge(journal, beat, event)
            journal = self.written(journal, event, verdict, gaps)
            verdicts.append((event, verdict))
            judged = by_epoch.pop(event.epoch, [])
            by_epoch[event.epoch] = [*judged, (event, verdict)]
        acks = tuple(self.answer(journal, beat, judged) for judged in by_epoch.values())
        return Received(journal, acks, tuple(verdicts))

    def judge(self, journal: Journal, beat: Beat | None, event: Event) -> tuple[Verdict, tuple[Gap, ...]]:
        """§3.1, §3.3, §3.4: a place in the journal, with the losses that are final by it, or none."""
        known, last, before = journal.held.get(event.key), journal.last.get(event.epoch), event.before
        if known is event:
            return Verdict.DUPLICATE, ()
        if known is not None:
            return self.linked(journal, beat, event, Verdict.CONFLICT)
        if last is not None and event.seq <= last.seq + 1:
            return (
                (Verdict.LATE, ())
                if event.seq < last.seq
                else self.linked(journal, beat, event, Verdict.NEXT)
            )
        if last is None and event.seq == 1:
            if before is None:
                return Verdict.NEXT, _open_tail(journal)
            if self.is_behind(journal, before.key):
                return self.linked(journal, beat, event, Verdict.NEXT)
        if beat is not None and beat.first is event:
            return Verdict.NEXT, self.lost_before(journal, event)
        gaps = None if beat is None else self.lost_to_damage(journal, beat, event)
        return (Verdict.AHEAD, ()) if gaps is None else (Verdict.NEXT, gaps)

    def linked(
        self, journal: Journal, beat: Beat | None, event: Event, verdict: Verdict
    ) -> tuple[Verdict, tuple[Gap, ...]]:
        """§3.4: the verdict for an event that follows a key which is held.

        Where not this very event is held there, but another, the one that it follows must be in quarantine first: it
        comes again. Where its agent shows that it has nothing more to send in between, that history is lost.
        """
        before = event.before
        if before is None or self.is_accounted_for(journal, before):
            return verdict, ()
        if not self.has_nothing_between(beat, event):
            return Verdict.AHEAD, ()
        return verdict, (Gap(before.epoch, 1, before.seq),)

    def has_nothing_between(self, beat: Beat | None, event: Event) -> bool:
        """§3.4: whether the newest health shows that all before `event` is acked, gone or pruned."""
        if beat is None or beat.first is event:
            return beat is not None
        epoch, seq = event.chain_before[-1].key
        while (epoch, seq) in beat.gone:
            seq -= 1
        return seq == 0 or (beat.acked is not None and beat.acked.key == (epoch, seq))

    def is_behind(self, journal: Journal, key: Key) -> bool:
        """Held under this key (whatever its hash), or inside a final gap."""
        last = journal.last.get(key[0])
        return key in journal.held or (last is not None and key[1] < last.seq)

    def lost_before(self, journal: Journal, first: Event) -> tuple[Gap, ...]:
        """§3.3: what lies before `first` is gone for good: from the last held of its epoch, or with an open end."""
        last, before = journal.last.get(first.epoch), first.before
        if last is not None:
            return (Gap(first.epoch, last.seq + 1, first.seq - 1),)
        if first.seq > 1 or before is None:
            return (*_open_tail(journal), *_range(first.epoch, 1, first.seq - 1))
        end = journal.last.get(before.epoch)
        if end is None:
            return (*_open_tail(journal), *_range(before.epoch, 1, before.seq))
        return _range(before.epoch, end.seq + 1, before.seq)

    def lost_to_damage(self, journal: Journal, beat: Beat, event: Event) -> tuple[Gap, ...] | None:
        """§3.1: the gone range right before `event`, None unless everything before that range is held.

        Where an epoch's beginning is gone and the agent (an older one) does not say what it came after, what it saw
        acked must be held, and the rest after what is held of that epoch is lost, too.
        """
        epoch, upto = event.epoch, event.seq - 1
        if event.seq == 1:
            if event.before is None:
                return None
            epoch, upto = event.before.key
        last = journal.last.get(epoch)
        start = 1 if last is None else last.seq + 1
        if start > upto or any((epoch, seq) not in beat.gone for seq in range(start, upto + 1)):
            return None
        lost = Gap(epoch, start, upto)
        if last is not None:
            return (lost,)
        if beat.acked is None or not self.is_accounted_for(journal, beat.acked):
            return None
        end = journal.last.get(beat.acked.epoch, beat.acked)
        return Gap(beat.acked.epoch, max(beat.acked.seq, end.seq) + 1, None), lost

    def written(self, journal: Journal, event: Event, verdict: Verdict, gaps: tuple[Gap, ...]) -> Journal:
        """§3.1, §3.4: what a verdict leaves in the journal; what was refused once is not kept twice."""
        match verdict:
            case Verdict.NEXT:
                more: tuple[Entry, ...] = (*gaps, event)
            case Verdict.CONFLICT | Verdict.LATE if event not in journal.refused:
                more = (*gaps, Refused(event))
            case _:
                return journal
        return journal_of((*journal.entries, *more))

    def answer(self, journal: Journal, beat: Beat | None, judged: Sequence[tuple[Event, Verdict]]) -> Ack:
        """§3.1, §3.4: the last event of the batch that is held now, by the gateway's own hash; never a reset.

        What lies in quarantine because its place has passed, or in an epoch that its agent has left, is safe.
        """
        epoch = judged[-1][0].epoch
        for event, verdict in reversed(judged):
            if verdict is Verdict.AHEAD:
                continue
            is_present = beat is None or beat.epoch == epoch
            if verdict is Verdict.CONFLICT and is_present:
                return ack_of(epoch, journal.held[event.key], reset=False)
            return ack_of(epoch, event, reset=False)
        return ack_of(epoch, journal.last.get(epoch, journal.newest), reset=False)

    def _demand_reset(self, journal: Journal, beat: Beat) -> Ack | None:
        """§3.2: a health that shows an acked that is not held calls for a reset to the newest that is."""
        if beat.acked is None or self.is_accounted_for(journal, beat.acked):
            return None
        return ack_of(beat.epoch, journal.last.get(beat.epoch, journal.newest), reset=True)

    def is_accounted_for(self, journal: Journal, acked: Event) -> bool:
        """Held with that hash, inside a final gap, or in quarantine: to go back would bring nothing."""
        known = journal.held.get(acked.key)
        if known is acked or acked in journal.refused:
            return True
        return known is None and self.is_behind(journal, acked.key)


def _replaced(
    agent: Agent,
    *,
    chain: tuple[Event, ...] | None = None,
    acked: int | None = None,
    next_place: int | None = None,
) -> Agent:
    return agent_of(
        agent.chain if chain is None else chain,
        agent.first,
        max(agent.ever, acked or 0),
        agent.gone,
        agent.acked if acked is None else acked,
        agent.next if next_place is None else next_place,
    )


def _open_tail(journal: Journal) -> tuple[Gap, ...]:
    """§3.3: the rest, of unknown length, of the epoch that began last here."""
    if not journal.last:
        return ()
    last = journal.last[list(journal.last)[-1]]
    return (Gap(last.epoch, last.seq + 1, None),)


def _range(epoch: int, from_seq: int, to_seq: int) -> tuple[Gap, ...]:
    return (Gap(epoch, from_seq, to_seq),) if from_seq <= to_seq else ()
